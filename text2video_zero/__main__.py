"""The command line: `python -m text2video_zero TASK`, with one option for each field of the task's request.

The path of the result goes to standard output, everything else to standard error. Exit status: 0 done,
2 something that the person can put right, told in one line, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, TextIO

from text2video_zero import __version__
from text2video_zero.errors import UserError
from text2video_zero.events import Finished, Notice, Progress
from text2video_zero.media.video import (
    Video,
    check_destination,
    check_frames_directory,
    read_settings,
    save_or_keep_frames,
    unique_path,
)
from text2video_zero.models.adapters import read_adapters
from text2video_zero.models.catalogue import DREAMBOOTH_STYLES, KNOWN_MODELS, TOYLAND, known_model, name_of
from text2video_zero.models.selection import checkpoint_for
from text2video_zero.models.speeds import SPEED_FIELDS, speed_adapters, speed_values
from text2video_zero.requests import REQUESTS, ControlledRequest, FewStepRequest, FieldSpec, Kind, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from text2video_zero.models.checkpoints import Checkpoint

OUTPUTS = Path("outputs")
FIELD = "field "  # no option of the command itself has a blank in its name, so fields cannot clash with them
NOTES_PER_STAGE = 10  # lines of progress where lines cannot be written over


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaints are UserErrors, so that all mistakes of the person are told in one manner."""

    def error(self, message: str) -> NoReturn:
        """Raise the complaint."""
        raise UserError(f"{message[:1].upper()}{message[1:]}: see {self.prog} --help.")


class ListModels(argparse.Action):
    """Print the models that are known by name, and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Act on the option."""
        models = (*KNOWN_MODELS.values(), *DREAMBOOTH_STYLES.values())
        width = max(len(model.name) for model in models)
        for model in models:
            print(f"{model.name:{width}}  {model.note}")
        parser.exit()


class ProgressLine:
    """What goes on, on one line that is written over; where that is impossible, a line now and then."""

    def __init__(self, stream: TextIO, *, quiet: bool) -> None:
        self._stream = stream
        self._quiet = quiet
        self._writes_over = stream.isatty()
        self._open = False
        self._noted: tuple[str, int] | None = None  # stage and tenth of it at the last line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def note(self, text: str) -> None:
        """Tell something that stays to be read."""
        if not self._quiet:
            self._close()
            print(text, file=self._stream, flush=True)

    def show(self, progress: Progress) -> None:
        """Tell how far the run is."""
        counted = "step " if progress.unit == "steps" else ""
        text = f"{progress.stage}, {counted}{progress.count}" if progress.count else progress.stage
        if progress.seconds_left is not None:
            text += f", about {_duration(progress.seconds_left)} left"
        moment = progress.stage, NOTES_PER_STAGE * progress.step // max(progress.of, 1)
        if self._writes_over and not self._quiet:
            print(f"\r\x1b[K{text}", end="", file=self._stream, flush=True)
            self._open = True
        elif moment != self._noted:
            self._noted = moment
            self.note(text)

    def _close(self) -> None:
        if self._open:
            print(file=self._stream)
            self._open = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; argv is sys.argv without the program's name."""
    try:
        arguments = build_parser().parse_args(argv)
        print(run(arguments))
    except UserError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; nothing was saved.", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser: one sub-command for each task, one option for each field of its request."""
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument("--list-models", action=ListModels, nargs=0, help="print the known models, and exit")
    everywhere.add_argument("--version", action="version", version=f"text2video_zero {__version__}")
    parser = OneLineParser(
        prog="python -m text2video_zero",
        description="Videos from text-to-image diffusion models, without training.",
        parents=[everywhere],
        allow_abbrev=False,
    )
    tasks = parser.add_subparsers(title="tasks", dest="task", metavar="TASK", required=True)
    for name, request_type in REQUESTS.items():
        task = tasks.add_parser(
            name,
            usage=f"{parser.prog} {name} [options]",
            help=request_type.title,
            description=(request_type.__doc__ or "").partition("\n")[0],
            parents=[everywhere],
            allow_abbrev=False,
        )
        _add_run_options(task, request_type)
        _add_fields(task, request_type)
    return parser


def run(arguments: argparse.Namespace) -> Path:
    """Make the video that the parsed arguments order and return its path.

    Raises UserError for everything that the person can put right, as early as it can be known.
    """
    request, model, loras = order(arguments)
    checkpoint = checkpoint_of(request, model, loras, arguments)
    output = arguments.output or unique_path(OUTPUTS, request.prompt, ".mp4")
    check_destination(output)
    if arguments.frames_dir is not None:
        check_frames_directory(arguments.frames_dir)
    with ProgressLine(sys.stderr, quiet=arguments.quiet) as line:
        line.note(f"Seed {request.seed}")
        video = sample(request, checkpoint, arguments, line)
        path = save_or_keep_frames(video, output)
        if arguments.frames_dir is not None:
            video.save_frames(arguments.frames_dir)
    return path


def order(arguments: argparse.Namespace) -> tuple[Request, str, list[str]]:
    """Return the request, with a concrete seed, the name of the model and the LoRAs on top, as they are written.

    A field's value is the option's, else the --settings file's, else the known model's, else the field's own
    default. What a speed sets comes from where the speed comes from. The model is the option's, else the one
    that made the --settings file if it is known by name; the LoRAs are the option's, else the file's.
    """
    settings = read_settings(arguments.settings) if arguments.settings else {}
    if settings.get("task", arguments.task) != arguments.task:
        raise UserError(f"{arguments.settings.name} was made by {settings['task']}: run that task with it.")
    model = arguments.model or _known_by_checkpoint(settings.get("model")) or TOYLAND.name
    request_type = REQUESTS[arguments.task]
    stored = settings.get("request", settings)
    if not isinstance(stored, dict):
        raise UserError(f"{arguments.settings.name} holds no request: choose a video that this app has saved.")
    given = {name.removeprefix(FIELD): value for name, value in vars(arguments).items() if name.startswith(FIELD)}
    known = known_model(model)
    suited = known.defaults if known else {}
    defaults = {name: suited.get(name, default) for name, default, _ in request_type.declarations()}
    values = {**defaults, **_with_speed(stored, defaults), **_with_speed(given, defaults)}
    request = request_type.from_dict(values).with_concrete_seed()
    return request, model, arguments.lora or _listed_loras(settings.get("loras", []), arguments)


def checkpoint_of(request: Request, model: str, loras: list[str], arguments: argparse.Namespace) -> Checkpoint:
    """Return what the request's task needs of the model."""
    adapters = read_adapters(loras)
    if isinstance(request, FewStepRequest):
        adapters = speed_adapters(request.speed, model) + adapters
    if isinstance(request, ControlledRequest):
        control, controlnet = request.control, arguments.controlnet
        return checkpoint_for(request.task, model, control=control, controlnet=controlnet, adapters=adapters)
    return checkpoint_for(request.task, model, adapters=adapters)


def _with_speed(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The values, and before them what the speed among them sets; full quality takes that back to the defaults."""
    if "speed" not in values:
        return values
    speed = {name: defaults[name] for name in SPEED_FIELDS if name in defaults}
    speed |= {name: value for name, value in speed_values(str(values["speed"])).items() if name in defaults}
    return {**speed, **values}


def sample(request: Request, checkpoint: Checkpoint, arguments: argparse.Namespace, line: ProgressLine) -> Video:
    """Load the model, run the request and return the video, telling on the line how far it is.

    arguments: what they say of the device, and whether pictures are checked.
    """
    line.note(f"Loading the model {name_of(checkpoint)}")
    # Imported here because torch and diffusers take many seconds, which --help and every mistake in the
    # options are spared; and because the engine as a whole does not depend on who lends it models.
    import diffusers.utils.logging
    import transformers.utils.logging

    from model_manager import ModelManager
    from text2video_zero.device.compilation import COMPILATION_COST
    from text2video_zero.generate import generate

    # Their own bars about loading would break into the line.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    models = ModelManager(
        arguments.device,
        dtype=arguments.dtype,
        compiled=arguments.compile,
        check_safety=arguments.safety_checker,
    )
    if models.compiled:
        line.note(COMPILATION_COST)
    with closing(models.fetch(checkpoint)) as download:
        for progress in download:
            line.show(progress)
    with models.lend(checkpoint) as pipeline, closing(generate(request, pipeline)) as events:
        for event in events:
            match event:
                case Progress():
                    line.show(event)
                case Notice(text):
                    line.note(text)
                case Finished(video):
                    return video
    raise RuntimeError("the run ended without a video")


def _add_run_options(parser: argparse.ArgumentParser, request_type: type[Request]) -> None:
    group = parser.add_argument_group("Model and files")
    group.add_argument(
        "--model",
        metavar="NAME",
        help="a known name (see --list-models), a folder, a .safetensors file or a Hub id, perhaps with @revision; "
        "default toyland",
    )
    group.add_argument(
        "--lora",
        metavar="NAME[:WEIGHT]",
        action="append",
        default=[],
        help="a .safetensors file, a name in models/ or a Hub id, and how strong it is, 1 if left out; may be repeated",
    )
    if issubclass(request_type, ControlledRequest):
        group.add_argument(
            "--controlnet",
            metavar="NAME",
            help="a folder, a .safetensors file or a Hub id; default the one of the model's family",
        )
    group.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:1 or mps; default the best there is")
    group.add_argument(
        "--dtype", metavar="TYPE", help="float16, bfloat16 or float32; default float16 on CUDA, else float32"
    )
    group.add_argument("--compile", action="store_true", help="compile the model: minutes at first, faster afterwards")
    group.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help=f"the video: .mp4, .gif, or .zip of PNG frames; default a new name in {OUTPUTS}/",
    )
    group.add_argument("--frames-dir", metavar="DIR", type=Path, help="write the frames as PNG files too")
    group.add_argument(
        "--settings",
        metavar="FILE",
        type=Path,
        help="take the settings of an earlier video or of a .json file; options given here go before them",
    )
    group.add_argument(
        "--safety-checker", action="store_true", help="make no video if the safety checker blocks a frame of it"
    )
    group.add_argument("--quiet", action="store_true", help="tell nothing but errors and the path of the result")


def _add_fields(parser: argparse.ArgumentParser, request_type: type[Request]) -> None:
    """One option for each field. Only given ones appear in the result, and only the request checks values."""
    groups: dict[str, Any] = {}
    for name, default, spec in request_type.declarations():
        if spec.section not in groups:
            groups[spec.section] = parser.add_argument_group(spec.section)
        kind = {"action": argparse.BooleanOptionalAction} if spec.kind is Kind.FLAG else {"metavar": _metavar(spec)}
        if spec.kind in {Kind.INTEGER, Kind.DECIMAL}:
            kind["type"] = _number
        groups[spec.section].add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"{FIELD}{name}",
            default=argparse.SUPPRESS,
            help=f"{spec.help} {_range(default, spec)}".replace("%", "%%"),
            **kind,
        )


def _metavar(spec: FieldSpec) -> str:
    return {Kind.INTEGER: "N", Kind.DECIMAL: "X", Kind.SIZE: "WxH", Kind.CHOICE: "CHOICE", Kind.CLIP: "FILE"}.get(
        spec.kind, "TEXT"
    )


def _range(default: object, spec: FieldSpec) -> str:
    """What a field takes, for its help."""
    match spec.kind:
        case Kind.INTEGER | Kind.DECIMAL:
            return f"({spec.minimum:.10g} to {spec.maximum:.10g}, default {default:g})"
        case Kind.CHOICE:
            return f"({', '.join(spec.choices)}; default {default})"
        case Kind.FLAG:
            return f"(default {'yes' if default else 'no'})"
        case Kind.SIZE:
            return f"(sides {spec.minimum:g} to {spec.maximum:g})"
        case Kind.TEXT | Kind.CLIP:
            return "(required)" if spec.required else ""


def _number(text: str) -> float | str:
    """Read a number; other texts are left to the request, which knows what to say about them."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _known_by_checkpoint(name: object) -> str | None:
    """Return the known model that a video names, or whose checkpoint it names."""
    models = (*KNOWN_MODELS.values(), *DREAMBOOTH_STYLES.values())
    return next((model.name for model in models if name in {model.name, name_of(model.checkpoint)}), None)


def _listed_loras(loras: object, arguments: argparse.Namespace) -> list[str]:
    """Return the LoRAs that a video names."""
    if not isinstance(loras, list) or not all(isinstance(lora, str) for lora in loras):
        raise UserError(f"{arguments.settings.name} names its LoRAs in an unknown way: give them with --lora.")
    return loras


def _duration(seconds: float) -> str:
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


if __name__ == "__main__":
    sys.exit(main())

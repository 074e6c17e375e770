"""The command line: `python -m text2video_zero TASK`, with one option for each field of the task's request.

The path of the result goes to standard output, everything else to standard error. Exit status: 0 done, 1 a video is
not what its settings make, 2 something that the person can put right, told in one line, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, TextIO

from text2video_zero import __version__, verification
from text2video_zero.device.options import add_device_options
from text2video_zero.errors import UserError
from text2video_zero.evaluation import command
from text2video_zero.events import Finished, Notice, Progress, duration
from text2video_zero.generators import result_of
from text2video_zero.imports import hide_bars, sharing_cores
from text2video_zero.job import NO_SETTINGS, Settings, build_job, defaults_of
from text2video_zero.media.files import readable_file, typed_path, unique_path
from text2video_zero.models.catalogue import DREAMBOOTH_STYLES, KNOWN_MODELS, TOYLAND
from text2video_zero.requests import REQUESTS, ClipRequest, ControlledRequest, Kind
from text2video_zero.requests.fields import FILES
from text2video_zero.requests.presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_manager import ModelManager
    from text2video_zero.evaluation.measures import Measure
    from text2video_zero.events import Event
    from text2video_zero.job import Job
    from text2video_zero.media.video import Video
    from text2video_zero.requests import FieldSpec, Request
    from text2video_zero.verification import Verdict

OUTPUTS = Path("outputs")
EVALUATE, VERIFY = "evaluate", "verify"
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

    def tell(self, event: Event) -> None:
        """Tell of an event, unless it is a picture, which a terminal does not show."""
        match event:
            case Progress():
                self.show(event)
            case Notice(text):
                self.note(text)
            case _:
                pass

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
            text += f", about {duration(progress.seconds_left)} left"
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
        if arguments.task == VERIFY:
            verdict = verified(arguments)
            print(verdict.sentence)
            return 0 if verdict.holds else 1
        print(run(arguments))
    except UserError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(f"Stopped; {str(stopped) or 'nothing was saved'}.", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser: one sub-command for each task, one option for each field of its request."""
    everywhere = OneLineParser(add_help=False)
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
    evaluation = tasks.add_parser(
        EVALUATE,
        usage=f"{parser.prog} {EVALUATE} [options]",
        help="Measure variants against one another",
        description=command.DESCRIPTION,
        parents=[everywhere],
        allow_abbrev=False,
    )
    command.add_options(evaluation)
    add_running_options(evaluation.add_argument_group("Device"))
    verifying = tasks.add_parser(
        VERIFY,
        usage=f"{parser.prog} {VERIFY} FILE [options]",
        help="Make a video again from its settings, and compare",
        description=verification.DESCRIPTION,
        parents=[everywhere],
        allow_abbrev=False,
    )
    verification.add_options(verifying)
    add_running_options(verifying.add_argument_group("Device"))
    return parser


def run(arguments: argparse.Namespace) -> Path:
    """Make the video that the parsed arguments order and return its path; of an evaluation that of its report.

    Raises UserError for everything that the person can put right, as early as it can be known.
    """
    if arguments.task == EVALUATE:
        return evaluate(arguments)
    job = job_of(arguments)
    for path in job.request.files.values():
        readable_file(Path(path))
    # Late: with numpy and what writes pictures, which --help and mistakes in the options are spared.
    from text2video_zero.media.video import check_destination, check_frames_directory, save_or_keep_frames

    output = arguments.output or unique_path(OUTPUTS, job.request.prompt, ".mp4")
    check_destination(output)
    if isinstance(job.request, ClipRequest) and job.request.keep_sound and output.suffix.lower() != ".mp4":
        raise UserError(f"{output.name} cannot carry the clip's sound: save the video as .mp4, or leave the sound out.")
    if arguments.frames_dir is not None:
        check_frames_directory(arguments.frames_dir)
    with ProgressLine(sys.stderr, quiet=arguments.quiet) as line:
        line.note(f"Seed {job.request.seed}")
        video = make_video(job, arguments, line)
        path = save_or_keep_frames(video, output, line.note)
        if arguments.frames_dir is not None:
            video.save_frames(arguments.frames_dir)
    return path


def job_of(arguments: argparse.Namespace) -> Job:
    """The job that parsed arguments order, by the rules of `build_job`."""
    with REQUESTS[arguments.task].naming_options():
        job = build_job(
            arguments.task,
            {name.removeprefix(FIELD): value for name, value in vars(arguments).items() if name.startswith(FIELD)},
            model=arguments.model,
            loras=arguments.lora,
            controlnet=getattr(arguments, "controlnet", None),  # an option of some tasks
            settings=Settings.read(arguments.settings, arguments.task) if arguments.settings else NO_SETTINGS,
            preset=arguments.preset,
        )
    return replace(job, remarks=job.request.in_options(job.remarks))


def make_video(job: Job, arguments: argparse.Namespace, line: ProgressLine) -> Video:
    """The video of a job, telling on the line how far it is.

    arguments: what they say of the device, and whether pictures are checked.
    """
    models = model_manager_of(arguments, line)
    from text2video_zero.generate import run_job

    with job.request.naming_options(), closing(run_job(job, models)) as events:
        for event in events:
            line.tell(event)
            if isinstance(event, Finished):
                return event.video
    raise RuntimeError("the run ended without a video")


def evaluate(arguments: argparse.Namespace, measures: Sequence[Measure] = ()) -> Path:
    """Run an evaluation, telling how far it is, and return the path of its report.

    measures: further ones, for those who know more of what is drawn.
    """
    try:
        evaluated = REQUESTS[arguments.evaluated_task]
        with ProgressLine(sys.stderr, quiet=arguments.quiet) as line, evaluated.naming_options():
            command.study_of(arguments)  # whose mistakes do not wait for torch
            for event in command.evaluate(arguments, model_manager_of(arguments, line), measures):
                line.tell(event)
    except KeyboardInterrupt as stopped:
        raise KeyboardInterrupt("the same command goes on where it was") from stopped
    return arguments.out / command.REPORT


def verified(arguments: argparse.Namespace) -> Verdict:
    """Whether a video is what its settings make, telling how far it is; raises UserError where it cannot be told."""
    job = verification.job_again(arguments.file, arguments.clip, arguments.start_picture, arguments.model)
    with ProgressLine(sys.stderr, quiet=arguments.quiet) as line:
        models = model_manager_of(arguments, line)
        with closing(verification.verify(arguments.file, job, models, arguments.within)) as run:
            return result_of(run, line.tell)


def model_manager_of(arguments: argparse.Namespace, line: ProgressLine) -> ModelManager:
    """Who has the models, on the device that the arguments name."""
    line.note("Starting")
    # Imported here because torch and diffusers take many seconds, which --help and every mistake in the
    # options are spared; and because the engine as a whole does not depend on who lends it models.
    with sharing_cores():
        from model_manager import ModelManager

    hide_bars()
    return ModelManager(
        arguments.device, dtype=arguments.dtype, compiled=arguments.compile, check_safety=arguments.safety_checker
    )


def _add_run_options(parser: argparse.ArgumentParser, request_type: type[Request]) -> None:
    group = parser.add_argument_group("Model and files")
    group.add_argument(
        "--model",
        metavar="NAME",
        help="a known name (see --list-models), a folder, a .safetensors file or a Hub id, perhaps with @revision; "
        f"default {TOYLAND.name}",
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
    presets = "; ".join(f"{name}: {preset.help}" for name, preset in PRESETS.items())
    group.add_argument(
        "--preset", metavar="NAME", help=f"settings that go together; your own options override it ({presets})"
    )
    add_running_options(group)
    group.add_argument(
        "--output",
        metavar="FILE",
        type=typed_path,
        help=f"the video: .mp4, .webm, .gif, or .zip of PNG frames; default a new name in {OUTPUTS}/",
    )
    group.add_argument("--frames-dir", metavar="DIR", type=typed_path, help="write the frames as PNG files too")
    group.add_argument(
        "--settings",
        metavar="FILE",
        type=typed_path,
        help="take the settings of an earlier video or of a .json file; your own options override them",
    )


def add_running_options(group: argparse._ArgumentGroup) -> None:
    """Where a run computes, and what it tells."""
    add_device_options(group)
    group.add_argument(
        "--safety-checker", action="store_true", help="discard the video if the safety checker blocks any frame"
    )
    group.add_argument("--quiet", action="store_true", help="tell nothing but errors and the path of the result")


def _add_fields(parser: argparse.ArgumentParser, request_type: type[Request]) -> None:
    """One option for each field. Only given ones appear in the result, and only the request checks values."""
    groups: dict[str, Any] = {}
    toyland_takes = defaults_of(request_type.task, TOYLAND.name)
    for name, default, spec in request_type.declarations():
        if spec.section not in groups:
            groups[spec.section] = parser.add_argument_group(spec.section)
        kind: dict[str, Any] = {"metavar": _metavar(spec)}
        if spec.kind is Kind.FLAG:
            kind = {"action": argparse.BooleanOptionalAction}
        if spec.kind in {Kind.INTEGER, Kind.DECIMAL}:
            kind["type"] = _number
        if spec.kind in FILES:
            kind["type"] = os.path.expanduser  # no shell puts the home folder in behind an equals sign
        groups[spec.section].add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"{FIELD}{name}",
            default=argparse.SUPPRESS,
            help=f"{spec.help} {_values(spec, default, toyland_takes[name])}".replace("%", "%%"),
            **kind,
        )


def _metavar(spec: FieldSpec) -> str:
    if spec.kind in FILES:
        return "FILE"
    return {Kind.INTEGER: "N", Kind.DECIMAL: "X", Kind.SIZE: "WxH", Kind.CHOICE: "CHOICE"}.get(spec.kind, "TEXT")


def _values(spec: FieldSpec, default: object, of_toyland: object) -> str:
    """What a field takes, and what it is where nobody gives it, for its help; Toyland's own where it has one."""
    told = ["required" if spec.required else spec.takes]
    if default not in ("", None):
        told.append(f"default {_shown(spec, default)}")
    if of_toyland != default:
        told.append(f"{TOYLAND.name}: {_shown(spec, of_toyland)}")
    return f"({'; '.join(filter(None, told))})" if any(told) else ""


def _shown(spec: FieldSpec, value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return f"{value:.10g}"
        case _:
            return repr(value) if spec.kind is Kind.TEXT else str(value)


def _number(text: str) -> float | str:
    """Read a number; other texts are left to the request, which knows what to say about them."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


if __name__ == "__main__":
    sys.exit(main())

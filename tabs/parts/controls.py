"""The left side of a tab: the widgets of the form, and the buttons that begin and end a run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import gradio as gr

from tabs.form import IN_TURN, Update, path_of, shown
from tabs.look import display
from tabs.parts.question import build_question
from text2video_zero.job import NO_SETTINGS, Settings
from text2video_zero.models.catalogue import origin_of
from text2video_zero.prompts.loras import named_loras
from text2video_zero.requests import ControlledRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tabs.form import Field
    from tabs.parts.clip_source import ClipSource
    from tabs.parts.presets import Chips
    from text2video_zero.job import Job
    from text2video_zero.requests import Request

NO_FILE = ""  # in the place of a path: nothing is chosen any more
MOST_OF_EACH = 16  # videos of one prompt that one click makes
LARGEST_PROMPTS = 100_000  # bytes of a text file
STORAGE_SECRET = "text2video-zero"  # noqa: S105 - hides nothing: the browser's own person may read what it stores


@dataclass(frozen=True)
class Buttons:
    """What stands below the form's first fields.

    noting: which nobody sees; the browser presses it to note the form, once its person pauses.
    plan: what the form asks for, in a line.  show_maps: makes the control maps alone, None for tasks without.
    question: asks before a run that takes very long.  anyway: says yes.
    """

    run: gr.Button
    show_maps: gr.Button | None
    stop: gr.Button
    noting: gr.Button
    plan: gr.HTML
    question: gr.HTML
    anyway: gr.Button


@dataclass(frozen=True)
class States:
    """What nobody sees of a tab. It stands before all tabs, where Gradio's search for a component finds it first.

    followed: what the page follows: ids of jobs, and since when.  jobs: the same ids, as the browser keeps them.
    refill: values that the form is to have, and since when; whether its tab is to be opened.
    brought: the files that the form is to have, how the video was made that fills it (`made_of`), and since when; on
        the server, as no browser may name a path.
    asked: of a video that is asked about first, which one it is made of, and by which change.
    """

    followed: gr.State
    jobs: gr.BrowserState
    refill: gr.JSON
    brought: gr.State
    asked: gr.JSON


@dataclass(frozen=True)
class Controls:
    """The widgets of the form; `fields` in the order of the request's declaration.

    loras: LoRAs on top of the model, a line each; None where only the models on offer may be loaded.
    batch: further prompts, and how many videos of each.
    clip_source: None for tasks that begin with words alone.
    chips: rows of presets.
    states: what the page follows, and what fills the form.
    kept_as: the name under which the browser keeps what was entered.
    """

    model: gr.Dropdown
    loras: gr.Textbox | None
    fields: dict[str, Field]
    buttons: Buttons
    batch: dict[str, gr.Textbox | gr.Slider]
    clip_source: ClipSource | None
    chips: tuple[Chips, ...]
    states: States
    kept_as: str

    @property
    def settings(self) -> Chips:
        """The row of presets that hang on the model; others stand behind it."""
        return self.chips[0]

    @property
    def files(self) -> list[str]:
        """The fields that hold a file."""
        return [name for name, widget in self.fields.items() if isinstance(widget, gr.File)]

    @property
    def brought_widgets(self) -> list[Any]:
        """What `bring` fills."""
        typed = self.clip_source and self.clip_source.folder
        return [*(self.fields[name] for name in self.files), *([] if typed is None else [typed])]

    @property
    def inputs(self) -> dict[str, Any]:
        """Every value of a run by its name."""
        loras = {} if self.loras is None else {"loras": self.loras}
        return {"model": self.model, **loras, **self.fields}

    @property
    def inputs_of_page(self) -> dict[str, Any]:
        """The same, and what only the person at the serving machine may give: a path of it."""
        folder = self.clip_source and self.clip_source.folder
        return {**self.inputs, "clip_path": folder} if folder else self.inputs

    def filled_by(self, job: Job) -> Update:
        """Ask for the form as it is for an earlier job."""
        model, _ = origin_of(job.checkpoint)
        loras, _ = named_loras(job.checkpoint, job.request)
        files = {name: job.request.files.get(name, NO_FILE) for name in self.files}
        made = Settings(job.request.to_dict(), model, weights=job.weights, picture=job.picture)
        return self.filled(made.values, model, loras, files, made=made, show=True)

    def filled(
        self,
        values: Mapping[str, Any],
        model: str | None = None,
        loras: Sequence[str] | None = None,
        files: Mapping[str, str] = MappingProxyType({}),
        *,
        made: Settings = NO_SETTINGS,
        show: bool = False,
    ) -> Update:
        """Ask for the form with these values of fields; others stay as they are.

        The browser does it, in one event of its own that looks up what changes alone (form.fill in page.js).

        model, loras: None leaves what is chosen. Loras are as `read_adapter` reads them.
        files: field -> a path that the page may read, or NO_FILE; what it leaves out stays as it is: the paths among
            the values are of another machine or day.
        made: how the video was made that all this is of.
        show: open the tab, too.
        """
        asked = self.values_of(values, model, loras)
        page: Update = {self.states.refill: {"values": asked, "show": show, "since": time.monotonic()}}
        brought = {name: path for name, path in files.items() if name in self.files}
        if brought or made != NO_SETTINGS:
            page[self.states.brought] = {"files": brought, "made": made_of(made), "since": time.monotonic()}
        return page

    def values_of(
        self, values: Mapping[str, Any], model: str | None = None, loras: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """What `filled_widgets` show with these values of fields, files left out, and the chips that fit them."""
        plain = self.fields.keys() - self.files
        asked = {name: shown(value) for name, value in values.items() if name in plain}
        if model is not None:
            asked["model"] = model
        if loras is not None and self.loras is not None:
            asked["loras"] = "\n".join(loras)
        for chips in self.chips:
            asked |= chips.marked(model or "", asked)
        return asked

    def bring(self, brought: Mapping[str, Any] | None) -> Update:
        """The files that the form was asked to have; a clip that is a folder goes where folders are typed."""
        page: Update = {}
        typed = self.clip_source and self.clip_source.folder
        for name, path in (brought["files"] if brought else {}).items():  # of a new page, None
            is_folder = path != NO_FILE and Path(path).is_dir()
            page[self.fields[name]] = gr.update(value=None if is_folder else path or None)
            if name == "clip" and typed is not None:
                page[typed] = path if is_folder else ""
        return page or gr.skip()

    def shown_tab(self) -> Update:
        """Ask for the tab to be opened, with the form as it is."""
        return self.filled({}, show=True)

    @property
    def filled_widgets(self) -> dict[str, Any]:
        """What can be filled by its name: every value but the files, and the chips by their ids."""
        rows = {str(chips.radio.elem_id): chips.radio for chips in self.chips}
        return {name: widget for name, widget in self.inputs.items() if name not in self.files} | rows


def made_of(settings: Settings) -> dict[str, Any]:
    """What is remembered of how a video was made, so that it can be told when another one would come of it."""
    prompt, seed = (settings.values.get(name) for name in ("prompt", "seed"))
    return {
        "prompt": prompt,
        "seed": seed,
        "model": settings.model,
        "weights": settings.weights,
        "picture": settings.picture,
    }


def remade(brought: Mapping[str, Any] | None, values: Mapping[str, Any]) -> Settings:
    """The model, the weights and the picture of the video that filled the form, for `build_job`.

    Nothing is known where prompt or seed are no longer its own: another video is wanted then.
    """
    made = brought["made"] if brought else made_of(NO_SETTINGS)
    if any(made[name] is None or made[name] != values[name] for name in ("prompt", "seed")):
        return NO_SETTINGS
    return Settings(model=made["model"], weights=made["weights"], picture=made["picture"])


def build_buttons(request: type[Request]) -> Buttons:
    """Start, show the control maps alone where there are any, and stop; what is planned, and what asks first."""
    task, show_maps = request.task, None
    with gr.Row(elem_classes="actions"):
        run = gr.Button(
            "Make the video",
            variant="primary",
            elem_id=f"{task}-run",
            elem_classes=["run", "begins"],
            scale=3,
            min_width=100,
        )
        if issubclass(request, ControlledRequest):
            show_maps = gr.Button(
                "Show control map", elem_id=f"{task}-show-maps", elem_classes="begins", scale=2, min_width=90
            )
        stop = gr.Button("Stop", variant="stop", interactive=False, elem_id=f"{task}-stop", scale=1, min_width=60)
        noting = gr.Button(visible="hidden", elem_id=f"{task}-noting", elem_classes="noting")
    plan = gr.HTML(elem_id=f"{task}-plan", elem_classes="plan-slot")
    return Buttons(run, show_maps, stop, noting, plan, *build_question(task))


def build_batch(task: str) -> dict[str, gr.Textbox | gr.Slider]:
    """What makes several videos of one click."""
    with gr.Accordion("Several at once", open=False):
        more = gr.Textbox(
            "",
            label="More prompts",
            info="One a line, each a video of its own with the same settings.",
            lines=2,
            max_lines=12,
            elem_id=f"{task}-more-prompts",
        )
        file = gr.UploadButton(
            "Prompts from a text file", size="sm", file_types=[".txt"], elem_id=f"{task}-prompts-file"
        )
        file.upload(prompts_in, file, more, preprocess=False, **IN_TURN)
        each = gr.Slider(
            1,
            MOST_OF_EACH,
            1,
            step=1,
            precision=0,
            label="Videos of each",
            info="With seeds that count on.",
            elem_id=f"{task}-each",
        )
    return {"more_prompts": more, "each": each}


def prompts_in(upload: Any) -> str:
    """The lines of a text file that somebody has brought, as the field of prompts takes them."""
    path = Path(path_of(upload))
    name = display.toast(path.name)
    try:
        if path.stat().st_size > LARGEST_PROMPTS:
            told = f"{name} is larger than {LARGEST_PROMPTS // 1000} kB: it is no list of prompts."
            raise gr.Error(told, print_exception=False)
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise gr.Error(f"{name} cannot be read: save it as plain text (UTF-8).", print_exception=False) from error
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def build_states(task: str) -> States:
    """What the page follows, in this session and in this browser, and what fills the form."""
    jobs = gr.BrowserState([], storage_key=f"text2video-zero-{task}", secret=STORAGE_SECRET)
    return States(gr.State(None), jobs, gr.JSON(None, visible=False), gr.State(None), gr.JSON(None, visible=False))

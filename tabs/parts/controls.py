"""The left side of a tab: the widgets of the form, and the buttons that begin and end a run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import gradio as gr

from tabs.form import QUIETLY, Update, shown
from text2video_zero.models.adapters import written
from text2video_zero.models.catalogue import origin_of
from text2video_zero.models.speeds import is_of_speed
from text2video_zero.requests import ControlledRequest, FewStepRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tabs.form import Field
    from tabs.parts.clip_source import ClipSource
    from text2video_zero.job import Job
    from text2video_zero.requests import Request

NO_FILE = ""  # in the place of a path: nothing is chosen any more
MOST_OF_EACH = 16  # videos of one prompt that one click makes
STORAGE_SECRET = "text2video-zero"  # noqa: S105 - hides nothing: the browser's own person may read what it stores


@dataclass(frozen=True)
class Confirmation:
    """What asks before a run that takes very long; the row is seen then alone."""

    row: gr.Column
    question: gr.HTML
    anyway: gr.Button

    @property
    def parts(self) -> list[Any]:
        """What changes when it asks."""
        return [self.row, self.question]


@dataclass(frozen=True)
class Buttons:
    """What stands below the form's first fields.

    plan: what the form asks for, in a line.  show_maps: makes the control maps alone, None for tasks without.
    """

    run: gr.Button
    show_maps: gr.Button | None
    stop: gr.Button
    plan: gr.HTML
    confirmation: Confirmation


@dataclass(frozen=True)
class Controls:
    """The widgets of the form; `fields` in the order of the request's declaration.

    loras: LoRAs on top of the model, a line each; None where only the models on offer may be loaded.
    batch: further prompts, and how many videos of each.
    clip_source: None for tasks that begin with words alone.
    followed: what the page follows: ids of jobs, and since when.  jobs: the same ids, as the browser keeps them.
    refill: values that the form is to have, and since when.
    """

    model: gr.Dropdown
    loras: gr.Textbox | None
    fields: dict[str, Field]
    buttons: Buttons
    batch: dict[str, gr.Textbox | gr.Slider]
    clip_source: ClipSource | None
    followed: gr.State
    jobs: gr.BrowserState
    refill: gr.State

    @property
    def files(self) -> list[str]:
        """The fields that hold a file."""
        return [name for name, widget in self.fields.items() if isinstance(widget, gr.File)]

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
        model, added = origin_of(job.checkpoint)
        speed = job.request.speed if isinstance(job.request, FewStepRequest) else ""
        loras = [written(adapter) for adapter in added if not is_of_speed(adapter, speed)]
        files = {name: job.request.files.get(name, NO_FILE) for name in self.files}
        return self.filled(job.request.to_dict(), model, loras, files)

    def filled(
        self,
        values: Mapping[str, Any],
        model: str | None,
        loras: Sequence[str],
        files: Mapping[str, str] = MappingProxyType({}),
    ) -> Update:
        """Ask for the form with these values of fields; others stay as they are.

        The form answers to that in an event of its own: a click elsewhere on the page then touches the widgets of one
        tab, and not of all.

        model: None leaves what is chosen.  loras: as `read_adapter` reads them.
        files: field -> a path that the page may read, or NO_FILE; what it leaves out stays as it is: the paths among
            the values are of another machine or day.
        """
        asked = {name: shown(value) for name, value in values.items()} | {"loras": "\n".join(loras)}
        asked |= {"model": model} | {name: files.get(name) for name in self.files}
        return {self.refill: {"values": asked, "since": time.monotonic()}}

    def fill(self, refill: Mapping[str, Any] | None) -> Update:
        """The form as it was asked for."""
        asked = refill["values"] if refill else {}  # of a new page, None
        filled = {widget: gr.skip() if asked.get(name) is None else asked[name] for name, widget in self.inputs.items()}
        emptied = [self.fields[name] for name in self.files if asked.get(name) == NO_FILE]
        return {**filled, **{widget: gr.update(value=None) for widget in emptied}}


def build_buttons(request: type[Request]) -> Buttons:
    """Start, show the control maps alone where there are any, and stop; what is planned, and what asks first."""
    task, show_maps = request.task, None
    with gr.Row(elem_classes="actions"):
        run = gr.Button(
            "Make the video", variant="primary", elem_id=f"{task}-run", elem_classes="run", scale=3, min_width=100
        )
        if issubclass(request, ControlledRequest):
            show_maps = gr.Button("Show control map", elem_id=f"{task}-show-maps", scale=2, min_width=90)
        stop = gr.Button("Stop", variant="stop", interactive=False, elem_id=f"{task}-stop", scale=1, min_width=60)
    plan = gr.HTML(elem_id=f"{task}-plan", elem_classes="plan-slot")
    with gr.Column(visible=False, elem_id=f"{task}-confirmation", elem_classes="confirmation") as row:
        question = gr.HTML()
        with gr.Row():
            anyway = gr.Button("Make it anyway", variant="primary", size="sm", elem_id=f"{task}-anyway")
            gr.Button("Not now", size="sm").click(lambda: gr.update(visible=False), None, row, **QUIETLY)
    return Buttons(run, show_maps, stop, plan, Confirmation(row, question, anyway))


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


def build_states(task: str) -> tuple[gr.State, gr.BrowserState, gr.State]:
    """What the page follows, in this session and in this browser, and what fills its form."""
    jobs = gr.BrowserState([], storage_key=f"text2video-zero-{task}", secret=STORAGE_SECRET)
    return gr.State(None), jobs, gr.State(None)

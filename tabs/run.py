"""What happens between a click and a video.

Events pass values by the names of the request's fields and unprocessed by the widgets: the request checks
them itself, so that page, API and command line say the same sentence about the same mistake.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Iterator  # noqa: TC003 - Gradio reads the annotations of its handlers
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from serving.jobs import complete
from serving.store import FORMS, Guide, Stored
from tabs import display
from tabs.form import given, optional
from text2video_zero.errors import UserError
from text2video_zero.events import Notice, Preview, Progress
from text2video_zero.job import build_job, fields_with_defaults
from text2video_zero.requests import REQUESTS, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gradio.events import Dependency

    from serving.jobs import Runner
    from serving.menu import ModelMenu
    from serving.store import VideoStore
    from tabs.controls import Controls
    from tabs.result import Result
    from text2video_zero.job import Job
    from text2video_zero.requests import Request

Update = dict[Component, Any]

LOG = logging.getLogger(__name__)

GPU = "gpu"
"""Name of the queue that the runs of all tabs share."""

STOP_SECONDS = 600
"""How long Stop waits for the step that is being computed; at large sizes on a CPU one takes minutes."""

PLAYABLE = next(iter(FORMS))


def may_leave_out_model_defaults(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Name the fields whose default depends on the model in a handler's signature, where Gradio looks.

    A parameter of an endpoint may be left out if its widget has a value, or if the signature has None for it.
    """
    signature = inspect.signature(answer)
    names = dict.fromkeys(name for task in REQUESTS for name in fields_with_defaults(task))
    *first, others = signature.parameters.values()
    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names]
    answer.__signature__ = signature.replace(parameters=[*first, *added, others])
    return answer


@dataclass(frozen=True)
class Run:
    """The handlers of one tab.

    maps_only: whether a run ends with the control maps.
    running: session of a page, None for one without, -> set when its run has ended.
    """

    request: type[Request]
    runner: Runner
    store: VideoStore
    menu: ModelMenu
    controls: Controls
    result: Result
    maps_only: bool = False
    running: dict[str | None, threading.Event] = field(default_factory=dict)

    def connect(self) -> None:
        """Connect the buttons of the page, and the same run as an endpoint for programs."""
        controls = self.controls
        outputs = [*self.result.outputs, *controls.starters, controls.stop]
        runs: list[dict[str, Any]] = [self.connect_start(controls.run, outputs)]
        if controls.show_maps is not None:
            runs.append(replace(self, maps_only=True).connect_start(controls.show_maps, outputs))
        # Two listeners: Gradio cancels outside its queue alone, but only the queue keeps what Stop says behind
        # the last words of the run.
        controls.stop.click(None, cancels=runs, queue=False, api_visibility="private")
        controls.stop.click(
            self.stop,
            self.result.display,
            outputs=outputs,
            concurrency_limit=None,
            show_progress="hidden",
            api_visibility="private",
        )
        self._connect_endpoint()

    def connect_start(self, button: gr.Button, outputs: list[Component]) -> Dependency:
        """Connect a button that begins a run; returns what Stop cancels."""
        checked = button.click(
            self.check,
            outputs=outputs,
            inputs_kwargs=self.controls.inputs_of_page,
            preprocess=False,
            concurrency_limit=None,
            show_progress="hidden",
            api_visibility="private",
        )
        return checked.success(
            self.run,
            outputs=outputs,
            inputs_kwargs=self.controls.inputs_of_page,
            preprocess=False,
            concurrency_id=GPU,
            concurrency_limit=self.runner.slots,
            show_progress="minimal",
            show_progress_on=self.result.status,
            api_visibility="private",
        )

    def _connect_endpoint(self) -> None:
        specs = {name: spec for name, _, spec in self.request.declarations()}
        may_be_left_out = {name: optional(specs[name]) for name in fields_with_defaults(self.request.task)}
        # Without a trigger of its own the endpoint needs a button that nobody sees.
        gr.Button(visible=False).click(
            self.answer,
            outputs=[self.result.video, self.result.seed, self.result.settings],
            inputs_kwargs={**self.controls.inputs, **may_be_left_out},
            preprocess=False,
            concurrency_id=GPU,
            concurrency_limit=self.runner.slots,
            api_name=self.request.task,
            api_description=describe(self.request),
        )

    def job(self, model: str, values: Mapping[str, Any]) -> Job:
        """The job that the values of the page or of a program ask for; raises UserError where they are amiss."""
        fields = given(self.request, values)
        for name in fields_with_defaults(self.request.task):
            if fields[name] is None:  # left out by a program
                del fields[name]
        loras = str(fields.pop("loras", None) or "").splitlines()
        typed_path = fields.pop("clip_path", "")
        if typed_path and not fields["clip"]:
            fields["clip"] = typed_path
        self.menu.check(model, loras)
        return build_job(
            self.request.task,
            fields,
            model=model,
            loras=loras,
            lora_tags=self.menu.free,
            maps_only=self.maps_only,
        )

    def check(self, model: str, **values: Any) -> Iterator[Update]:
        """Before the wait for the device: tell mistakes at once, otherwise clear what an earlier run has left."""
        try:
            self.job(model, values)
        except UserError as error:
            yield {self.result.status: display.line(str(error), "failed")}
            raise gr.Error(str(error), print_exception=False) from error
        yield {
            **dict.fromkeys(self.controls.starters, gr.update(interactive=False)),
            self.controls.stop: gr.update(interactive=True),
            self.result.display: gr.update(value=display.busy(), visible=True),
            self.result.video: gr.update(value=None, visible=False),
            self.result.guide: gr.update(value=None, visible=False),
            self.result.status: display.queued(),
            self.result.notes: "",
            self.result.guide_download: gr.update(value=None, visible=False),
            **dict.fromkeys(self.result.downloads.values(), gr.update(value=None, interactive=False)),
        }

    def run(self, model: str, request: gr.Request, **values: Any) -> Iterator[Update]:
        """Run a job and fill the page with what happens. Control maps are kept: a run after them has them at once."""
        ended = self.running[request.session_hash] = threading.Event()
        began = time.monotonic()
        seen = False
        notes: list[str] = []
        try:
            job = self.job(model, values)
            yield {self.result.seed: job.request.seed}
            with closing(complete(job, self.runner, self.store)) as events:
                for event in events:
                    seen = seen or isinstance(event, Preview)
                    if isinstance(event, Notice):
                        notes.append(event.text)
                        yield {self.result.notes: display.notes(notes)}
                    else:
                        yield self._update(event, job, time.monotonic() - began)
        except Exception as error:
            sentence = explain(error)
            picture = gr.skip() if seen else display.empty()
            yield {**self._idle(), self.result.display: picture, self.result.status: display.line(sentence, "failed")}
            raise gr.Error(sentence, print_exception=False) from error
        else:
            yield self._idle()
        finally:
            ended.set()

    @may_leave_out_model_defaults
    def answer(
        self,
        model: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio finds the parameter by this default
        **values: Any,
    ) -> Iterator[tuple[str | None, int, dict[str, Any]]]:
        """The same for a program: the video appears in the last answer, the seed in each."""
        try:
            job = self.job(model, values)
            with closing(complete(job, self.runner, self.store, (PLAYABLE,), keep_guide=False)) as events:
                for event in events:
                    match event:
                        case Progress():
                            progress((event.step, event.of), desc=event.stage, unit=event.unit)
                            yield None, job.request.seed, {}
                        case Stored():
                            yield str(event.files[PLAYABLE]), job.request.seed, event.settings
                        case _:  # what only a page shows
                            pass
        except Exception as error:
            raise gr.Error(explain(error), print_exception=False) from error

    def stop(self, picture: str, request: gr.Request) -> Iterator[Update]:
        """The page after Stop, which closes the run within a step. What was seen last stays."""
        yield {self.controls.stop: gr.update(interactive=False), self.result.status: display.stopping()}
        if (ended := self.running.pop(request.session_hash, None)) is not None:
            ended.wait(STOP_SECONDS)
        left = display.empty() if picture == display.busy() else gr.skip()
        yield {**self._idle(), self.result.display: left, self.result.status: display.line("Stopped.", "stopped")}

    def _update(self, event: Progress | Preview | Guide | Stored, job: Job, seconds: float) -> Update:
        match event:
            case Guide():
                return self._show_guide(event, job, seconds)
            case Progress():
                return {self.result.status: display.progress(event)}
            case Preview():
                return {self.result.display: display.preview(event, job.request.fps)}
            case Stored() if len(event.files) == 1:
                return {
                    self.result.display: gr.update(visible=False),
                    self.result.video: gr.update(value=str(event.files[PLAYABLE]), visible=True),
                    self.result.status: display.line(
                        f"Done in {display.duration(seconds)} with seed {job.request.seed}.", "done"
                    ),
                    self.result.settings: event.settings,
                    **self._downloads(event),
                }
            case Stored():
                return self._downloads(event)

    def _show_guide(self, guide: Guide, job: Job, seconds: float) -> Update:
        shown: Update = {
            self.result.guide: gr.update(value=str(guide.path), visible=True),
            self.result.guide_download: gr.update(value=str(guide.path), visible=True, interactive=True),
        }
        if job.maps_only:
            ready = display.line(f"The control map is ready after {display.duration(seconds)}.", "done")
            shown |= {self.result.display: gr.update(visible=False), self.result.status: ready}
        return shown

    def _downloads(self, event: Stored) -> Update:
        return {
            self.result.downloads[form]: gr.update(value=str(path), interactive=True)
            for form, path in event.files.items()
        }

    def _idle(self) -> Update:
        return {
            **dict.fromkeys(self.controls.starters, gr.update(interactive=True)),
            self.controls.stop: gr.update(interactive=False),
        }


def explain(error: Exception) -> str:
    """What the person is told: a UserError's own sentence; for a bug, that the log has the details."""
    if isinstance(error, UserError):
        return str(error)
    LOG.error("A run failed", exc_info=error)
    return "Something went wrong, the log has the details."


def describe(request: type[Request]) -> str:
    """The endpoint in words: every field with its help and its range."""
    lines = []
    for name, _, spec in request.declarations():
        if spec.choices:
            values = f" ({', '.join(spec.choices)})"
        elif spec.kind in {Kind.INTEGER, Kind.DECIMAL, Kind.SIZE}:
            values = f" ({spec.minimum:g} to {spec.maximum:g})"
        else:
            values = ""
        lines.append(f"{name}: {spec.help}{values}")
    told = f"{request.title}. Answers with the video, the seed and all settings."
    left_out = f"Left out, {', '.join(fields_with_defaults(request.task))} are those that suit the model and its speed."
    return "\n".join((told, left_out, *lines))

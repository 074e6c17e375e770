"""What happens between a click and a video.

Events pass values by the names of the request's fields and unprocessed by the widgets: the request checks
them itself, so that page, API and command line say the same sentence about the same mistake.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator  # noqa: TC003 - Gradio reads the annotations of its handlers
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from serving.jobs import Job, complete
from serving.store import FORMS, Guide, Stored
from tabs import stage
from tabs.form import given
from text2video_zero.errors import UserError
from text2video_zero.events import Notice, Preview, Progress
from text2video_zero.models.speeds import FULL_QUALITY
from text2video_zero.requests import ControlledRequest, FewStepRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradio.events import Dependency

    from serving.jobs import Runner
    from serving.menu import ModelMenu
    from serving.store import VideoStore
    from tabs.result import Result
    from tabs.tab import Controls
    from text2video_zero.events import Event
    from text2video_zero.requests import Request

Update = dict[Component, Any]

LOG = logging.getLogger(__name__)

GPU = "gpu"
"""Name of the queue that the runs of all tabs share."""

STOP_SECONDS = 600
"""How long Stop waits for the step that is being computed; at large sizes on a CPU one takes minutes."""

PLAYABLE = next(iter(FORMS))


@dataclass(frozen=True)
class Run:
    """The handlers of one tab.

    running: session of a page -> set when its run has ended.
    """

    request: type[Request]
    runner: Runner
    store: VideoStore
    menu: ModelMenu
    controls: Controls
    result: Result
    running: dict[str, threading.Event] = field(default_factory=dict)

    def connect(self) -> None:
        """Connect the buttons of the page, and the same run as an endpoint for programs."""
        controls = self.controls
        outputs = [*self.result.outputs, *controls.starters, controls.stop]
        runs = [self._connect_start(controls.run, self.check, self.run, outputs)]
        if controls.show_maps is not None:
            runs.append(self._connect_start(controls.show_maps, self.check_maps, self.run_maps, outputs))
        # Two listeners: Gradio cancels outside its queue alone, but only the queue keeps what Stop says behind
        # the last words of the run.
        controls.stop.click(None, cancels=runs, queue=False, api_visibility="private")
        controls.stop.click(
            self.stop,
            self.result.stage,
            outputs=outputs,
            concurrency_limit=None,
            show_progress="hidden",
            api_visibility="private",
        )
        self._connect_endpoint()

    def _connect_start(
        self,
        button: gr.Button,
        check: Callable[..., Iterator[Update]],
        run: Callable[..., Iterator[Update]],
        outputs: list[Component],
    ) -> Dependency:
        """Connect a button that begins a run; returns what Stop cancels."""
        checked = button.click(
            check,
            outputs=outputs,
            inputs_kwargs=self.controls.inputs_of_page,
            preprocess=False,
            concurrency_limit=None,
            show_progress="hidden",
            api_visibility="private",
        )
        return checked.success(
            run,
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
        # Without a trigger of its own the endpoint needs a button that nobody sees.
        gr.Button(visible=False).click(
            self.answer,
            outputs=[self.result.video, self.result.seed, self.result.settings],
            inputs_kwargs=self.controls.inputs,
            preprocess=False,
            concurrency_id=GPU,
            concurrency_limit=self.runner.slots,
            api_name=self.request.task,
            api_description=describe(self.request),
        )

    def check(self, model: str, **values: Any) -> Iterator[Update]:
        """Before the wait for the device: tell mistakes at once, otherwise clear the stage."""
        yield from self._check(model, values, maps_only=False)

    def check_maps(self, model: str, **values: Any) -> Iterator[Update]:
        """The same before the control maps alone are made."""
        yield from self._check(model, values, maps_only=True)

    def _check(self, model: str, values: dict[str, Any], *, maps_only: bool) -> Iterator[Update]:
        try:
            self._job(model, values, maps_only=maps_only)
        except UserError as error:
            yield {self.result.status: stage.line(str(error), "failed")}
            raise gr.Error(str(error), print_exception=False) from error
        yield {
            **dict.fromkeys(self.controls.starters, gr.update(interactive=False)),
            self.controls.stop: gr.update(interactive=True),
            self.result.stage: gr.update(value=stage.busy(), visible=True),
            self.result.video: gr.update(value=None, visible=False),
            self.result.guide: gr.update(value=None, visible=False),
            self.result.status: stage.queued(),
            self.result.notes: "",
            self.result.guide_download: gr.update(value=None, visible=False),
            **dict.fromkeys(self.result.downloads.values(), gr.update(value=None, interactive=False)),
        }

    def run(self, model: str, request: gr.Request, **values: Any) -> Iterator[Update]:
        """Run a job and fill the page with what happens."""
        yield from self._run(model, values, request.session_hash, maps_only=False)

    def run_maps(self, model: str, request: gr.Request, **values: Any) -> Iterator[Update]:
        """Make the control maps alone; they are kept, so that a run after this one has them at once."""
        yield from self._run(model, values, request.session_hash, maps_only=True)

    def _run(self, model: str, values: dict[str, Any], session: str, *, maps_only: bool) -> Iterator[Update]:
        ended = self.running[session] = threading.Event()
        try:
            yield from self._run_job(model, values, maps_only=maps_only)
        finally:
            ended.set()

    def _run_job(self, model: str, values: dict[str, Any], *, maps_only: bool) -> Iterator[Update]:
        began = time.monotonic()
        seen = False
        notes = []
        try:
            job = self._job(model, values, maps_only=maps_only)
            yield {self.result.seed: job.request.seed}
            with closing(complete(job, self.runner, self.store)) as events:
                for event in events:
                    seen = seen or isinstance(event, Preview)
                    if isinstance(event, Notice):
                        notes.append(event.text)
                        yield {self.result.notes: stage.notes(notes)}
                    else:
                        yield self._update(event, job, time.monotonic() - began)
        except Exception as error:
            sentence = explain(error)
            picture = gr.skip() if seen else stage.empty()
            yield {**self._idle(), self.result.stage: picture, self.result.status: stage.line(sentence, "failed")}
            raise gr.Error(sentence, print_exception=False) from error
        yield self._idle()

    def answer(
        self,
        model: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio finds the parameter by this default
        **values: Any,
    ) -> Iterator[tuple[str | None, int, dict[str, Any]]]:
        """The same for a program: the video appears in the last answer, the seed in each."""
        try:
            job = self._job(model, values)
            with closing(complete(job, self.runner, self.store, (PLAYABLE,), keep_guide=False)) as events:
                for event in events:
                    match event:
                        case Progress():
                            progress((event.step, event.of), desc=event.stage, unit=event.unit)
                            yield None, job.request.seed, {}
                        case Stored():
                            yield str(event.files[PLAYABLE]), job.request.seed, event.settings
        except Exception as error:
            raise gr.Error(explain(error), print_exception=False) from error

    def stop(self, picture: str, request: gr.Request) -> Iterator[Update]:
        """The page after Stop, which closes the run within a step. What was seen last stays."""
        yield {self.controls.stop: gr.update(interactive=False), self.result.status: stage.stopping()}
        if (ended := self.running.pop(request.session_hash, None)) is not None:
            ended.wait(STOP_SECONDS)
        left = stage.empty() if picture == stage.busy() else gr.skip()
        yield {**self._idle(), self.result.stage: left, self.result.status: stage.line("Stopped.", "stopped")}

    def _job(self, model: str, values: dict[str, Any], *, maps_only: bool = False) -> Job:
        fields = given(self.request, values)
        loras = str(fields.pop("loras", None) or "")
        typed_path = fields.pop("clip_path", "")
        if typed_path and not fields["clip"]:
            fields["clip"] = typed_path
        if maps_only and not fields["prompt"]:
            fields["prompt"] = "control map"  # maps do not depend on it, and it may not be thought of yet
        request = self.request.from_dict(fields).with_concrete_seed()
        control = request.control if isinstance(request, ControlledRequest) else ""
        speed = request.speed if isinstance(request, FewStepRequest) else FULL_QUALITY
        return Job(request, self.menu.checkpoint(model, control, speed, loras), maps_only)

    def _update(self, event: Event | Stored, job: Job, seconds: float) -> Update:
        match event:
            case Guide():
                return self._show_guide(event, job, seconds)
            case Progress():
                return {self.result.status: stage.progress(event)}
            case Preview():
                return {self.result.stage: stage.preview(event, job.request.fps)}
            case Stored() if len(event.files) == 1:
                return {
                    self.result.stage: gr.update(visible=False),
                    self.result.video: gr.update(value=str(event.files[PLAYABLE]), visible=True),
                    self.result.status: stage.line(
                        f"Done in {stage.duration(seconds)} with seed {job.request.seed}.", "done"
                    ),
                    self.result.settings: event.settings,
                    **self._downloads(event),
                }
            case Stored():
                return self._downloads(event)

    def _show_guide(self, guide: Guide, job: Job, seconds: float) -> Update:
        shown = {
            self.result.guide: gr.update(value=str(guide.path), visible=True),
            self.result.guide_download: gr.update(value=str(guide.path), visible=True, interactive=True),
        }
        if job.maps_only:
            ready = stage.line(f"The control map is ready after {stage.duration(seconds)}.", "done")
            shown |= {self.result.stage: gr.update(visible=False), self.result.status: ready}
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
        elif spec.minimum is not None:
            values = f" ({spec.minimum:g} to {spec.maximum:g})"
        else:
            values = ""
        lines.append(f"{name}: {spec.help}{values}")
    return f"{request.title}. Answers with the video, the seed and all settings.\n" + "\n".join(lines)

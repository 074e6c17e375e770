"""What can be done with a video that a tab shows, or that is brought: use its settings, vary it, change it by words."""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from serving.store import PLAYABLE
from tabs.form import IN_TURN, Update, path_of
from tabs.look import display
from tabs.parts.controls import NO_FILE
from tabs.run import followed
from text2video_zero.errors import UserError
from text2video_zero.job import Settings, changed_job
from text2video_zero.media.settings import read_settings
from text2video_zero.models.selection import checkpoint_for
from text2video_zero.requests import ControlledRequest
from text2video_zero.requests.fields import SEED_LIMIT
from text2video_zero.requests.video import MOST_FRAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from serving.line import Entry
    from tabs.run import Run
    from text2video_zero.requests import VideoRequest


# What a button changes in a request to make another video of it.
CHANGES: dict[str, Callable[[VideoRequest], dict[str, Any]]] = {
    "vary": lambda _: {"seed": secrets.randbelow(SEED_LIMIT)},
    "longer": lambda request: {"frames": _twice(request.frames)},
    "loop": lambda _: {"loop": True},
}


def _twice(frames: int) -> int:
    if frames >= MOST_FRAMES:
        raise UserError(
            f"The video has {frames} frames, and none has more: fewer frames per second make it last longer."
        )
    return min(2 * frames, MOST_FRAMES)


@dataclass(frozen=True)
class AfterRun:
    """The handlers of the buttons below a tab's video.

    editor: the tab that changes a clip by words.
    """

    run: Run
    editor: Run

    def connect(self) -> None:
        """Connect the buttons that the tab has."""
        run, after = self.run, self.run.result.after
        buttons = after.buttons
        states, editor = run.controls.states, self.editor.controls.states
        page = [states.jobs, run.services.visitor]
        buttons["use"].click(self.fill, page, [states.refill, states.brought], **IN_TURN)
        for name in CHANGES.keys() & buttons.keys():
            told = [states.followed, after.question, states.asked]
            buttons[name].click(self.repeating(name), page, told, **IN_TURN)
        yes = [states.asked, run.services.visitor]
        after.anyway.click(self.repeat_anyway, yes, [states.followed, after.question], **IN_TURN)
        if "edit" in buttons:
            buttons["edit"].click(self.send, page, [editor.refill, editor.brought], **IN_TURN)

    def fill(self, jobs: Any, visitor: str | None) -> Update:
        """Ask for the form as it was for the video."""
        entry = self._shown(jobs, visitor)
        return self.run.controls.filled_by(entry.job) if entry else gr.skip()

    def repeating(self, change: str) -> Callable[..., Update]:
        """The handler of one of CHANGES; a partial would lack the annotation by which Gradio hands the request over."""

        def repeated(jobs: Any, visitor: str | None, click: gr.Request) -> Update:
            return self.repeat(change, jobs, visitor, click)

        return repeated

    def repeat(self, change: str, jobs: Any, visitor: str | None, click: gr.Request, *, sure: bool = False) -> Update:
        """Another video of the same request, with one of CHANGES; ask first where it takes very long."""
        entry = self._shown(jobs, visitor)
        if entry is None:
            return gr.skip()
        states, question = self.run.controls.states, self.run.result.after.question
        try:
            changed = changed_job(entry.job, **CHANGES[change](entry.job.request))
            if not sure and (asked := self.run.question([changed])):
                return {question: asked, states.asked: {"change": change, "job": entry.job.id}}
            return {states.followed: followed([self.run.services.submitted(changed, visitor, click)]), question: ""}
        except UserError as error:
            raise gr.Error(display.toast(str(error)), print_exception=False) from error

    def repeat_anyway(self, asked: Any, visitor: str | None, click: gr.Request) -> Update:
        """What was asked about, for somebody who knows how long it takes.

        asked: as the browser has kept it.
        """
        change, job = (str(asked.get(name)) if isinstance(asked, dict) else "" for name in ("change", "job"))
        return self.repeat(change, [job], visitor, click, sure=True) if change in CHANGES else gr.skip()

    def send(self, jobs: Any, visitor: str | None) -> Update:
        """The video as the clip of the tab that changes clips by words."""
        entry = self._shown(jobs, visitor)
        if entry is None or entry.standing.stored is None:
            return gr.skip()
        return self.editor.controls.filled({}, files={"clip": str(entry.standing.stored.files[PLAYABLE])}, show=True)

    def _shown(self, jobs: Any, visitor: str | None) -> Entry | None:
        """The job whose video is seen."""
        found = self.run.found(jobs, self.run.services.owner(visitor))
        return next((entry for entry in reversed(found) if entry.standing.stored), None)


def connect_loader(loader: gr.UploadButton, runs: Mapping[str, Run]) -> None:
    """A video of this app, or a .json of its settings, opens its tab and fills it."""

    def fill(upload: Any) -> Update:
        try:
            task, settings = _settings_in(Path(path_of(upload)), runs)
        except UserError as error:
            raise gr.Error(display.toast(str(error)), print_exception=False) from error
        model, controls = _model_of(settings, runs[task]), runs[task].controls
        for sentence in _left_out(settings, runs[task], model):
            gr.Warning(display.toast(sentence))
        for name, _, spec in runs[task].request.declarations():
            if name in controls.files and (path := settings.values.get(name)):
                told = f"The video was made from {Path(str(path)).name}: choose it again as the {spec.label.lower()}."
                gr.Warning(display.toast(told))
        made, emptied = dataclasses.replace(settings, model=model), dict.fromkeys(controls.files, NO_FILE)
        return controls.filled(settings.values, model, settings.loras, emptied, made=made, show=True)

    forms = [state for run in runs.values() for state in (run.controls.states.refill, run.controls.states.brought)]
    loader.upload(fill, loader, forms, preprocess=False, **IN_TURN)


def _model_of(settings: Settings, run: Run) -> str | None:
    """The model of an earlier video; None, with a word to the person, where it is not to be had here."""
    try:
        model = settings.usable_model()
        if model is not None:
            run.services.menu.check(model)
    except UserError as error:
        gr.Warning(display.toast(str(error)))
        return None
    return model


def _left_out(settings: Settings, run: Run, model: str | None) -> Iterator[str]:
    """What of an earlier video the form cannot ask for, in sentences.

    model: as the form will have it; None where it stays as it is.
    """
    if settings.loras and run.controls.loras is None:
        loras = ", ".join(settings.loras)
        yield f"The video was made with LoRAs ({loras}), which are not offered here: without them it will differ."
    if not settings.controlnet or not issubclass(run.request, ControlledRequest):
        return
    try:
        control = str(settings.values.get("control", "edge"))
        usual = checkpoint_for(run.request.task, model or run.services.menu.default, control=control).controlnet
    except UserError:  # the run tells it
        usual = None
    if not settings.has_controlnet(usual):
        yield (
            f"The video was made with the ControlNet {settings.controlnet!r}, which only the command line takes: with "
            "the one of the form's model it will differ."
        )


def _settings_in(path: Path, tasks: Collection[str]) -> tuple[str, Settings]:
    """The task and the settings that a file carries; raises UserError where it carries none."""
    task = str(read_settings(path).get("task"))
    if task not in tasks:
        raise UserError(f"{path.name} does not say which task made it: choose a video that this app has saved.")
    return task, Settings.read(path, task)

"""The right side of a tab: the video and what shapes it, the status line, downloads; and what is there before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from serving.jobs import Done, Failed, Interrupted, Queued, Running, Stopped, Stopping
from serving.store import FORMS, PLAYABLE
from tabs.look import display
from tabs.parts.question import build_question
from text2video_zero.events import duration
from text2video_zero.media.settings import read_settings
from text2video_zero.models.catalogue import ASSETS
from text2video_zero.requests import ControlledRequest, InstructPix2PixRequest, TextToVideoRequest

if TYPE_CHECKING:
    from pathlib import Path

    from serving.jobs import Standing, State
    from tabs.form import Update
    from text2video_zero.job import Job
    from text2video_zero.requests import Request

RESULTS = ASSETS / "clips" / "results"


@dataclass(frozen=True)
class ExampleVideo:
    """What a tab shows before its first run, made by the same engine.

    video: carries the settings that made it.  guide: the clip that plays beside it, None for tasks without.
    """

    video: Path
    guide: Path | None

    @property
    def caption(self) -> str:
        """How the example was made, in one sentence."""
        settings = read_settings(self.video)
        request = settings["request"]
        return f"Example: \u201c{request['prompt']}\u201d, made with {settings['model']}, seed {request['seed']}."


def find_example(task: str, folder: Path = RESULTS) -> ExampleVideo | None:
    """The example of a task, None where none has been rendered."""
    video, guide = folder / f"{task}.mp4", folder / f"{task}-guide.mp4"
    if not video.is_file():
        return None
    return ExampleVideo(video, guide if guide.is_file() else None)


@dataclass(frozen=True)
class After:
    """What can be done with a video, seen when there is one; of "loop" and "edit" a tab has what fits it.

    question: asks before what takes very long.  anyway: says yes.
    """

    column: gr.Column
    buttons: dict[str, gr.Button]
    question: gr.HTML
    anyway: gr.Button


@dataclass(frozen=True)
class Result:
    """The widgets that a run fills.

    guide: the clip that plays in step with the video: its control maps, or what an instruction changes.
    display: stands where the video will be, until it is there.
    notes: sentences that should stay readable after the run.
    """

    guide: gr.Video
    display: gr.HTML
    video: gr.Video
    status: gr.HTML
    notes: gr.HTML
    downloads: dict[str, gr.DownloadButton]
    guide_download: gr.DownloadButton
    after: After
    seed: gr.Number
    settings: gr.JSON

    @property
    def outputs(self) -> list[Any]:
        """All of them, for events that fill some."""
        return [
            self.guide,
            self.display,
            self.video,
            self.status,
            self.notes,
            *self.downloads.values(),
            self.guide_download,
            self.after.column,
            self.after.question,
            self.seed,
            self.settings,
        ]

    def showing(
        self, job: Job, standing: Standing, place: int | None, picture: str, *, had_video: bool, had_files: bool
    ) -> Update:
        """Everything on the right as it is while a job stands like this.

        place: how many jobs come before it; None while it is paused.
        picture: its latest preview as HTML, or what stands for it.
        had_video: whether an earlier video is here, to come back after a failure.  had_files: whether a run made it.
        """
        stored = standing.stored
        guide = None if standing.guide is None else str(standing.guide.path)
        page: Update = {
            self.status: display.line(*sentence(job, standing.state)) if standing.is_over else waiting(standing, place),
            self.notes: display.notes(standing.notes),
            self.display: gr.update(value=picture, visible=True),
            self.video: gr.update(visible=False),
            self.guide: gr.update(visible=False) if guide is None else gr.update(value=guide, visible=True),
            self.guide_download: gr.update(value=guide, visible=guide is not None, interactive=guide is not None),
            self.after.column: gr.update(visible=standing.is_over and stored is not None),
            self.after.question: "",
            **dict.fromkeys(self.downloads.values(), gr.update(interactive=False)),
        }
        if stored is not None:
            page |= {
                self.display: gr.update(visible=False),
                self.video: gr.update(value=str(stored.files[PLAYABLE]), visible=True),
                self.seed: job.request.seed,
                self.settings: stored.settings,
            }
            if standing.is_over:
                files = {form: stored.files.get(form) for form in self.downloads}
                page |= {
                    self.downloads[form]: gr.update(value=path and str(path), interactive=path is not None)
                    for form, path in files.items()
                }
        elif job.maps_only and isinstance(standing.state, Done):
            page[self.display] = gr.update(visible=False)
        elif isinstance(standing.state, Failed):
            page |= self._after_failure(had_video=had_video, had_files=had_files)
        elif isinstance(standing.state, Stopped | Interrupted) and standing.preview is None:
            page[self.display] = gr.update(value=display.empty(), visible=True)
        return page

    def _after_failure(self, *, had_video: bool, had_files: bool) -> Update:
        """A failed run takes no video away: the earlier one comes back, with the downloads that it had."""
        if not had_video:
            return {self.display: gr.update(value=display.empty(), visible=True)}
        return {
            self.display: gr.update(visible=False),
            self.video: gr.update(visible=True),
            **dict.fromkeys(self.downloads.values(), gr.update(interactive=had_files)),
        }


def sentence(job: Job, state: State) -> tuple[str, str]:
    """How a job ended, as a sentence and its kind."""
    match state:
        case Done(seconds) if job.maps_only:
            return f"The control map is ready after {duration(seconds)}.", "done"
        case Done(seconds):
            return f"Done in {duration(seconds)} with seed {job.request.seed}.", "done"
        case Failed(reason):
            return reason, "failed"
        case Interrupted():
            return "The program ended before this video was made: it waits below to go on.", "stopped"
        case _:
            return "Stopped.", "stopped"


def waiting(standing: Standing, place: int | None) -> str:
    """The status line of a job that is not over."""
    match standing.state:
        case Running(progress):
            return display.progress(progress)
        case Stopping():
            return display.stopping()
        case Queued():
            return display.queued(place)
        case _:
            return ""


def build_result(request: type[Request]) -> Result:
    """Lay out the result of a task, filled with its example if there is one."""
    task = request.task
    example = find_example(task)
    guide_label = "Control map" if issubclass(request, ControlledRequest) else "Clip"
    with gr.Row(elem_classes=["pair", "in-step"]):
        guide = _player(guide_label, f"{task}-guide", example.guide if example else None)
        picture = gr.HTML(display.empty(), visible=example is None, elem_id=f"{task}-display")
        video = _player("Video", f"{task}-video", example.video if example else None)
    status = gr.HTML(
        display.line(example.caption, "example") if example else display.READY,
        elem_id=f"{task}-status",
        elem_classes="status-slot",
    )
    with gr.Row(elem_classes="downloads"):
        downloads = {form: _download(label, f"{task}-download-{form[1:]}") for form, label in FORMS.items()}
        guide_download = _download(guide_label, f"{task}-download-guide", visible=False)
    after = _build_after(request)
    with gr.Accordion("How this video was made", open=False):
        notes = gr.HTML(elem_id=f"{task}-notes", elem_classes="notes-slot")
        seed = gr.Number(label="Seed", precision=0, interactive=False, elem_id=f"{task}-seed-used")
        settings = gr.JSON(label="Settings", elem_id=f"{task}-settings")
    return Result(guide, picture, video, status, notes, downloads, guide_download, after, seed, settings)


def _build_after(request: type[Request]) -> After:
    labels = {"vary": "Vary", "longer": "Longer"}
    if issubclass(request, TextToVideoRequest):
        labels["loop"] = "Make it loop"
    if not issubclass(request, InstructPix2PixRequest):
        labels["edit"] = "Change it by words"
    labels["use"] = "Use again"
    with gr.Column(visible=False) as column:
        with gr.Row(elem_classes="after"):
            buttons = {
                name: gr.Button(label, size="sm", min_width=60, elem_id=f"{request.task}-{name}")
                for name, label in labels.items()
            }
        question, anyway = build_question(f"{request.task}-after")
    return After(column, buttons, question, anyway)


def _player(label: str, elem_id: str, value: Path | None) -> gr.Video:
    return gr.Video(
        value,
        label=label,
        visible=value is not None,
        autoplay=True,
        loop=True,
        interactive=False,
        min_width=120,
        buttons=["download"],
        elem_id=elem_id,
        elem_classes="display-video",
    )


def _download(label: str, elem_id: str, *, visible: bool = True) -> gr.DownloadButton:
    return gr.DownloadButton(label, size="sm", interactive=False, visible=visible, min_width=84, elem_id=elem_id)

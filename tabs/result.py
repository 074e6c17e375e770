"""What a run fills: the video and what shapes it, the status line, downloads and settings; and what is there before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

from serving.store import FORMS
from tabs import display
from text2video_zero.media.settings import read_settings
from text2video_zero.models.catalogue import ASSETS
from text2video_zero.requests import ControlledRequest

if TYPE_CHECKING:
    from pathlib import Path

    from gradio.components import Component

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
    seed: gr.Number
    settings: gr.JSON

    @property
    def outputs(self) -> list[Component]:
        """All of them, for events that fill some."""
        return [
            self.guide,
            self.display,
            self.video,
            self.status,
            self.notes,
            *self.downloads.values(),
            self.guide_download,
            self.seed,
            self.settings,
        ]


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
    notes = gr.HTML(elem_id=f"{task}-notes", elem_classes="notes-slot")
    with gr.Row(elem_classes="downloads"):
        downloads = {form: _download(label, f"{task}-download-{form[1:]}") for form, label in FORMS.items()}
        guide_download = _download(guide_label, f"{task}-download-guide", visible=False)
    with gr.Accordion("How this video was made", open=False):
        seed = gr.Number(label="Seed", precision=0, interactive=False, elem_id=f"{task}-seed-used")
        settings = gr.JSON(label="Settings", elem_id=f"{task}-settings")
    return Result(guide, picture, video, status, notes, downloads, guide_download, seed, settings)


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
    return gr.DownloadButton(label, size="sm", interactive=False, visible=visible, min_width=60, elem_id=elem_id)

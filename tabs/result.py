"""What a run fills: the stage with the video and what shapes it, the status line, downloads and settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

from serving.store import FORMS
from tabs import stage
from text2video_zero.requests import ControlledRequest

if TYPE_CHECKING:
    from pathlib import Path

    from gradio.components import Component

    from tabs.showcase import Showcase
    from text2video_zero.requests import Request


@dataclass(frozen=True)
class Result:
    """The widgets that a run fills.

    guide: the clip that plays in step with the video: its control maps, or what an instruction changes.
    notes: sentences that should stay readable after the run.
    """

    guide: gr.Video
    stage: gr.HTML
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
            self.stage,
            self.video,
            self.status,
            self.notes,
            *self.downloads.values(),
            self.guide_download,
            self.seed,
            self.settings,
        ]


def build_result(request: type[Request], showcase: Showcase | None) -> Result:
    """Lay out the result of a task.

    showcase: what is to be seen before the first run, None for an empty stage.
    """
    task = request.task
    guide_label = "Control map" if issubclass(request, ControlledRequest) else "Clip"
    with gr.Row(elem_classes=["pair", "in-step"]):
        guide = _player(guide_label, f"{task}-guide", showcase.guide if showcase else None)
        picture = gr.HTML(stage.empty(), visible=showcase is None, elem_id=f"{task}-stage")
        video = _player("Video", f"{task}-video", showcase.video if showcase else None)
    status = gr.HTML(
        stage.line(showcase.caption, "example") if showcase else stage.READY,
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
        elem_classes="stage-video",
    )


def _download(label: str, elem_id: str, *, visible: bool = True) -> gr.DownloadButton:
    return gr.DownloadButton(label, size="sm", interactive=False, visible=visible, min_width=60, elem_id=elem_id)

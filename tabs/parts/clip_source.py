"""Where a clip comes from (a file, the webcam, a path on this machine), and what of it a run would use."""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import AsyncIterator, Generator  # noqa: TC003 - Gradio reads the annotations of its handlers
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from tabs.form import QUIETLY, file_widget, path_of, path_typed
from tabs.look import display
from text2video_zero.errors import UserError
from text2video_zero.events import duration
from text2video_zero.generators import mapped
from text2video_zero.media.clips import reading
from text2video_zero.requests import ClipRequest, Size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serving.visitors.limits import Limits
    from tabs.form import Field
    from text2video_zero.media.clips import Clip, ClipInfo
    from text2video_zero.requests import FieldSpec

USED_PART = ("first_frame", "frames", "fps")
"""The fields of a request that decide which part of a clip is used."""
_SPECS = {name: spec for name, _, spec in ClipRequest.declarations() if name in USED_PART}

PREVIEW_SIZE = Size(256, 256)
WEBCAM = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}}
"""What is asked of a camera; without asking, browsers record several million pixels and drop frames."""

FILE, CAMERA, FOLDER = "file", "webcam", "folder"
LOOKS_AT_ONCE = 4  # at clips; each holds a process that decodes
QUIET_SECONDS = 0.5  # after which a page that waits for its clip is told that it still does


@dataclass(frozen=True)
class ClipSource:
    """The widgets that a clip can come from.

    folder: a path on the machine that serves the page; None where strangers could type one.
    preview: the part of the clip that will be used, as a small moving picture.
    """

    sources: gr.Tabs
    file: gr.File
    webcam: gr.Video
    folder: gr.Textbox | None
    preview: gr.HTML

    def connect(self, fields: Mapping[str, Field], limits: Limits | None = None) -> None:
        """Keep the sources apart, so that one of them holds the clip, and show what it holds.

        limits: of a visitor; None where the page is one's own.
        """
        self.webcam.stop_recording(_recorded, self.webcam, [self.file, self.sources], preprocess=False, **QUIETLY)
        if self.folder is not None:
            self.file.change(
                None, [self.file, self.folder], self.folder, js="(file, path) => file ? '' : path", **QUIETLY
            )
            self.folder.change(
                None, [self.folder, self.file], self.file, js="(path, file) => path ? null : file", **QUIETLY
            )
        chosen = [self.file] if self.folder is None else [self.file, self.folder]
        part = [fields[name] for name in USED_PART]
        gr.on(
            [*(source.change for source in chosen), *(field.change for field in part)],
            UsedPart(limits).shown,
            [*part, *chosen],
            self.preview,
            preprocess=False,
            trigger_mode="multiple",
            concurrency_limit=LOOKS_AT_ONCE,
            show_progress="hidden",
            api_visibility="private",
        )


def build_clip_source(spec: FieldSpec, task: str, *, free: bool) -> ClipSource:
    """Lay out the sources of a clip.

    spec: the declaration of the request's clip.
    free: whether a path on the serving machine may be typed.
    """
    preview = gr.HTML(elem_id=f"{task}-clip-preview", elem_classes="clip-slot")
    folder = None
    with gr.Tabs(selected=FILE, elem_classes="sources") as sources:
        with gr.Tab("File", id=FILE):
            file = file_widget("clip", spec, task)
        with gr.Tab("Webcam", id=CAMERA):
            webcam = gr.Video(
                sources=["webcam"],
                webcam_options=gr.WebcamOptions(constraints=WEBCAM),
                show_label=False,
                buttons=[],
                height=240,
                elem_id=f"{task}-webcam",
                interactive=True,
            )
        if free:
            with gr.Tab("Folder", id=FOLDER):
                folder = gr.Textbox(
                    label="Path on this machine",
                    info="A folder of pictures in the order of their numbers, or a file.",
                    elem_id=f"{task}-clip-path",
                )
    return ClipSource(sources, file, webcam, folder, preview)


def _recorded(recording: Any) -> tuple[Any, gr.Tabs]:
    """A recording takes the file's place, where it is shown and can be taken out again."""
    return path_of(recording) or gr.skip(), gr.Tabs(selected=FILE)


@contextmanager
def _left(run: Generator[int | str, None, None]) -> Generator[Generator[int | str, None, None]]:
    """Close a generator at the end; one that is amid a step in another thread is closed when the step is over."""
    try:
        yield run
    finally:
        with suppress(ValueError):  # it is running: nobody has it then, and it is collected
            run.close()


class UsedPart:
    """Shows on each page what of its clip a run would use: the last that was asked, which ends what was asked before.

    A clip that takes long is read no longer when another one is chosen, when it is taken out, or the page is left.

    limits: of a visitor, who sees no more of a clip than a run would use; None where there are none.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits
        self._asked: dict[str | None, object] = {}  # session of a page -> its last question

    async def shown(
        self,
        request: gr.Request,
        first_frame: float | None,
        frames: float | None,
        fps: float | None,
        file: Any,
        path: str | None = "",
    ) -> AsyncIterator[Any]:
        """What `showing_used_part` ends with, and now and then nothing new, so that Gradio can end it meanwhile."""
        asked = self._asked[request.session_hash] = object()
        told = time.monotonic()
        try:
            with _left(showing_used_part(first_frame, frames, fps, file, path, self._limits)) as run:
                while not isinstance(made := await asyncio.to_thread(run.__next__), str):
                    if self._asked.get(request.session_hash) is not asked:
                        yield gr.skip()  # a generator without a word would empty the page
                        return
                    if time.monotonic() - told > QUIET_SECONDS:
                        told = time.monotonic()
                        yield gr.skip()
            yield made if self._asked.get(request.session_hash) is asked else gr.skip()
        finally:
            if self._asked.get(request.session_hash) is asked:
                del self._asked[request.session_hash]


def showing_used_part(
    first_frame: float | None,
    frames: float | None,
    fps: float | None,
    file: Any,
    path: str | None = "",
    limits: Limits | None = None,
) -> Generator[int | str, None, None]:
    """The part of a clip that a run would use, as HTML, or what is wrong with it; blank while there is no clip.

    Before it come the numbers of frames that are read, several times a second; closing stops the reading.
    """
    clip_path = path_of(file) or path_typed(path)
    asked, part = {"first_frame": first_frame, "frames": frames, "fps": fps}, dict[str, Any]()
    try:
        part = {name: _SPECS[name].checked(value) for name, value in asked.items()}
    except UserError:  # which is told where the number stands
        clip_path = ""
    if not clip_path:
        yield ""
        return
    try:
        if limits:
            yield from mapped(limits.checking_part(Path(clip_path), **part), lambda _: 0)
        clip = yield from reading(Path(clip_path), **part, size=None, native=PREVIEW_SIZE)
    except UserError as error:
        yield f'<p class="note">{html.escape(str(error))}</p>'
        return
    yield display.clip(clip.frames, clip.fps, used_part(clip, part["first_frame"]), describe(clip.source))


def used_part(clip: Clip, first_frame: int) -> str:
    """What of a clip is used, in words."""
    used = len(clip.frames)
    return f"Frame {first_frame} is used" if used == 1 else f"Frames {first_frame} to {first_frame + used - 1} are used"


def describe(source: ClipInfo) -> str:
    """What a clip holds, in words."""
    sound = ", with sound" if source.has_audio else ""
    what = f"The clip: {source.size}, {duration(source.duration)} at {source.fps:.3g} frames per second{sound}"
    return f"{'; '.join((what, *source.remarks))}."

"""What stands where the video will be, as HTML: nothing yet, a preview; and the status line below it."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from text2video_zero.events import Progress, duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from text2video_zero.events import Preview
    from text2video_zero.media.frames import Frames
    from text2video_zero.prompts.counting import TokenCount
    from text2video_zero.requests import VideoRequest

PREVIEW_FRAMES = 24
"""Frames of a preview at most: it is drawn many times in a run and nobody studies it frame by frame."""

READY = '<div class="status"><p><span role="status"></span></p></div>'
"""Every status has the role at the same place: Gradio patches the element there, and screen readers say what is new."""


def empty(text: str = "Your video appears here.", kind: str = "") -> str:
    """While there is nothing to see."""
    film = '<div class="display-film" aria-hidden="true"><i></i><i></i><i></i></div>'
    return f'<div class="display-empty {kind}">{film}<p>{html.escape(text)}</p></div>'


def busy() -> str:
    """While a job has nothing to show yet."""
    return empty("The first picture comes as soon as the model is at work.", "display-busy")


def preview(event: Preview, fps: int) -> str:
    """The clip as it looks now, as one small looping picture that the page enlarges."""
    height, width = event.frames.shape[1:3]
    return (
        f'<div class="display-preview" style="aspect-ratio:{width}/{height}">'
        f'<img alt="Preview of the video while it is being made" src="{animation(event.frames, fps)}"></div>'
    )


def clip(frames: Frames, fps: float, used: str, source: str) -> str:
    """The part of a clip that is used, as a small looping picture with a sentence about it and its source."""
    return (
        f'<figure class="clip"><img alt="The clip" src="{animation(frames, fps)}">'
        f"<figcaption><b>{html.escape(used)}</b> {html.escape(source)}</figcaption></figure>"
    )


def plan(request: VideoRequest, seconds: float | None, tokens: TokenCount | None) -> str:
    """What will be made, how long that takes, and how long the prompt is, in one line.

    seconds: None where nothing is known to judge by.  tokens: None where nobody can count them.
    """
    long = request.frames / request.fps
    size = "" if request.size is None else f" of {request.size}"
    takes = "" if seconds is None else f", about {duration(seconds)} to make"
    told = f"{long:.1f} s of video: {request.frames} frames{size}{takes}."
    if tokens is not None and tokens.tokens:
        parts = "" if tokens.chunks == 1 else f", read in {tokens.chunks} parts"
        told += f" The prompt has {tokens.tokens} of {tokens.chunks * tokens.room} tokens{parts}."
    return f'<p class="plan">{told}</p>'


def question(seconds: float) -> str:
    """What asks before a run that takes very long; a screen reader says it at once."""
    faster = "Smaller, shorter or fewer steps are faster."
    return f'<p role="alert">This takes about <b>{duration(seconds)}</b> on this machine. {faster}</p>'


def notes(sentences: Sequence[str]) -> str:
    """What a run has told so far and should stay readable; blank if it is nothing."""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f'<ul class="notes">{items}</ul>' if items else ""


def animation(frames: Frames, fps: float) -> str:
    """A data URL of an endless WebP of (f, h, w, 3) frames, thinned out to a bounded number."""
    shown = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), PREVIEW_FRAMES)).round().astype(int))
    first, *others = (Image.fromarray(frames[index]) for index in shown)
    milliseconds = round(1000 * len(frames) / len(shown) / fps)
    picture = io.BytesIO()
    first.save(
        picture, "WEBP", save_all=True, append_images=others, duration=milliseconds, loop=0, quality=80, method=0
    )
    return "data:image/webp;base64," + base64.b64encode(picture.getvalue()).decode()


def queued(place: int | None) -> str:
    """The status of a job in the queue.

    place: how many jobs come before it; None while it is paused.
    """
    if place is None:
        return progress(Progress("In the queue, which is paused", 0, 1), "queued")
    before = "one video comes" if place == 1 else f"{place} videos come"
    return progress(Progress(f"In the queue: {before} before this one" if place else "Starting", 0, 1), "queued")


def stopping() -> str:
    """The status between a click on Stop and the end of the step that is being computed."""
    return progress(Progress("Stopping after this step", 0, 1))


def progress(event: Progress, kind: str = "running") -> str:
    """One line and a bar: what is going on, how far it is, and how long it will take.

    A screen reader says the first of it by itself, once; it can be asked for the rest, which changes all the time.
    """
    countable, stage = event.of > 1, html.escape(event.stage)
    count = f"<span>{event.count}</span>" if countable else ""
    left = "" if event.seconds_left is None else f'<span class="left">about {duration(event.seconds_left)} left</span>'
    missing = 100 - 100 * event.step / event.of
    bar = f'style="transform:translateX(-{missing:.1f}%)"' if countable else 'class="unmeasured"'
    far = f' aria-valuenow="{event.step}"' if countable else ""
    role = f'role="progressbar" aria-label="{stage}" aria-valuemin="0" aria-valuemax="{event.of}"{far}'
    return (
        f'<div class="status {kind}"><p><span role="status"><strong>{stage}</strong></span>{count}{left}</p>'
        f'<div class="bar" {role}><i {bar}></i></div></div>'
    )


def line(text: str, kind: str) -> str:
    """A status in one sentence; kind is "done", "stopped" or "failed"."""
    return f'<div class="status {kind}"><p><span role="status">{html.escape(text)}</span></p></div>'


def toast(text: str) -> str:
    """A sentence for `gr.Warning` and `gr.Error`, which take HTML, pictures of other machines included."""
    return html.escape(text, quote=False)

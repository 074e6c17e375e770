"""A picture of the person's own that a video begins with: encoded, and brought to the noise of a timestep.

That is img2img (SDEdit, Meng et al. 2022) of the first frame, from which all others depart.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from text2video_zero.events import Event, Notice, Progress
from text2video_zero.generators import mapped
from text2video_zero.media.clips import hashing, reading
from text2video_zero.models.files.fingerprints import HASH_LENGTH
from text2video_zero.requests import StartPictureRequest
from text2video_zero.tasks.clip_input import encoded

if TYPE_CHECKING:
    from collections.abc import Generator

    import torch

    from text2video_zero.models.pipeline import Pipeline
    from text2video_zero.requests import VideoRequest

AnyStartPictureRequest = TypeVar("AnyStartPictureRequest", bound=StartPictureRequest)


def start_latents(
    request: AnyStartPictureRequest, pipeline: Pipeline
) -> Generator[Event, None, tuple[AnyStartPictureRequest, torch.Tensor | None]]:
    """The x_0 (c, h, w) of a request's start picture, None without one, and the request with the size settled by it.

    Fitted as clips are: what does not fit the size is cut off evenly, and no size is about the model's own area in the
    picture's proportions. Of a moving picture the first frame is taken. Raises UserError for what cannot be read.
    """
    if not request.start_picture:
        return request, None
    path, native = Path(request.start_picture), pipeline.native_size
    frames = reading(path, first_frame=0, frames=1, fps=request.fps, size=request.size, native=native)
    picture = yield from mapped(frames, lambda done: Progress("Reading the start picture", done, 1))
    first = f"the first of its {picture.source.frames} frames" if picture.source.frames > 1 else ""
    if done := ", ".join(filter(None, (first, picture.note))):
        yield Notice(f"The start picture as it is used: {done}.")
    latents = encoded(pipeline, picture.frames[0], "The start picture")
    return dataclasses.replace(request, size=picture.size), latents * pipeline.components.vae.config.scaling_factor


def noised(clean: torch.Tensor, noise: torch.Tensor, alpha: float) -> torch.Tensor:
    """The forward process: x_0 (c, h, w) at ᾱ with noise (…, c, h, w)."""
    return math.sqrt(alpha) * clean + math.sqrt(1 - alpha) * noise


def picture_hash(request: VideoRequest) -> Generator[Event, None, str]:
    """The beginning of the SHA-256 of a request's start picture; blank without one. Raises UserError.

    Yields now and then: a long video may stand for its first frame.
    """
    if not isinstance(request, StartPictureRequest) or not request.start_picture:
        return ""
    looking = Progress("Looking at the start picture", 0, 1)
    whole = yield from mapped(hashing(Path(request.start_picture)), lambda _: looking)
    return whole[:HASH_LENGTH]

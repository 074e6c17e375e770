"""What the tasks that begin with a clip have in common: reading it, and what it settles in the request."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from text2video_zero.errors import UserError
from text2video_zero.events import Event, Notice, Progress
from text2video_zero.generators import mapped
from text2video_zero.media.clips import reading
from text2video_zero.media.video import Sound
from text2video_zero.sampling.decoding import encoded_frame
from text2video_zero.sampling.motion.carried import CarriedNoise
from text2video_zero.sampling.noise import frame_noise, latent_shape

if TYPE_CHECKING:
    from collections.abc import Generator

    import numpy as np
    import torch

    from text2video_zero.media.clips import Clip
    from text2video_zero.models.pipeline import Pipeline
    from text2video_zero.requests import ClipRequest, Size

AnyClipRequest = TypeVar("AnyClipRequest", bound="ClipRequest")


def read(request: ClipRequest, native_size: Size) -> Generator[Event, None, Clip]:
    """The frames of a request's clip at the size and speed of the video; tells of roundings.

    Events come several times a second, so that it can be stopped whatever the clip is.

    native_size: of the model, in pixels; settles the video's size where the request leaves it open.
    """
    frames = reading(
        Path(request.clip),
        first_frame=request.first_frame,
        frames=request.frames,
        fps=request.fps,
        size=request.size,
        native=native_size,
    )
    clip = yield from mapped(frames, lambda done: Progress("Reading the clip", done, request.frames))
    if used := ", ".join(filter(None, (clip.part, clip.note))):
        yield Notice(f"The clip as it is used: {used}.")
    if request.keep_sound and not clip.source.has_audio:
        yield Notice("The clip has no sound to keep.")
    return clip


def concrete(request: AnyClipRequest, clip: Clip) -> AnyClipRequest:
    """The request with the seed, size and number of frames that it will really run with."""
    return dataclasses.replace(request.with_concrete_seed(), size=clip.size, frames=len(clip.frames))


def carried_noise(request: ClipRequest, clip: Clip, pipeline: Pipeline) -> CarriedNoise | None:
    """How noise goes with a clip, if the request wants it to."""
    _, height, width = latent_shape(request.concrete_size, pipeline)
    return CarriedNoise.along(clip.frames, height, width) if request.noise_follows else None


def clip_noise(request: ClipRequest, pipeline: Pipeline, carried: CarriedNoise | None, draw: int = 0) -> torch.Tensor:
    """Noise (f, c, h, w) for one draw, the same for all frames or carried along the clip."""
    shape = latent_shape(request.concrete_size, pipeline)
    if carried is None:
        return frame_noise(request.seed, 0, shape, pipeline.device, draw).expand(request.frames, -1, -1, -1)
    return carried.noise(request.seed, shape[0], draw).to(pipeline.device)


def encoded(pipeline: Pipeline, frame: np.ndarray, named: str) -> torch.Tensor:
    """Latents (c, h, w) of a frame (height, width, 3) uint8: the mode, unscaled.

    named: what it is, for the UserError about numbers that are not finite.
    """
    vae = pipeline.components.vae
    latents = encoded_frame(vae, frame, [network for network in pipeline.networks if network is not vae])
    if not latents.isfinite().all():
        raise UserError(
            f"{named} was encoded to numbers that are not finite: choose another model, or run in full precision "
            "(--device cpu)."
        )
    return latents.to(pipeline.device)


def sound_of(request: ClipRequest, clip: Clip) -> Sound | None:
    """The clip's sound, if the video shall keep it."""
    return Sound(Path(request.clip), clip.start) if request.keep_sound and clip.source.has_audio else None

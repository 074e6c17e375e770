"""Video Instruct-Pix2Pix: a clip changed by an instruction (paper, section 3.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from text2video_zero.attention.deep_cache import deep_cache
from text2video_zero.attention.patches import attention_of
from text2video_zero.device.memory_plan import placement_for
from text2video_zero.errors import UserError
from text2video_zero.events import ClipFrames, Event, Progress
from text2video_zero.models.catalogue import name_of
from text2video_zero.prompts.encoding import encoded_prompts
from text2video_zero.sampling.denoising import Sampled, denoise
from text2video_zero.sampling.guidance import INSTRUCT_BRANCHES, InstructGuidance, branches_of
from text2video_zero.sampling.motion.noise import NoisePath
from text2video_zero.sampling.noise import frame_noise, latent_shape
from text2video_zero.sampling.share import WHOLE
from text2video_zero.sampling.solvers import schedule_of, scheduler_told
from text2video_zero.tasks.clip_input import carried_noise, clip_noise, concrete, encoded, read, sound_of
from text2video_zero.tasks.progress import ProgressReporter

if TYPE_CHECKING:
    from collections.abc import Generator

    from text2video_zero.media.frames import Frames
    from text2video_zero.models.pipeline import Pipeline
    from text2video_zero.requests.instructed import InstructPix2PixRequest
    from text2video_zero.sampling.kept_steps import KeptSteps
    from text2video_zero.sampling.motion.carried import CarriedNoise
    from text2video_zero.sampling.share import Share


def sample_instructed(
    request: InstructPix2PixRequest, pipeline: Pipeline, kept: KeptSteps, share: Share = WHOLE
) -> Generator[Event, None, Sampled]:
    """Latents of an Instruct-Pix2Pix request, with its seed, size and length made concrete.

    kept: where the steps are kept, and from where the run goes on if some were. share: the frames that are wanted.
    Raises UserError when the clip cannot be read or the model takes no picture.
    """
    components = pipeline.components
    if components.unet.config.in_channels != 2 * components.vae.config.latent_channels:
        raise UserError(
            f"The model {name_of(pipeline.checkpoint)!r} takes no instructions: choose an InstructPix2Pix one."
        )
    clip = yield from read(request, pipeline.native_size)
    request = concrete(request, clip)
    yield ClipFrames(clip.frames)
    schedule = schedule_of(request.sampler, request.steps, scheduler_told(components.scheduler, request.prediction))
    branches = branches_of(request, INSTRUCT_BRANCHES, schedule)
    guidance = InstructGuidance(
        unet=components.unet,
        embeddings=encoded_prompts(components, request.prompt, request.negative_prompt, pipeline.inversions),
        text_scale=request.guidance_scale,
        image_scale=request.image_guidance_scale,
        branches=branches,
        image_latents=(yield from image_latents(pipeline, clip.frames)),
    )
    carried = carried_noise(request, clip, pipeline)
    evaluations = request.frames * request.steps
    progress = ProgressReporter(pipeline.preview_decoder, evaluations, request.frames, request.steps, share)
    placement = yield from placement_for(request, request.concrete_size, pipeline)
    with (
        placement,
        attention_of(request, branches, components.unet) as memory,
        deep_cache(request.cache_interval, branches, components.unet) as deep,
    ):
        loop = denoise(
            noise_of_step(request, pipeline, 0, carried),
            schedule,
            range(request.steps),
            guidance,
            memory,
            placement,
            step_noise=lambda index: noise_of_step(request, pipeline, index + 1, carried),
            kept=kept,
            share=share,
            deep=deep,
        )
        latents = yield from progress.reported(loop, "Denoising")
        return Sampled(latents[share.rows(request.frames)], request, sound_of(request, clip))


def noise_of_step(
    request: InstructPix2PixRequest, pipeline: Pipeline, draw: int, carried: CarriedNoise | None = None
) -> torch.Tensor:
    """Noise (f, c, h, w) for one draw: what all frames share, or for each its own as in the original."""
    if request.shared_noise:
        return clip_noise(request, pipeline, carried, draw)
    shape = latent_shape(request.concrete_size, pipeline)
    first = frame_noise(request.seed, 0, shape, pipeline.device, draw)
    path = NoisePath(request.seed, shape, request.motion_smoothness, draw=draw)
    return torch.stack([path.leaving(first, frame) for frame in range(request.frames)])


def image_latents(pipeline: Pipeline, frames: Frames) -> Generator[Event, None, torch.Tensor]:
    """Latents (f, c, h, w) of frames (f, height, width, 3) uint8: the mode, unscaled, as the model was trained.

    Raises UserError, naming the frame, for numbers that are not finite.
    """
    latents = []
    for number, frame in enumerate(frames, start=1):
        latents.append(encoded(pipeline, frame, f"Frame {number - 1} of the clip"))
        yield Progress("Encoding the clip", number, len(frames))
    return torch.stack(latents)

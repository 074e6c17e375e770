"""Noise: that which belongs to a frame, and that which a sampler adds on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from text2video_zero.models.pipeline import Pipeline
    from text2video_zero.requests import Size, VideoRequest
    from text2video_zero.sampling.schedule import Schedule
    from text2video_zero.sampling.solvers import StepNoise

RESTART = -(2**31) + 2
"""Number of the noise that takes the first frame back to T, in place of a frame's: no path comes to it."""
_INDICES = 2**32  # a seed sequence reads whole words of 32 bits; indices below 0 take the highest ones


def latent_shape(size: Size, pipeline: Pipeline) -> tuple[int, int, int]:
    """Channels, height and width of the latents of one frame."""
    factor = pipeline.latent_factor
    return pipeline.components.vae.config.latent_channels, size.height // factor, size.width // factor


def frame_noise(
    seed: int, frame: int, shape: tuple[int, ...], device: torch.device | str, draw: int = 0
) -> torch.Tensor:
    """Standard normal noise (*shape) float32 that belongs to one frame of one seed.

    Drawn on the CPU from (seed, frame index, draw) alone, so that it is the same on every device, at every
    chunk size and in clips of every length.
    frame: below 0 for what belongs to no frame of the clip.
    draw: 0 for the noise that a frame starts from, 1 and up for what is added at later steps.
    """
    state = np.random.SeedSequence([seed, frame % _INDICES, draw]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state))
    return torch.randn(shape, generator=generator).to(device)


def shared_step_noise(request: VideoRequest, pipeline: Pipeline, schedule: Schedule) -> StepNoise:
    """What a sampler adds after a step, (c, h, w): the same for all frames, which steadies them.

    It belongs to the timestep that the step leads to, and so differs between the schedules of a run.
    """
    shape = latent_shape(request.concrete_size, pipeline)
    device = pipeline.device
    return lambda index: frame_noise(request.seed, 0, shape, device, draw=int(schedule.timesteps[index + 1]))

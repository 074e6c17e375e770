"""The one denoising loop: at every step the anchor frame first, then the other frames in chunks."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Generator

    from text2video_zero.attention import FrameMemory
    from text2video_zero.guidance import NoisePredictor
    from text2video_zero.pipeline import Pipeline
    from text2video_zero.requests import Size, VideoRequest
    from text2video_zero.schedule import Schedule, StepNoise


@dataclass(frozen=True)
class ChunkDone:
    """Some frames have been through the UNet.

    step: number of the step in its segment, from 1.  of: steps of the segment.
    frames: how many frames this chunk held.
    clean: with the last chunk of a step, the estimate of x_0 for all frames, (f, c, h, w); else None.
    """

    step: int
    of: int
    frames: int
    clean: torch.Tensor | None


@dataclass(frozen=True)
class Sampled:
    """What a task's sampling comes to: latents (f, c, h, w), and the request with nothing left open in it."""

    latents: torch.Tensor
    request: VideoRequest


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
    draw: 0 for the noise that a frame starts from, 1 and up for what is added at later steps.
    """
    state = np.random.SeedSequence([seed, frame, draw]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state))
    return torch.randn(shape, generator=generator).to(device)


def denoise(
    latents: torch.Tensor,
    schedule: Schedule,
    steps: range,
    predict_noise: NoisePredictor,
    memory: FrameMemory | None,
    chunk_size: int,
    step_noise: StepNoise | None = None,
) -> Generator[ChunkDone, None, torch.Tensor]:
    """Take latents (f, c, h, w) through some steps of a schedule; the generator's return value is the result.

    latents are variance-preserving before and after. memory is that of an open `cross_frame_attention`, None
    for ordinary self-attention. Closing the generator stops before the next chunk.
    """
    solver = schedule.solver(steps.start, step_noise)
    latents = latents * schedule.latent_scale(steps.start)
    for number, index in enumerate(steps, start=1):
        shown = solver.model_input(latents, index)
        timestep = schedule.timesteps[index]
        outputs = []
        for frames in _anchor_first(len(latents), chunk_size):
            if outputs:
                yield ChunkDone(number, len(steps), len(outputs[-1]), None)
            with memory.anchor_pass() if memory and not outputs else nullcontext():
                outputs.append(predict_noise(shown[frames], timestep, frames))
        output = torch.cat(outputs)
        in_paper_scale = latents / schedule.latent_scale(index)
        clean, _ = schedule.clean_and_noise(output, index, in_paper_scale)
        latents = solver.step(output, index, latents)
        yield ChunkDone(number, len(steps), len(outputs[-1]), clean)
    return latents / schedule.latent_scale(steps.stop)


def _anchor_first(frames: int, chunk_size: int) -> list[slice]:
    return [slice(0, 1), *(slice(begin, begin + chunk_size) for begin in range(1, frames, chunk_size))]

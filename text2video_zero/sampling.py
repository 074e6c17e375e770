"""The one denoising loop: at every step the anchor frame first, then the other frames in chunks."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from text2video_zero.attention import FrameMemory
    from text2video_zero.guidance import NoisePredictor
    from text2video_zero.schedule import Schedule


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


def frame_noise(seed: int, frame: int, shape: tuple[int, ...], device: torch.device | str) -> torch.Tensor:
    """Standard normal noise (*shape) float32 that belongs to one frame of one seed.

    Drawn on the CPU from (seed, frame index) alone, so that it is the same on every device, at every chunk
    size and in clips of every length.
    """
    state = np.random.SeedSequence([seed, frame]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state))
    return torch.randn(shape, generator=generator).to(device)


def denoise(
    latents: torch.Tensor,
    schedule: Schedule,
    steps: range,
    predict_noise: NoisePredictor,
    memory: FrameMemory | None,
    chunk_size: int,
) -> Generator[ChunkDone, None, torch.Tensor]:
    """Take latents (f, c, h, w) through some steps of a schedule; the generator's return value is the result.

    latents are variance-preserving before and after. memory is that of an open `cross_frame_attention`, None
    for ordinary self-attention. Closing the generator stops before the next chunk.
    """
    solver = schedule.solver(steps.start)
    latents = latents * schedule.latent_scale(steps.start)
    for number, index in enumerate(steps, start=1):
        shown = solver.model_input(latents, index)
        timestep = schedule.timesteps[index]
        outputs = []
        for chunk in _anchor_first(shown, chunk_size):
            if outputs:
                yield ChunkDone(number, len(steps), len(outputs[-1]), None)
            outputs.append(_predicted(predict_noise, chunk, timestep, memory, anchor=not outputs))
        output = torch.cat(outputs)
        in_paper_scale = latents / schedule.latent_scale(index)
        clean, _ = schedule.clean_and_noise(output, index, in_paper_scale)
        latents = solver.step(output, index, latents)
        yield ChunkDone(number, len(steps), len(outputs[-1]), clean)
    return latents / schedule.latent_scale(steps.stop)


def _anchor_first(latents: torch.Tensor, chunk_size: int) -> list[torch.Tensor]:
    anchor, others = latents[:1], latents[1:]
    return [anchor, *(others.split(chunk_size) if len(others) else ())]


def _predicted(
    predict_noise: NoisePredictor,
    latents: torch.Tensor,
    timestep: float,
    memory: FrameMemory | None,
    *,
    anchor: bool,
) -> torch.Tensor:
    if memory is None or not anchor:
        return predict_noise(latents, timestep)
    with memory.anchor_pass():
        return predict_noise(latents, timestep)

"""The one denoising loop: at every step the anchor frame first, then the other frames in chunks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from text2video_zero.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Generator

    from text2video_zero.attention import FrameMemory
    from text2video_zero.guidance import NoisePredictor
    from text2video_zero.pipeline import Pipeline
    from text2video_zero.requests import Size, VideoRequest
    from text2video_zero.schedule import Schedule, StepNoise
    from text2video_zero.video import Sound


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
    """What a task's sampling comes to.

    latents: (f, c, h, w).  request: with nothing left open in it.  sound: what the clip sounds like, if wanted.
    """

    latents: torch.Tensor
    request: VideoRequest
    sound: Sound | None = None


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


def shared_step_noise(request: VideoRequest, pipeline: Pipeline, schedule: Schedule) -> StepNoise:
    """What a sampler adds after a step, (c, h, w): the same for all frames, which steadies them.

    It belongs to the timestep that the step leads to, and so differs between the schedules of a run.
    """
    shape = latent_shape(request.size, pipeline)
    device = pipeline.components.unet.device
    return lambda index: frame_noise(request.seed, 0, shape, device, draw=int(schedule.timesteps[index + 1]))


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

    A chunk that does not fit into the memory is taken in halves, and so are all after it, with the same result.
    Raises UserError when not even a single frame fits, or when a frame's numbers are not finite.
    """
    solver = schedule.solver(steps.start, step_noise)
    latents = latents * schedule.latent_scale(steps.start)
    for number, index in enumerate(steps, start=1):
        shown = solver.model_input(latents, index)
        timestep = schedule.timesteps[index]
        outputs: list[torch.Tensor] = []
        begin = 0
        while begin < len(latents):
            frames = slice(begin, min(begin + chunk_size, len(latents)) if begin else 1)  # the anchor goes alone
            try:
                with _attending(memory, anchor=not begin):
                    outputs.append(predict_noise(shown[frames], timestep, frames))
            except torch.OutOfMemoryError as error:
                chunk_size = _halved(frames, error)
                continue
            _refuse_non_finite(outputs[-1], begin, number)
            begin = frames.stop
            if begin < len(latents):
                yield ChunkDone(number, len(steps), len(outputs[-1]), None)
        output = torch.cat(outputs)
        in_paper_scale = latents / schedule.latent_scale(index)
        clean, _ = schedule.clean_and_noise(output, index, in_paper_scale)
        latents = solver.step(output, index, latents)
        yield ChunkDone(number, len(steps), len(outputs[-1]), clean)
    return latents / schedule.latent_scale(steps.stop)


def _attending(memory: FrameMemory | None, *, anchor: bool) -> AbstractContextManager[None]:
    if memory is None:
        return nullcontext()
    return memory.anchor_pass() if anchor else memory.chunk_pass()


def _halved(frames: slice, error: torch.OutOfMemoryError) -> int:
    """The chunk size to go on with after a chunk of these frames did not fit; the result does not depend on it."""
    count = frames.stop - frames.start
    if count == 1:
        raise UserError(
            "The memory does not hold even one frame at a time: choose a smaller size, close other programs that "
            "use the device, or run on the CPU (--device cpu)."
        ) from error
    return count // 2


def _refuse_non_finite(noise: torch.Tensor, begin: int, step: int) -> None:
    """Raises UserError, naming the frame, rather than sampling on towards a black picture."""
    finite = noise.isfinite().flatten(1).all(1)
    if not finite.all():
        frame = begin + int(finite.logical_not().nonzero()[0])
        raise UserError(
            f"Frame {frame} came out of step {step} with numbers that are not finite: use another seed or a lower "
            "guidance scale, or run in full precision (--device cpu)."
        )

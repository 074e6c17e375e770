"""Noise: that of one frame, and a path of it through the frames of a clip."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from text2video_zero.models.pipeline import Pipeline
    from text2video_zero.requests import Size, VideoRequest
    from text2video_zero.sampling.schedule import Schedule, StepNoise

KERNEL_RADIUS = 4
"""Where the kernel of a path ends, in units of its smoothness: at exp(-8) of its height."""
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
    shape = latent_shape(request.size, pipeline)
    device = pipeline.device
    return lambda index: frame_noise(request.seed, 0, shape, device, draw=int(schedule.timesteps[index + 1]))


@dataclass(frozen=True)
class NoisePath:
    """Noise that turns into other noise from frame to frame: a stationary Gaussian process that begins at an anchor.

    ε_k = Σ_j w_j·η_{k+j} / sqrt(Σ_j w_j²) with w_j = exp(-j²/2τ²) and η_j drawn from (seed, j): every ε_k is
    N(0, I), and those d frames apart correlate by ρ(d), about exp(-d²/4τ²). With τ = 0 each is a frame's own,
    `frame_noise`. What a frame gets hangs on (seed, frame) alone, save in a loop, which hangs on its period too.

    smoothness: τ in frames, >= 0.
    period: the number of frames of a loop, after which the path is where it began; None for a path without end.
    draw: as in `frame_noise`.
    """

    seed: int
    shape: tuple[int, ...]
    smoothness: float
    period: int | None = None
    draw: int = 0
    _drawn: dict[int, torch.Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def leaving(self, anchor: torch.Tensor, frame: int, spread: float = 1.0) -> torch.Tensor:
        """ρ(k)·anchor + spread·(ε_k - ρ(k)·ε_0), float32 on the anchor's device: the path, given where it begins.

        anchor: (*shape).  frame: k, 0-based; frame 0 is the anchor.
        spread: with 1 a standard normal anchor has standard normal noise after it.

        The path's own noises are drawn apart from `frame_noise` of frame 0, so that an anchor which comes of that
        is independent of them.
        """
        kept = self.correlation(frame)
        fresh = (self._at(frame) - kept * self._start).to(anchor.device)
        return kept * anchor + spread * fresh

    @cached_property
    def _start(self) -> torch.Tensor:
        return self._at(0)

    def correlation(self, distance: int) -> float:
        """ρ between frames that are some frames apart: 1 at 0, and exactly 0 out of the kernel's reach."""
        weights = self._weights
        shifted = {self._place(offset + distance): weight for offset, weight in weights.items()}
        return sum(weight * shifted.get(offset, 0.0) for offset, weight in weights.items())

    @cached_property
    def _weights(self) -> dict[int, float]:
        """Weights of unit energy by offset; in a loop the kernel is wound around it."""
        radius = math.ceil(KERNEL_RADIUS * self.smoothness)
        kernel: dict[int, float] = {}
        for offset in range(-radius, radius + 1):
            height = math.exp(-((offset / self.smoothness) ** 2) / 2) if offset else 1.0
            place = self._place(offset)
            kernel[place] = kernel.get(place, 0.0) + height
        energy = math.sqrt(sum(weight**2 for weight in kernel.values()))
        return {offset: weight / energy for offset, weight in kernel.items()}

    def _place(self, frame: int) -> int:
        return frame if self.period is None else frame % self.period

    def _at(self, frame: int) -> torch.Tensor:
        path = torch.zeros(self.shape)
        for offset, weight in self._weights.items():
            path += weight * self._innovation(self._place(frame + offset))
        return path

    def _innovation(self, index: int) -> torch.Tensor:
        if index not in self._drawn:
            frame = index if index > 0 else index - 1  # number 0 is the anchor's
            self._drawn[index] = frame_noise(self.seed, frame, self.shape, "cpu", self.draw)
        return self._drawn[index]

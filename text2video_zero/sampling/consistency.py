"""Sampling in few steps with latent consistency models (Luo et al. 2023, "Latent Consistency Models", LCM)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from text2video_zero.errors import UserError

if TYPE_CHECKING:
    import torch

    from text2video_zero.sampling.schedule import Schedule, StepNoise

LCM = "LCM"
STRIDE = 20
"""Timesteps from one point of the grid that LCM was distilled on to the next: 19, 39, …, 999."""

DATA_DEVIATION, TIMESTEP_SCALE = 0.5, 10.0  # of the boundary condition, as it was trained


def lcm_timesteps(steps: int, trained: int) -> tuple[int, ...]:
    """The whole grid in `steps` steps, as diffusers' LCMScheduler divides it; `trained` timesteps in all.

    Raises UserError where the grid has fewer points.
    """
    points = trained // STRIDE
    _refuse_too_many(steps, points)
    return tuple(STRIDE * (points - points * step // steps) - 1 for step in range(steps))


def lcm_timesteps_from(timestep: float, steps: int, trained: int) -> tuple[int, ...]:
    """From the point of the grid nearest to a timestep to the end, evenly as far as the grid allows.

    Rounded down, so that 4 steps from 939 keep the stride of 4 steps from 999: 939, 699, 459, 219. Raises
    UserError where fewer points are left.
    """
    points = _point(timestep, trained)
    _refuse_too_many(steps, points)
    return tuple(STRIDE * (points * (steps - step) // steps) - 1 for step in range(steps))


def lcm_timesteps_of_motion(motion_from: float, motion_to: float, trained: int) -> tuple[int, ...]:
    """Where the first frame goes alone: from the top of the grid to T and on to T', T first where T is the top."""
    point_to = max(_point(motion_to, trained), 2)
    point_from = min(_point(motion_from, trained), point_to - 1)
    points = sorted({trained // STRIDE, point_to, point_from}, reverse=True)
    return tuple(STRIDE * point - 1 for point in points)


def _point(timestep: float, trained: int) -> int:
    """Number of the nearest point of the grid, from 1."""
    return min(max(round((timestep + 1) / STRIDE), 1), trained // STRIDE)


def _refuse_too_many(steps: int, points: int) -> None:
    if steps > points:
        raise UserError(f"Steps is {steps}, but the sampler LCM has {points} at most: give fewer, 4 to 8 are usual.")


@dataclass(frozen=True)
class ConsistencySolver:
    """Multistep consistency sampling (Luo et al. 2023, algorithm 3): to x_0 at once, and back with fresh noise.

    step_noise: the noise of each step; the last one adds none.
    """

    schedule: Schedule
    step_noise: StepNoise

    def model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:  # noqa: ARG002
        """What the UNet is shown: the latents as they are."""
        return latents

    def step(self, model_output: torch.Tensor, index: int, latents: torch.Tensor) -> torch.Tensor:
        """Latents at timestep number index + 1 from those at index."""
        clean, _ = self.schedule.clean_and_noise(model_output, index, latents)
        scaled = TIMESTEP_SCALE * self.schedule.timesteps[index]
        distance = math.hypot(scaled, DATA_DEVIATION)
        denoised = (DATA_DEVIATION / distance) ** 2 * latents + scaled / distance * clean
        alpha = self.schedule.alphas[index + 1]
        if alpha == 1:
            return denoised
        return math.sqrt(alpha) * denoised + math.sqrt(1 - alpha) * self.step_noise(index).to(denoised)

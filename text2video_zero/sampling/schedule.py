"""Timesteps of a run and the noise levels at them, cut into segments that begin and end where the method wants.

Latents that cross the border of a segment are always in the variance-preserving scale of the paper,
x_t = sqrt(ᾱ_t)·x_0 + sqrt(1-ᾱ_t)·ε, whatever scale the sampler works in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from text2video_zero.errors import FieldError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

LCM_STRIDE = 20
"""Timesteps from one point of the grid that LCM was distilled on to the next: 19, 39, …, 999."""


@dataclass(frozen=True)
class Schedule:
    """Timesteps of a whole run in falling order.

    sampler: name of the sampler that steps through them.
    training: what the model's own scheduler records of the noise levels it was trained with.
    timesteps: what the UNet is told, one per step.
    alphas: ᾱ at each of them, and at the end of the run (steps + 1 values).
    spacing: of the timesteps, as the model's own scheduler has it: a key of SPACINGS.
    """

    sampler: str
    training: Mapping[str, Any]
    timesteps: tuple[float, ...]
    alphas: tuple[float, ...]
    spacing: str = "leading"

    @property
    def prediction_type(self) -> str:
        """What the UNet was trained to predict: "epsilon", "v_prediction" or "sample", which is x_0 itself."""
        return self.training.get("prediction_type", "epsilon")

    def snapped(self, timestep: float) -> int:
        """Number of the step whose timestep is nearest."""
        return min(range(len(self.timesteps)), key=lambda index: abs(self.timesteps[index] - timestep))

    def motion_steps(self, motion_from: float, motion_to: float) -> tuple[int, int]:
        """Numbers of the steps nearest to T' and T, T before T' also where both are nearest to one step."""
        index_to = min(self.snapped(motion_to), len(self.timesteps) - 2)
        return max(self.snapped(motion_from), index_to + 1), index_to

    def timesteps_within(self, start: float, end: float, begin: int = 0) -> frozenset[float]:
        """Timesteps of the steps that lie wholly in the share start..end of the run, as diffusers counts them.

        begin: number of the step that the run begins with; those before it are no part of it.
        """
        taken = self.timesteps[begin:]
        return frozenset(
            timestep
            for index, timestep in enumerate(taken)
            if index / len(taken) >= start and (index + 1) / len(taken) <= end
        )

    def clean_and_noise(
        self, model_output: torch.Tensor, index: int, latents: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Estimates of x_0 and ε from variance-preserving latents at step number `index`."""
        signal, sigma = math.sqrt(self.alphas[index]), math.sqrt(1 - self.alphas[index])
        if self.prediction_type == "v_prediction":
            return signal * latents - sigma * model_output, signal * model_output + sigma * latents
        if self.prediction_type == "sample":
            return model_output, (latents - signal * model_output) / sigma
        return (latents - sigma * model_output) / signal, model_output


def leading_timesteps(steps: int, trained: int) -> tuple[int, ...]:
    """The "leading" spacing with an offset of 1, for numbers of steps that do not divide `trained` too."""
    return tuple(trained * (step - 1) // steps + 1 for step in range(steps, 0, -1))


def trailing_timesteps(steps: int, trained: int) -> tuple[int, ...]:
    """From the very last timestep on, which models want that were distilled to few steps."""
    return tuple(round(trained * step / steps) - 1 for step in range(steps, 0, -1))


def even_timesteps(steps: int, trained: int) -> tuple[int, ...]:
    """The "linspace" spacing: both ends of the range, and what lies evenly between them."""
    gaps = max(steps - 1, 1)
    return tuple(round((trained - 1) * step / gaps) for step in range(gaps, gaps - steps, -1))


# What a scheduler's configuration may say of the timesteps
SPACINGS: Mapping[str, Callable[[int, int], tuple[int, ...]]] = MappingProxyType(
    {"leading": leading_timesteps, "linspace": even_timesteps, "trailing": trailing_timesteps}
)


def lcm_timesteps(steps: int, trained: int) -> tuple[int, ...]:
    """The whole grid in `steps` steps, as diffusers' LCMScheduler divides it; `trained` timesteps in all.

    Raises UserError where the grid has fewer points.
    """
    points = trained // LCM_STRIDE
    _check_steps(steps, points)
    return tuple(LCM_STRIDE * (points - points * step // steps) - 1 for step in range(steps))


def lcm_timesteps_from(timestep: float, steps: int, trained: int) -> tuple[int, ...]:
    """From the point of the grid nearest to a timestep to the end, by strides as of so many steps over the whole grid.

    Evenly as far as the grid allows, and rounded down, so that 4 steps go on from 939 as they do from 999: 939, 699,
    459, 219. Raises UserError where the whole grid has fewer points.
    """
    points, top = _point(timestep, trained), trained // LCM_STRIDE
    _check_steps(steps, top)
    strides = math.ceil(points * steps / top)
    return tuple(LCM_STRIDE * (points * (strides - stride) // strides) - 1 for stride in range(strides))


def lcm_timesteps_of_motion(motion_from: float, motion_to: float, steps: int, trained: int) -> tuple[int, ...]:
    """Where the first frame goes alone: from the top of the grid to T and on to T', T first where T is the top.

    It comes to T by strides as of `steps` steps over the whole grid.
    """
    top = trained // LCM_STRIDE
    point_to = max(_point(motion_to, trained), 2)
    point_from = min(_point(motion_from, trained), point_to - 1)
    strides = math.ceil((top - point_to) * steps / top)
    points = [top - (top - point_to) * stride // strides for stride in range(strides)]
    return tuple(LCM_STRIDE * point - 1 for point in (*points, point_to, point_from))


def _check_steps(steps: int, points: int) -> None:
    if steps > points:
        raise FieldError(f"Steps is {steps}, but the sampler LCM has {points} at most: give fewer, 4 to 8 are usual.")


def _point(timestep: float, trained: int) -> int:
    """Number of the nearest point of the grid, from 1."""
    return min(max(round((timestep + 1) / LCM_STRIDE), 1), trained // LCM_STRIDE)

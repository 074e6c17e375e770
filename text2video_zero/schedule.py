"""Timesteps and steps of a sampler, cut into segments that begin and end where the method wants.

Latents that cross the border of a segment are always in the variance-preserving scale of the paper,
x_t = sqrt(ᾱ_t)·x_0 + sqrt(1-ᾱ_t)·ε, whatever scale the sampler works in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from diffusers import SchedulerMixin

MULTISTEP_SAMPLERS = {
    "DPM++ 2M": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "UniPC": (UniPCMultistepScheduler, {"solver_order": 2}),
    "Euler": (EulerDiscreteScheduler, {}),
}
TRAINING_OPTIONS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")


class Solver(Protocol):
    """Steps through one segment; made anew for each, because multistep samplers remember earlier steps."""

    def model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """What the UNet is shown."""

    def step(self, model_output: torch.Tensor, index: int, latents: torch.Tensor) -> torch.Tensor:
        """Latents at timestep number index + 1 from those at index."""


@dataclass(frozen=True)
class Schedule:
    """Timesteps of a whole run in falling order.

    timesteps: what the UNet is told, one per step.
    alphas: ᾱ at each of them, and at the end of the run (steps + 1 values).
    prediction_type: what the UNet predicts, "epsilon" or "v_prediction".
    """

    sampler: str
    training: Mapping[str, object]
    timesteps: tuple[float, ...]
    alphas: tuple[float, ...]

    @classmethod
    def of(cls, sampler: str, steps: int, scheduler: SchedulerMixin) -> Schedule:
        """The schedule of `steps` >= 1 steps for the noise levels that the model's own scheduler records."""
        training = {name: scheduler.config[name] for name in TRAINING_OPTIONS if name in scheduler.config}
        if sampler == "DDIM":
            trained = scheduler.config.num_train_timesteps
            # The "leading" spacing with an offset of 1, for step counts that do not divide it too.
            timesteps = tuple(float(trained * step // steps + 1) for step in reversed(range(steps)))
            alphas = [scheduler.alphas_cumprod[int(timestep)].item() for timestep in timesteps]
            return cls(sampler, training, timesteps, (*alphas, scheduler.alphas_cumprod[0].item()))
        library = _library_scheduler(sampler, training, steps)
        timesteps = tuple(library.timesteps.double().tolist())
        alphas = tuple((1 / (1 + library.sigmas.double() ** 2)).tolist())
        return cls(sampler, training, timesteps, alphas)

    @property
    def prediction_type(self) -> object:
        """What the UNet was trained to predict."""
        return self.training.get("prediction_type", "epsilon")

    def snapped(self, timestep: float) -> int:
        """Number of the step whose timestep is nearest."""
        return min(range(len(self.timesteps)), key=lambda index: abs(self.timesteps[index] - timestep))

    def motion_steps(self, motion_from: float, motion_to: float) -> tuple[int, int]:
        """Numbers of the steps nearest to T' and T, T before T' also where both are nearest to one step."""
        index_to = min(self.snapped(motion_to), len(self.timesteps) - 2)
        return max(self.snapped(motion_from), index_to + 1), index_to

    def solver(self, begin: int) -> Solver:
        """A solver for a segment whose first step is number `begin`."""
        if self.sampler == "DDIM":
            return DDIM(self)
        scheduler = _library_scheduler(self.sampler, self.training, len(self.timesteps))
        scheduler.set_begin_index(begin)
        return LibrarySolver(scheduler)

    def latent_scale(self, index: int) -> float:
        """Standard deviation in the sampler's own scale over that of the variance-preserving one."""
        return 1 / math.sqrt(self.alphas[index]) if self.sampler == "Euler" else 1.0

    def clean_and_noise(
        self, model_output: torch.Tensor, index: int, latents: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Estimates of x_0 and ε from variance-preserving latents at step number `index`."""
        signal, sigma = math.sqrt(self.alphas[index]), math.sqrt(1 - self.alphas[index])
        if self.prediction_type == "v_prediction":
            return signal * latents - sigma * model_output, signal * model_output + sigma * latents
        return (latents - sigma * model_output) / signal, model_output


@dataclass(frozen=True)
class DDIM:
    """DDIM with η = 0 (Song et al. 2020, equation 12) on the timesteps of a schedule, evenly divided or not."""

    schedule: Schedule

    def model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:  # noqa: ARG002
        """What the UNet is shown: the latents as they are."""
        return latents

    def step(self, model_output: torch.Tensor, index: int, latents: torch.Tensor) -> torch.Tensor:
        """Latents at timestep number index + 1 from those at index."""
        clean, noise = self.schedule.clean_and_noise(model_output, index, latents)
        alpha = self.schedule.alphas[index + 1]
        return math.sqrt(alpha) * clean + math.sqrt(1 - alpha) * noise


@dataclass(frozen=True)
class LibrarySolver:
    """A scheduler of diffusers, which keeps its own count of steps."""

    scheduler: SchedulerMixin

    def model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """What the UNet is shown: the latents scaled as the scheduler asks."""
        return self.scheduler.scale_model_input(latents, self.scheduler.timesteps[index])

    def step(self, model_output: torch.Tensor, index: int, latents: torch.Tensor) -> torch.Tensor:
        """Latents at timestep number index + 1 from those at index."""
        return self.scheduler.step(model_output, self.scheduler.timesteps[index], latents).prev_sample


def _library_scheduler(sampler: str, training: Mapping[str, object], steps: int) -> SchedulerMixin:
    scheduler_class, options = MULTISTEP_SAMPLERS[sampler]
    # Spaced over the whole range at any number of steps, which "leading" is not.
    scheduler = scheduler_class(**training, **options, timestep_spacing="linspace")
    scheduler.set_timesteps(steps)
    return scheduler

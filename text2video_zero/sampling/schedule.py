"""Timesteps and steps of a sampler, cut into segments that begin and end where the method wants.

Latents that cross the border of a segment are always in the variance-preserving scale of the paper,
x_t = sqrt(ᾱ_t)·x_0 + sqrt(1-ᾱ_t)·ε, whatever scale the sampler works in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler

from text2video_zero.sampling.consistency import (
    LCM,
    ConsistencySolver,
    lcm_timesteps,
    lcm_timesteps_from,
    lcm_timesteps_of_motion,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from diffusers import SchedulerMixin

TRAILING = "DDIM trailing"
ANCESTRAL = "Euler ancestral"
LIBRARY_SCHEDULERS = {
    "DPM++ 2M": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "UniPC": (UniPCMultistepScheduler, {"solver_order": 2}),
    "Euler": (EulerDiscreteScheduler, {}),
    ANCESTRAL: (EulerDiscreteScheduler, {}),  # for its timesteps; its steps are ours
}
TRAINING_OPTIONS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")


# Number of a step -> noise (f, c, h, w), or (c, h, w) for all frames, that is added after it
StepNoise = Callable[[int], torch.Tensor]


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
        trained = scheduler.config.num_train_timesteps
        countdown = range(steps, 0, -1)
        if sampler == "DDIM":
            # The "leading" spacing with an offset of 1, for step counts that do not divide it too.
            return cls.at((trained * (step - 1) // steps + 1 for step in countdown), sampler, scheduler)
        if sampler == TRAILING:  # which models want that were distilled to few steps
            return cls.at((round(trained * step / steps) - 1 for step in countdown), sampler, scheduler)
        if sampler == LCM:
            return cls.at(lcm_timesteps(steps, trained), sampler, scheduler)
        training = _training(scheduler)
        library = _library_scheduler(sampler, training, steps)
        timesteps = tuple(library.timesteps.double().tolist())
        alphas = tuple((1 / (1 + library.sigmas.double() ** 2)).tolist())
        return cls(sampler, training, timesteps, alphas)

    @classmethod
    def at(cls, timesteps: Iterable[int], sampler: str, scheduler: SchedulerMixin) -> Schedule:
        """The schedule of a sampler that can step from any timestep to any lower one: DDIM and LCM."""
        timesteps = tuple(timesteps)
        levels = scheduler.alphas_cumprod
        end = 1.0 if sampler == LCM else levels[0].item()
        alphas = (*(levels[timestep].item() for timestep in timesteps), end)
        return cls(sampler, _training(scheduler), tuple(map(float, timesteps)), alphas)

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

    def timesteps_within(self, start: float, end: float) -> frozenset[float]:
        """Timesteps of the steps that lie wholly in the share start..end of the run, as diffusers counts them."""
        steps = len(self.timesteps)
        return frozenset(
            timestep
            for index, timestep in enumerate(self.timesteps)
            if index / steps >= start and (index + 1) / steps <= end
        )

    def solver(self, begin: int, step_noise: StepNoise | None = None) -> Solver:
        """A solver for a segment whose first step is number `begin`; step_noise is for those that add some."""
        if self.sampler in ("DDIM", TRAILING):
            return DDIM(self)
        if self.sampler == LCM:
            return ConsistencySolver(self, step_noise)
        if self.sampler == ANCESTRAL:
            return EulerAncestral(self, step_noise)
        scheduler = _library_scheduler(self.sampler, self.training, len(self.timesteps))
        scheduler.set_begin_index(begin)
        return LibrarySolver(scheduler)

    def latent_scale(self, index: int) -> float:
        """Standard deviation in the sampler's own scale over that of the variance-preserving one."""
        return 1 / math.sqrt(self.alphas[index]) if self.sampler in ("Euler", ANCESTRAL) else 1.0

    def clean_and_noise(
        self, model_output: torch.Tensor, index: int, latents: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Estimates of x_0 and ε from variance-preserving latents at step number `index`."""
        signal, sigma = math.sqrt(self.alphas[index]), math.sqrt(1 - self.alphas[index])
        if self.prediction_type == "v_prediction":
            return signal * latents - sigma * model_output, signal * model_output + sigma * latents
        return (latents - sigma * model_output) / signal, model_output


@dataclass(frozen=True)
class MotionPlan:
    """The schedules of a text-to-video clip: the first frame goes alone to T and T', then all go from T on.

    opening: what the first frame goes through alone, with T at step number `at_to` and T' at `at_from`.
    joint: what all frames go through together, from step number `begin`, which is at T.
    """

    opening: Schedule
    at_to: int
    at_from: int
    joint: Schedule
    begin: int

    @classmethod
    def without_motion(cls, schedule: Schedule) -> MotionPlan:
        """All frames go together from the start."""
        return cls(schedule, 0, 0, schedule, 0)

    @classmethod
    def of(
        cls, sampler: str, steps: int, scheduler: SchedulerMixin, motion_from: float, motion_to: float
    ) -> MotionPlan:
        """The plan with T' and T at the nearest steps.

        The few steps of LCM are too coarse for that: there T' and T lie on the finer grid that it was distilled
        on, and all `steps` steps come after T.
        """
        if sampler == LCM:
            trained = scheduler.config.num_train_timesteps
            opening = Schedule.at(lcm_timesteps_of_motion(motion_from, motion_to, trained), sampler, scheduler)
            at_from = len(opening.timesteps) - 1
            top = opening.timesteps[at_from - 1]
            joint = Schedule.at(lcm_timesteps_from(top, steps, trained), sampler, scheduler)
            return cls(opening, at_from - 1, at_from, joint, 0)
        schedule = Schedule.of(sampler, steps, scheduler)
        at_from, at_to = schedule.motion_steps(motion_from, motion_to)
        return cls(schedule, at_to, at_from, schedule, at_to)


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
class EulerAncestral:
    """Euler steps that add fresh noise (Karras et al. 2022; k-diffusion's sampler), in the scale x_0 + σ·ε.

    diffusers' scheduler draws this noise itself, for each frame anew, which makes a clip flicker; here the
    caller gives it.
    """

    schedule: Schedule
    step_noise: StepNoise

    def model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """What the UNet is shown: the latents in the paper's scale."""
        return latents * math.sqrt(self.schedule.alphas[index])

    def step(self, model_output: torch.Tensor, index: int, latents: torch.Tensor) -> torch.Tensor:
        """Latents at timestep number index + 1 from those at index."""
        sigma, sigma_next = (math.sqrt((1 - alpha) / alpha) for alpha in self.schedule.alphas[index : index + 2])
        clean, noise = self.schedule.clean_and_noise(model_output, index, self.model_input(latents, index))
        added = sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2)
        kept = math.sqrt(sigma_next**2 - added**2)
        stepped = clean + kept * noise
        return stepped + added * self.step_noise(index).to(stepped) if added else stepped


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


def _training(scheduler: SchedulerMixin) -> dict[str, object]:
    return {name: scheduler.config[name] for name in TRAINING_OPTIONS if name in scheduler.config}


def _library_scheduler(sampler: str, training: Mapping[str, object], steps: int) -> SchedulerMixin:
    scheduler_class, options = LIBRARY_SCHEDULERS[sampler]
    # Spaced over the whole range at any number of steps, which "leading" is not.
    scheduler = scheduler_class(**training, **options, timestep_spacing="linspace")
    scheduler.set_timesteps(steps)
    return scheduler

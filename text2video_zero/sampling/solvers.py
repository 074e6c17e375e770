"""The samplers: one record each in one table, and the solvers that step from timestep to timestep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, cast

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from text2video_zero.sampling.schedule import (
    SPACINGS,
    Schedule,
    lcm_timesteps,
    lcm_timesteps_from,
    lcm_timesteps_of_motion,
    trailing_timesteps,
)

AnyLibraryScheduler = EulerDiscreteScheduler | DPMSolverMultistepScheduler | UniPCMultistepScheduler

TRAINING_OPTIONS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
)
GREATEST_BETA = 0.999  # as diffusers has it for its own; from levels without any signal σ would not be finite
LEAST_LEVEL = 2**-24  # ᾱ where a model was trained down to no signal at all, as diffusers has it: σ stays finite
DATA_DEVIATION, TIMESTEP_SCALE = 0.5, 10.0  # of LCM's boundary condition, as it was trained

# Number of a step -> noise (f, c, h, w), or (c, h, w) for all frames, that is added after it
StepNoise = Callable[[int], torch.Tensor]


class TrainedNoise(Protocol):
    """A model's own scheduler of diffusers, as far as the schedules look at it: the noise it was trained with.

    config: a FrozenDict of diffusers.  alphas_cumprod: ᾱ by timestep.
    """

    @property
    def config(self) -> Any: ...  # noqa: D102

    alphas_cumprod: torch.Tensor


class Solver(Protocol):
    """Steps through one segment; made anew for each, because multistep samplers remember earlier steps."""

    def model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """What the UNet is shown."""
        ...

    def step(self, model_output: torch.Tensor, index: int, latents: torch.Tensor) -> torch.Tensor:
        """Latents at timestep number index + 1 from those at index."""
        ...

    def memory(self) -> dict[str, Any]:
        """What it remembers of earlier steps: tensors, numbers, lists of them, or None."""
        ...

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Remember that, as if it had taken the steps itself."""
        ...


class OneStepSolver:
    """A solver to which each step is the first."""

    def memory(self) -> dict[str, Any]:
        """Nothing is remembered."""
        return {}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Nothing is to be remembered."""


@dataclass(frozen=True)
class DDIM(OneStepSolver):
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
class EulerAncestral(OneStepSolver):
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
class ConsistencySolver(OneStepSolver):
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


@dataclass(frozen=True)
class LibrarySolver:
    """A scheduler of diffusers, which keeps its own count of steps."""

    scheduler: AnyLibraryScheduler
    remembering: tuple[str, ...]

    def model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """What the UNet is shown: the latents scaled as the scheduler asks."""
        return self.scheduler.scale_model_input(latents, self.scheduler.timesteps[index])

    def step(self, model_output: torch.Tensor, index: int, latents: torch.Tensor) -> torch.Tensor:
        """Latents at timestep number index + 1 from those at index."""
        return self.scheduler.step(model_output, self.scheduler.timesteps[index], latents, return_dict=False)[0]

    def memory(self) -> dict[str, Any]:
        """What it remembers of earlier steps; its lists change with the next."""
        return {name: getattr(self.scheduler, name) for name in self.remembering}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Remember that, as if it had taken the steps itself."""
        for name in self.remembering:
            setattr(self.scheduler, name, memory[name])


@dataclass(frozen=True)
class LibraryScheduler:
    """A class of diffusers' schedulers, with which options it is made, and which attributes its steps change."""

    scheduler_class: type[AnyLibraryScheduler]
    options: Mapping[str, Any]
    remembering: tuple[str, ...] = ("_step_index",)

    def made(self, training: Mapping[str, Any], steps: int, spacing: str) -> AnyLibraryScheduler:
        """A new one for the noise levels that a model was trained with, spaced over the whole range.

        spacing: as the model's own scheduler has it. "leading", which is what it says where nobody chose, becomes
            "linspace": it does not reach the first timesteps at every number of steps.
        """
        reaching = "linspace" if spacing == "leading" else spacing
        options: dict[str, Any] = {**training, **self.options, "timestep_spacing": reaching}
        scheduler = self.scheduler_class(**options)
        scheduler.set_timesteps(steps)
        return scheduler

    def solver(self, schedule: Schedule, begin: int, step_noise: StepNoise) -> LibrarySolver:  # noqa: ARG002
        """A solver that is at step number `begin`."""
        scheduler = self.made(schedule.training, len(schedule.timesteps), schedule.spacing)
        scheduler.set_begin_index(begin)
        return LibrarySolver(scheduler, self.remembering)


@dataclass(frozen=True)
class MotionTimesteps:
    """For samplers of few steps, too coarse for T' and T: finer timesteps around the motion.

    opening: (T', T, steps, how many timesteps there are) -> those of the first frame alone, T and T' the last of them.
    joint: (T, steps, how many timesteps there are) -> those of all frames.
    """

    opening: Callable[[float, float, int, int], tuple[int, ...]]
    joint: Callable[[float, int, int], tuple[int, ...]]


@dataclass(frozen=True)
class Sampler:
    """Everything about a sampler.

    timesteps: (steps, how many timesteps there are) -> those of a run; or the scheduler that chooses them; None
        where they are spaced as the model's own scheduler says.
    solver: (schedule, number of the first step, noise for steps that add some) -> what steps through a segment.
    latent_scale: ᾱ -> standard deviation in the sampler's own scale over that of the variance-preserving one.
    ends_clean: a run ends at ᾱ = 1, and not at the model's lowest noise level.
    motion: where T' and T do not lie on the run's own timesteps.
    """

    timesteps: Callable[[int, int], tuple[int, ...]] | LibraryScheduler | None
    solver: Callable[[Schedule, int, StepNoise], Solver]
    latent_scale: Callable[[float], float] = lambda _alpha: 1.0
    ends_clean: bool = False
    motion: MotionTimesteps | None = None


def _variance_exploding(alpha: float) -> float:
    return 1 / math.sqrt(alpha)


def _ddim(schedule: Schedule, _begin: int, _step_noise: StepNoise) -> Solver:
    return DDIM(schedule)


EULER = LibraryScheduler(EulerDiscreteScheduler, {})
DPM = LibraryScheduler(
    DPMSolverMultistepScheduler,
    {"algorithm_type": "dpmsolver++", "solver_order": 2},
    ("_step_index", "model_outputs", "lower_order_nums"),
)
UNI_PC = LibraryScheduler(
    UniPCMultistepScheduler,
    {"solver_order": 2},
    ("_step_index", "model_outputs", "lower_order_nums", "timestep_list", "last_sample", "this_order"),
)

# By the name that requests choose by; requests/video.py lists them too, because requests know no torch.
SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "DDIM": Sampler(None, _ddim),
        "DPM++ 2M": Sampler(DPM, DPM.solver),
        "UniPC": Sampler(UNI_PC, UNI_PC.solver),
        "Euler": Sampler(EULER, EULER.solver, _variance_exploding),
        # For models that were distilled to few steps.
        "DDIM trailing": Sampler(trailing_timesteps, _ddim),
        "LCM": Sampler(
            lcm_timesteps,
            lambda schedule, _, step_noise: ConsistencySolver(schedule, step_noise),
            ends_clean=True,
            motion=MotionTimesteps(lcm_timesteps_of_motion, lcm_timesteps_from),
        ),
        # InstructPix2Pix's own.
        "Euler ancestral": Sampler(
            EULER, lambda schedule, _, step_noise: EulerAncestral(schedule, step_noise), _variance_exploding
        ),
    }
)


# By the name that requests choose by, as SAMPLERS. Without signal at the top, a run has to begin at the top.
CORRECTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "as the model says": {},
        "epsilon": {"prediction_type": "epsilon", "rescale_betas_zero_snr": False},
        "v-prediction": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": False},
        "v-prediction, zero SNR": {
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": True,
            "timestep_spacing": "trailing",
        },
        "sample": {"prediction_type": "sample", "rescale_betas_zero_snr": False},
    }
)


def schedule_of(sampler: str, steps: int, scheduler: TrainedNoise) -> Schedule:
    """The schedule of `steps` >= 1 steps for the noise levels that the model's own scheduler records."""
    spacing = scheduler.config.get("timestep_spacing", "leading")
    timesteps_of = SAMPLERS[sampler].timesteps or SPACINGS[spacing]
    if not isinstance(timesteps_of, LibraryScheduler):
        return schedule_at(timesteps_of(steps, scheduler.config.num_train_timesteps), sampler, scheduler)
    training = _training(scheduler)
    library = timesteps_of.made(training, steps, spacing)
    timesteps = tuple(library.timesteps.double().tolist())
    alphas = tuple((1 / (1 + library.sigmas.double() ** 2)).tolist())
    return Schedule(sampler, training, timesteps, alphas, spacing)


def schedule_at(timesteps: tuple[int, ...], sampler: str, scheduler: TrainedNoise) -> Schedule:
    """The schedule of a sampler that can step from any timestep to any lower one: DDIM and LCM."""
    training = _training(scheduler)
    # Of the training's options alone: not every class of schedulers knows all of them.
    levels = DDIMScheduler(**training).alphas_cumprod.clamp_min(LEAST_LEVEL)
    end = 1.0 if SAMPLERS[sampler].ends_clean else levels[0].item()
    alphas = (*(levels[timestep].item() for timestep in timesteps), end)
    return Schedule(sampler, training, tuple(map(float, timesteps)), alphas)


def scheduler_told(scheduler: TrainedNoise, prediction: str) -> TrainedNoise:
    """The model's scheduler, or one that a person corrects by hand; only what it records is of use.

    prediction: one of PREDICTIONS in requests/video.py.
    """
    corrections = CORRECTIONS[prediction]
    if not corrections:
        return scheduler
    # As options, not in the configuration: there diffusers takes the default of what the model itself left to it.
    return cast("DDIMScheduler", DDIMScheduler.from_config(scheduler.config, **corrections))


def _training(scheduler: TrainedNoise) -> dict[str, Any]:
    told = {name: scheduler.config[name] for name in TRAINING_OPTIONS if name in scheduler.config}
    if told.get("trained_betas") is not None:
        told["trained_betas"] = [min(beta, GREATEST_BETA) for beta in told["trained_betas"]]
    return told

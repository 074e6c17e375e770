"""The table of samplers: it holds what requests offer, and each of its samplers finds the picture it is told."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers import scheduling_euler_ancestral_discrete

from tests.tiny_models import stable_diffusion_scheduler
from text2video_zero.device.offload import Placement
from text2video_zero.requests import REQUESTS
from text2video_zero.requests.video import PREDICTIONS
from text2video_zero.sampling.denoising import denoise
from text2video_zero.sampling.noise import frame_noise
from text2video_zero.sampling.solvers import (
    CORRECTIONS,
    SAMPLERS,
    ConsistencySolver,
    EulerAncestral,
    schedule_at,
    schedule_of,
    scheduler_told,
)

SHAPE = (4, 8, 8)
STEPS = 6
# What a model's scheduler_config.json may say beside Stable Diffusion's own noise levels
ZERO_SNR = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
TOLD = {
    "epsilon": {"prediction_type": "epsilon"},
    "v-prediction": {"prediction_type": "v_prediction"},
    "sample": {"prediction_type": "sample"},
    "zero SNR": ZERO_SNR,
    "even spacing": {"timestep_spacing": "linspace"},
    "trailing": {"timestep_spacing": "trailing"},
    "levels of its own": {"trained_betas": torch.linspace(1e-4, 0.02, 1000).tolist()},
    "few timesteps of its own": {"trained_betas": torch.linspace(1e-3, 0.06, 400).tolist(), "num_train_timesteps": 400},
}


def scheduler_for(prediction_type="epsilon", scheduler_class=DDIMScheduler, **changes):
    """The noise levels of Stable Diffusion, with another thing predicted."""
    changes = {"prediction_type": prediction_type, "timestep_spacing": "leading", **changes}
    return scheduler_class.from_config(stable_diffusion_scheduler().config, **changes)


def drained(loop):
    """What a generator yields, and what it returns."""
    yielded = []
    while True:
        try:
            yielded.append(next(loop))
        except StopIteration as finished:
            return yielded, finished.value


def test_the_table_holds_what_requests_offer_and_nothing_else():
    offered = {
        choice
        for request in REQUESTS.values()
        for name, _, spec in request.declarations()
        for choice in spec.choices
        if name == "sampler"
    }
    assert offered == set(SAMPLERS)


@pytest.mark.parametrize("told", TOLD)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_prediction_that_knows_the_picture_leads_to_it(sampler, told):
    """In previews from the first step on, and at the end up to the noise that the model's lowest level has."""
    schedule = schedule_of(sampler, STEPS, scheduler_for(**TOLD[told]))
    picture = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))

    def predict(latents, timestep, frames):
        alpha = schedule.alphas[schedule.timesteps.index(timestep)]
        signal, sigma = math.sqrt(alpha), math.sqrt(1 - alpha)
        noise = (latents - signal * picture[frames]) / sigma
        velocity = signal * noise - sigma * picture[frames]
        return {"epsilon": noise, "v_prediction": velocity, "sample": picture[frames]}[schedule.prediction_type]

    noises = torch.stack([frame_noise(1, frame, SHAPE, "cpu") for frame in range(3)])
    room = Placement((), (), torch.device("cpu"), 2)
    added = [frame_noise(1, 0, SHAPE, "cpu", draw=step + 1) for step in range(STEPS)]
    loop = denoise(noises, schedule, range(STEPS), predict, None, room, added.__getitem__)
    chunks, final = drained(loop)
    previews = [chunk.clean for chunk in chunks if chunk.clean is not None]
    assert len(previews) == STEPS
    assert all(torch.allclose(preview, picture, atol=1e-3) for preview in previews)
    assert torch.allclose(final, picture, atol=0.15)


@pytest.mark.parametrize("told", TOLD)
@pytest.mark.parametrize(
    ("sampler", "scheduler_class", "options"),
    [
        ("DDIM", DDIMScheduler, {}),
        ("DDIM trailing", DDIMScheduler, {"timestep_spacing": "trailing"}),
        ("DPM++ 2M", DPMSolverMultistepScheduler, {}),
        ("UniPC", UniPCMultistepScheduler, {}),
        ("Euler", EulerDiscreteScheduler, {}),
    ],
)
def test_a_whole_run_equals_diffusers_whatever_the_model_says(sampler, scheduler_class, options, told):
    steps = 8  # of as many timesteps each, where DDIM of diffusers steps from one to the next
    model = scheduler_for(**TOLD[told])
    if sampler not in {"DDIM", "DDIM trailing"} and model.config.timestep_spacing == "leading":
        options = {"timestep_spacing": "linspace"}
    theirs = scheduler_class.from_config(model.config, **options)
    theirs.set_timesteps(steps)
    ours = schedule_of(sampler, steps, model)
    assert list(ours.timesteps) == pytest.approx(theirs.timesteps.tolist())
    if sampler == "DDIM" and told == "even spacing":
        return  # diffusers steps to timesteps that are none of its own
    solver = SAMPLERS[sampler].solver(ours, 0, lambda _: pytest.fail("no noise is added"))
    generator = torch.Generator().manual_seed(0)
    latents = expected = torch.randn(1, *SHAPE, generator=generator) * SAMPLERS[sampler].latent_scale(ours.alphas[0])
    for index, timestep in enumerate(theirs.timesteps):
        output = torch.randn(1, *SHAPE, generator=generator)
        assert torch.allclose(
            solver.model_input(latents, index), theirs.scale_model_input(expected, timestep), 1e-3, 5e-3
        )
        latents = solver.step(output, index, latents)
        expected = theirs.step(output, timestep, expected).prev_sample
    assert torch.allclose(latents, expected, rtol=1e-3, atol=5e-3)


@pytest.mark.parametrize("scheduler_class", [DDIMScheduler, PNDMScheduler, EulerDiscreteScheduler])
def test_whose_scheduler_a_model_brings_does_not_matter(scheduler_class):
    changes = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    if scheduler_class is PNDMScheduler:  # which knows nothing of it: what the file says counts
        changes = {"prediction_type": "v_prediction"}
    for sampler in SAMPLERS:
        model, usual = scheduler_for(scheduler_class=scheduler_class, **changes), scheduler_for(**changes)
        ours, same = schedule_of(sampler, STEPS, model), schedule_of(sampler, STEPS, usual)
        assert (ours.timesteps, ours.alphas) == (same.timesteps, same.alphas)
        assert ours.prediction_type == "v_prediction"


def test_what_a_person_says_goes_before_what_the_model_says():
    assert tuple(CORRECTIONS) == PREDICTIONS
    model = stable_diffusion_scheduler()
    assert scheduler_told(model, "as the model says") is model
    assert schedule_of("DDIM", STEPS, scheduler_told(model, "epsilon")) == schedule_of("DDIM", STEPS, model)
    by_hand = scheduler_told(model, "v-prediction, zero SNR")
    for sampler in SAMPLERS:
        told, same = (schedule_of(sampler, STEPS, told) for told in (by_hand, scheduler_for(**ZERO_SNR)))
        assert told == same
    assert schedule_of("DDIM", STEPS, by_hand).alphas[0] < 1e-6
    back = scheduler_told(by_hand, "sample")
    assert schedule_of("DDIM trailing", STEPS, back).alphas == schedule_of("DDIM trailing", STEPS, model).alphas
    assert schedule_of("Euler", STEPS, back).prediction_type == "sample"


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_euler_ancestral_steps_equal_diffusers(monkeypatch, prediction_type):
    scheduler = scheduler_for(prediction_type)
    theirs = EulerAncestralDiscreteScheduler.from_config(scheduler.config, timestep_spacing="linspace")
    theirs.set_timesteps(STEPS)
    ours = schedule_of("Euler ancestral", STEPS, scheduler)
    latents, output, noise = torch.randn(3, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(scheduling_euler_ancestral_discrete, "randn_tensor", lambda *_, **__: noise)
    asked = []

    def step_noise(index):
        asked.append(index)
        return noise[0]

    solver = EulerAncestral(ours, step_noise)
    for index, timestep in enumerate(theirs.timesteps):
        shown = solver.model_input(latents, index)
        assert torch.allclose(shown, theirs.scale_model_input(latents, timestep))
        expected = theirs.step(output, timestep, latents).prev_sample
        assert torch.allclose(solver.step(output, index, latents), expected, rtol=1e-4, atol=1e-4)
    assert asked == list(range(STEPS - 1))  # the last step adds none


def test_lcms_boundary_condition_is_diffusers_where_it_counts():
    """Near timestep 0; where LCM's own timesteps lie, latents hardly shine through."""
    scheduler = scheduler_for("epsilon")
    schedule = schedule_at((1,), "LCM", scheduler)
    latents, output = torch.randn(2, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    clean, _ = schedule.clean_and_noise(output, 0, latents)
    kept, made = LCMScheduler.from_config(scheduler.config).get_scalings_for_boundary_condition_discrete(1)
    ours = ConsistencySolver(schedule, lambda _: torch.zeros(SHAPE)).step(output, 0, latents)
    assert kept > 0.002
    assert torch.allclose(ours, kept * latents + made * clean, atol=1e-6)

"""The table of samplers: it holds what requests offer, and each of its samplers finds the picture it is told."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler, LCMScheduler
from diffusers.schedulers import scheduling_euler_ancestral_discrete

from tests.tiny_models import stable_diffusion_scheduler
from text2video_zero.device.offload import Placement
from text2video_zero.requests import REQUESTS
from text2video_zero.sampling.denoising import denoise
from text2video_zero.sampling.noise import frame_noise
from text2video_zero.sampling.solvers import SAMPLERS, ConsistencySolver, EulerAncestral, schedule_at, schedule_of

SHAPE = (4, 8, 8)
STEPS = 6


def scheduler_for(prediction_type):
    """The noise levels of Stable Diffusion, with another thing predicted."""
    return DDIMScheduler.from_config(stable_diffusion_scheduler().config, prediction_type=prediction_type)


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


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_prediction_that_knows_the_picture_leads_to_it(sampler, prediction_type):
    """In previews from the first step on, and at the end up to the noise that the model's lowest level has."""
    schedule = schedule_of(sampler, STEPS, scheduler_for(prediction_type))
    picture = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))

    def predict(latents, timestep, frames):
        alpha = schedule.alphas[schedule.timesteps.index(timestep)]
        signal, sigma = math.sqrt(alpha), math.sqrt(1 - alpha)
        noise = (latents - signal * picture[frames]) / sigma
        return signal * noise - sigma * picture[frames] if prediction_type == "v_prediction" else noise

    noises = torch.stack([frame_noise(1, frame, SHAPE, "cpu") for frame in range(3)])
    room = Placement((), (), torch.device("cpu"), 2)
    added = [frame_noise(1, 0, SHAPE, "cpu", draw=step + 1) for step in range(STEPS)]
    loop = denoise(noises, schedule, range(STEPS), predict, None, room, added.__getitem__)
    chunks, final = drained(loop)
    previews = [chunk.clean for chunk in chunks if chunk.clean is not None]
    assert len(previews) == STEPS
    assert all(torch.allclose(preview, picture, atol=1e-3) for preview in previews)
    assert torch.allclose(final, picture, atol=0.15)


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
        assert torch.allclose(solver.model_input(latents, index), theirs.scale_model_input(latents, timestep))
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

"""Sampling in few steps: LCM's grid and solver, and DDIM as distilled models want it, against diffusers."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler, StableDiffusionPipeline
from diffusers.schedulers import scheduling_lcm
from hypothesis import given
from hypothesis import strategies as some

from tests.runs import EvaluationCount, order, sampled
from text2video_zero.attention.branches import Branches
from text2video_zero.device.offload import Placement
from text2video_zero.errors import UserError
from text2video_zero.prompts.encoding import encoded_prompts
from text2video_zero.sampling.denoising import denoise
from text2video_zero.sampling.guidance import TextGuidance
from text2video_zero.sampling.motion.plan import MotionPlan
from text2video_zero.sampling.noise import frame_noise, shared_step_noise
from text2video_zero.sampling.schedule import LCM_STRIDE, lcm_timesteps, lcm_timesteps_from, lcm_timesteps_of_motion
from text2video_zero.sampling.solvers import DDIM, ConsistencySolver, schedule_of

STILL = {"frames": 1, "motion": False, "guidance_scale": 1.0}
FEW = {"sampler": "LCM", "steps": 4, "guidance_scale": 1.0, "motion_from": 879, "motion_to": 939}
SHAPE = (4, 8, 8)


@pytest.fixture
def scheduler(pipeline):
    return pipeline.components.scheduler


def on_the_grid(timesteps):
    return all(timestep % 20 == 19 and 19 <= timestep <= 999 for timestep in timesteps)


@pytest.mark.parametrize("steps", [*range(1, 9), 25, 49, 50])
def test_the_whole_grid_is_divided_as_diffusers_does(steps):
    theirs = LCMScheduler()
    theirs.set_timesteps(steps)
    assert list(lcm_timesteps(steps, 1000)) == theirs.timesteps.tolist()


def test_four_steps_after_the_motion():
    assert lcm_timesteps_of_motion(879, 939, 4, 1000) == (999, 939, 879)
    assert lcm_timesteps_from(939, 4, 1000) == (939, 699, 459, 219)


@given(steps=some.integers(1, 50), timestep=some.floats(9, 999))
def test_the_rest_of_the_grid_is_divided_evenly_and_as_the_whole_would_be(steps, timestep):
    timesteps = lcm_timesteps_from(timestep, steps, 1000)
    assert len(timesteps) == math.ceil(steps * (timesteps[0] + 1) / 1000)
    assert on_the_grid(timesteps)
    assert abs(timesteps[0] - timestep) <= 10
    gaps = [a - b for a, b in pairwise((*timesteps, -1))]
    assert min(gaps) > 0
    assert max(gaps) - min(gaps) <= 20


@given(low=some.integers(1, 998), more=some.integers(1, 998), steps=some.integers(1, 8))
def test_motion_goes_from_the_top_to_t_and_to_t_prime(low, more, steps):
    timesteps = lcm_timesteps_of_motion(low, min(low + more, 999), steps, 1000)
    assert timesteps[0] == 999
    assert on_the_grid(timesteps)
    assert all(a > b for a, b in pairwise(timesteps))
    to, its_from = timesteps[-2:]
    assert abs(to - max(min(low + more, 999), 39)) <= 10
    assert abs(its_from - max(low, 19)) <= 10 or its_from == to - LCM_STRIDE
    gaps = [a - b for a, b in pairwise(timesteps[:-1])]
    assert max(gaps, default=0) <= math.ceil(50 / steps) * LCM_STRIDE
    assert max(gaps, default=0) - min(gaps, default=0) <= LCM_STRIDE


def test_a_first_frame_that_goes_far_alone_goes_in_the_strides_of_its_steps():
    assert lcm_timesteps_of_motion(179, 279, 4, 1000) == (999, 759, 519, 279, 179)
    assert lcm_timesteps_of_motion(179, 279, 1, 1000) == (999, 279, 179)


def test_too_many_steps_are_told_in_one_sentence(pipeline):
    with pytest.raises(UserError, match="Steps is 51, but the sampler LCM has 50 at most"):
        sampled(order(**STILL, sampler="LCM", steps=51), pipeline)
    with pytest.raises(UserError, match="Steps is 51, but the sampler LCM has 50 at most"):
        sampled(order(sampler="LCM", steps=51, motion_from=179, motion_to=279), pipeline)


@pytest.mark.parametrize(
    ("prediction_type", "zero_snr"),
    [("epsilon", False), ("v_prediction", False), ("v_prediction", True), ("sample", False), ("sample", True)],
)
def test_a_step_equals_diffusers(scheduler, monkeypatch, prediction_type, zero_snr):
    changes = {"prediction_type": prediction_type, "rescale_betas_zero_snr": zero_snr}
    theirs = LCMScheduler.from_config(scheduler.config, **changes)
    theirs.set_timesteps(4)
    ours = schedule_of("LCM", 4, theirs)
    latents, output, noise = torch.randn(3, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(scheduling_lcm, "randn_tensor", lambda *_, **__: noise)
    for index in range(4):
        stepped = ConsistencySolver(ours, lambda _: noise[0]).step(output, index, latents)
        expected = theirs.step(output, theirs.timesteps[index], latents).prev_sample
        assert torch.allclose(stepped, expected, atol=1e-3 if zero_snr else 1e-4)


@pytest.mark.parametrize("steps", [4, 7, 8])
def test_one_frame_equals_diffusers(pipeline, monkeypatch, steps):
    parts = pipeline.components
    theirs = StableDiffusionPipeline(
        **{name: getattr(parts, name) for name in ("vae", "text_encoder", "tokenizer", "unet")},
        scheduler=LCMScheduler.from_config(parts.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    theirs.set_progress_bar_config(disable=True)
    request = order(**STILL, sampler="LCM", steps=steps)
    timesteps = lcm_timesteps(steps, 1000)
    draws = iter([frame_noise(request.seed, 0, SHAPE, "cpu", draw=timestep)[None] for timestep in timesteps[1:]])
    monkeypatch.setattr(scheduling_lcm, "randn_tensor", lambda *_, **__: next(draws))
    latents = theirs(
        request.prompt,
        latents=frame_noise(request.seed, 0, SHAPE, "cpu")[None],
        num_inference_steps=steps,
        guidance_scale=1.0,
        output_type="latent",
    ).images
    assert latents.std() > 0.1
    assert (sampled(request, pipeline) - latents).abs().amax() < 1e-4


@pytest.mark.parametrize("steps", [4, 8, 12])
def test_trailing_ddim_equals_diffusers(scheduler, steps):
    theirs = DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    ours = schedule_of("DDIM trailing", steps, scheduler)
    assert list(ours.timesteps) == theirs.timesteps.tolist()
    latents, output = torch.randn(2, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    for index in range(steps if 1000 % steps == 0 else 0):  # elsewhere diffusers steps to timesteps between them
        expected = theirs.step(output, theirs.timesteps[index], latents).prev_sample
        assert torch.allclose(DDIM(ours).step(output, index, latents), expected, atol=1e-5)


class TestMotionPlan:
    def test_few_steps_are_divided_by_the_motion(self, scheduler):
        plan = MotionPlan.of("LCM", 4, scheduler, 179, 279)
        assert (plan.opening.timesteps, plan.at_to, plan.at_from) == ((999, 759, 519, 279, 179), 3, 4)
        assert (plan.joint.timesteps, plan.begin) == ((279, 139), 0)

    def test_all_of_lcms_steps_come_after_a_motion_near_the_top(self, scheduler):
        plan = MotionPlan.of("LCM", 4, scheduler, 879, 939)
        assert (plan.opening.timesteps, plan.at_to, plan.at_from) == ((999, 939, 879), 1, 2)
        assert (plan.joint.timesteps, plan.begin) == ((939, 699, 459, 219), 0)
        assert plan.opening.alphas[plan.at_to] == plan.joint.alphas[plan.begin]

    def test_motion_from_the_top(self, scheduler):
        plan = MotionPlan.of("LCM", 4, scheduler, 879, 999)
        assert (plan.opening.timesteps, plan.at_to, plan.at_from) == ((999, 879), 0, 1)
        assert plan.joint.timesteps[0] == 999

    def test_eight_trailing_steps_have_the_motion_of_their_preset(self, scheduler):
        plan = MotionPlan.of("DDIM trailing", 8, scheduler, 874, 999)
        assert (plan.at_to, plan.at_from, plan.begin) == (0, 1, 0)
        assert plan.joint.timesteps[:2] == (999, 874)


class TestClip:
    def test_costs_the_steps_and_two_of_the_first_frame(self, pipeline):
        count = EvaluationCount(pipeline.components.unet, branches=1)
        sampled(order(**FEW, frames=3), pipeline)
        count.handle.remove()
        assert count.frames == 2 + 4 * 3

    @pytest.mark.parametrize("smooth_background", [False, True])
    def test_does_not_depend_on_the_chunk_size(self, pipeline, smooth_background):
        request = {**FEW, "frames": 5, "smooth_background": smooth_background}
        whole = sampled(order(**request, chunk_size=8), pipeline)
        for chunk_size in (1, 3):
            assert torch.allclose(sampled(order(**request, chunk_size=chunk_size), pipeline), whole, atol=1e-4)

    def test_frames_share_the_noise_of_every_step(self, pipeline):
        request = order(**FEW, frames=3)
        schedule = schedule_of("LCM", 4, pipeline.components.scheduler)
        unet, embeddings = pipeline.components.unet, encoded_prompts(pipeline.components, request.prompt, None)
        alike = frame_noise(request.seed, 0, SHAPE, "cpu").expand(3, -1, -1, -1)
        step_noise = shared_step_noise(request, pipeline, schedule)
        placement = Placement.of(pipeline, 8)
        guidance = TextGuidance(unet, embeddings, 1.0, Branches(1))
        run = denoise(alike, schedule, range(4), guidance, None, placement, step_noise)
        with torch.inference_mode():
            *_, last = run
        assert last.clean.std() > 0.1
        assert torch.allclose(last.clean[0], last.clean[2], atol=1e-5)
        draws = [step_noise(index) for index in range(3)]
        for index, draw in enumerate(draws):  # of the timestep that the step leads to, whichever schedule that is in
            leads_to = int(schedule.timesteps[index + 1])
            assert torch.equal(draw, frame_noise(request.seed, 0, SHAPE, "cpu", draw=leads_to))
        assert all((one - other).abs().mean() > 0.5 for one, other in pairwise(draws))

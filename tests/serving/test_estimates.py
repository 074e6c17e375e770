"""How long a job takes: in proportion to its work, and by what was measured here."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.estimates import CPU_FIRST_SECONDS, DECODE_COST, Pace, evaluations
from text2video_zero.job import Job
from text2video_zero.models.catalogue import KNOWN_MODELS
from text2video_zero.requests import EdgeRequest, InstructPix2PixRequest, TextToVideoRequest

REQUEST = TextToVideoRequest(prompt="a fox", frames=8, steps=50)


def job(model="sd-1.5", request=REQUEST, **changes):
    return Job(dataclasses.replace(request, **changes), KNOWN_MODELS[model].checkpoint)


@pytest.mark.parametrize(
    "more",
    [{"frames": 9}, {"steps": 51}, {"size": "1024x512"}, {"smooth_background": True}, {"size": "2048x2048"}],
)
def test_more_to_do_takes_longer(more):
    assert evaluations(job(**more)) > evaluations(job())


def test_guidance_doubles_the_work_of_denoising_and_no_size_is_the_model_s_own():
    with_guidance, without = (evaluations(job(guidance_scale=scale)) for scale in (7.5, 1.0))
    assert with_guidance == pytest.approx(2 * without, rel=0.1)
    assert evaluations(job(size="512x512")) == evaluations(job())


def test_guidance_that_ends_early_takes_less_time():
    assert evaluations(job()) > evaluations(job(guidance_end=0.5)) > evaluations(job(guidance_scale=1.0))


def test_reused_deep_features_take_less_time_the_rarer_whole_passes_are():
    times = [evaluations(job(cache_interval=every)) for every in (1, 2, 3, 8)]
    assert times == sorted(times, reverse=True)
    assert times[0] / 8 < times[-1] < times[0] / 2


def test_only_the_first_frame_of_a_shot_goes_through_the_steps_before_t():
    """As the run itself counts them, but for how timesteps fall."""
    late = {"motion_from": 200, "motion_to": 300, "guidance_scale": 1.0}
    one, two, still = (
        evaluations(job(**late, **more)) - DECODE_COST * 8
        for more in ({}, {"storyboard": "4: a cat", "shot_anchors": True}, {"motion": False})
    )
    assert one == pytest.approx(35 + 8 * 15)
    assert two == pytest.approx(2 * 35 + 8 * 15)
    assert still == pytest.approx(8 * 50)


def test_a_clip_s_control_and_an_instruction_cost_more_than_words_alone():
    shaped, edited = (
        evaluations(job(request=kind(prompt="a fox", clip="a.mp4", frames=8, steps=50)))
        for kind in (EdgeRequest, InstructPix2PixRequest)
    )
    assert edited > shaped > evaluations(job())


def test_on_a_cpu_large_models_are_guessed_to_take_long_and_elsewhere_nothing_is():
    pace = Pace()
    assert pace.estimate(job("toyland", steps=25), "cpu") < 60
    assert pace.estimate(job("sd-1.5"), "cpu") > 30 * 60
    assert pace.estimate(job("toyland", size="2048x2048"), "cpu") > 24 * 3600
    assert pace.estimate(job(), "cuda") is None


def test_the_first_job_s_guess_counts_what_no_step_takes():
    shortest = job("toyland", frames=2, steps=4, guidance_scale=1.0)
    assert Pace().estimate(shortest, "cpu") > CPU_FIRST_SECONDS
    assert Pace({"toyland": 1e-4}).estimate(shortest, "cpu") < CPU_FIRST_SECONDS


def test_what_was_measured_goes_before_a_guess_and_the_latest_counts_most():
    pace = Pace()
    pace.learn(job(), 100.0)
    assert pace.estimate(job(), "cuda") == pytest.approx(100.0)
    assert pace.estimate(job(frames=16), "cuda") == pytest.approx(200.0, rel=0.01)
    pace.learn(job(), 50.0)
    assert 50.0 < pace.estimate(job(), "cpu") < 100.0
    assert pace.estimate(job("sdxl"), "cuda") is None


def test_short_jobs_tell_what_is_fixed_so_that_a_long_one_is_not_thought_to_take_for_ever():
    pace = Pace()
    for steps in (4, 8, 16):
        pace.learn(job(steps=steps), 5.0 + 0.1 * evaluations(job(steps=steps)))
    for steps in (5, 50, 500):
        wanted = 5.0 + 0.1 * evaluations(job(steps=steps))
        assert pace.estimate(job(steps=steps), "cuda") == pytest.approx(wanted)


@given(st.lists(st.tuples(st.integers(4, 100), st.floats(0.01, 1e4)), min_size=1, max_size=20))
def test_whatever_was_measured_a_longer_job_is_estimated_to_take_longer(done):
    pace = Pace()
    for steps, seconds in done:
        pace.learn(job(steps=steps), seconds)
    short, long = (pace.estimate(job(steps=steps), "cuda") for steps in (10, 20))
    assert 0 < short < long


def test_a_machine_that_became_slower_is_believed_after_some_jobs():
    pace = Pace()
    for seconds in [10.0] * 8 + [40.0] * 8:
        pace.learn(job(), seconds)
    assert pace.estimate(job(), "cuda") == pytest.approx(40.0)

"""The engine against diffusers, and the identities that anchor-first sampling promises."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.pipelines.deprecated.text_to_video_synthesis import pipeline_text_to_video_zero as reference

from tests.runs import PROMPT, EvaluationCount, order, sampled
from text2video_zero.events import Finished, Preview, Progress
from text2video_zero.generate import generate
from text2video_zero.requests import Size, TextToVideoRequest
from text2video_zero.requests.video import SAMPLERS
from text2video_zero.sampling.noise import frame_noise
from text2video_zero.sampling.solvers import DDIM, schedule_of


def diffusers_latents(pipeline, request, *, exact_alphas):
    """The same clip by diffusers' pipeline, fed with the same noise.

    diffusers multiplies α over [T', T) where the forward process from T' to T runs over (T', T]; with
    `exact_alphas` its table is shifted by the one entry, which nothing else in the run reads.
    """
    parts = pipeline.components
    scheduler = DDIMScheduler.from_config(parts.scheduler.config)
    if exact_alphas:
        scheduler.alphas = torch.roll(scheduler.alphas, -1)
    other = reference.TextToVideoZeroPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=parts.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    other.set_progress_bar_config(disable=True)
    shape = (4, request.size.height // 8, request.size.width // 8)
    noises = [frame_noise(request.seed, frame, shape, "cpu") for frame in range(request.frames)]
    fresh = torch.stack(noises[1:])
    other.prepare_latents = lambda *_: noises[0][None]
    with mock.patch.object(reference, "randn_tensor", return_value=fresh):
        return other(
            prompt=request.prompt,
            video_length=request.frames,
            height=request.size.height,
            width=request.size.width,
            num_inference_steps=50,
            guidance_scale=request.guidance_scale,
            motion_field_strength_x=12,
            motion_field_strength_y=12,
            output_type="latent",
        ).images


def test_equals_diffusers_text_to_video_zero(pipeline):
    request = order(frames=8, steps=50, resampling="nearest", pan_x=12 / 512, pan_y=12 / 512, reach=1.0)
    ours = sampled(request, pipeline)
    theirs = diffusers_latents(pipeline, request, exact_alphas=True)
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().amax() < 1e-4
    as_published = diffusers_latents(pipeline, request, exact_alphas=False)
    assert (ours - as_published).abs().amax() < 1e-2 * theirs.std()


@pytest.mark.parametrize(
    "changes",
    [
        {"frames": 5},
        {"frames": 7, "guidance_scale": 1.0},
        {"frames": 4, "size": Size(96, 64)},
        {"frames": 6, "size": Size(64, 112), "reference_frames": "first + previous"},
        {"frames": 5, "cross_frame_attention": False},
        {"frames": 5, "motion": False, "sampler": "UniPC"},
        {"frames": 5, "smooth_background": True},
        {"frames": 5, "motion_smoothness": 1.5},
        {"frames": 5, "motion_smoothness": 1.5, "resampling": "white", "loop": True},
        {"frames": 5, "storyboard": "3: a blue robot"},
        {"frames": 7, "storyboard": "2: a blue robot; 5: the moon", "shot_anchors": True},
        {"frames": 11, "reference_frames": "first + key frames"},
        {"frames": 7, "reference_frames": "first + key frames", "smooth_background": True},
        {"frames": 6, "storyboard": "3: a robot", "shot_anchors": True, "reference_frames": "first + previous"},
        {"frames": 6, "storyboard": "3: a robot", "guidance_end": 0.5, "reference_frames": "first + key frames"},
        {"frames": 5, "smooth_background": True, "guidance_end": 0.5},
        {"frames": 5, "cache_interval": 3, "guidance_end": 0.5, "reference_frames": "first + previous"},
        {"frames": 6, "cache_interval": 2, "smooth_background": True, "token_merging": 0.5},
        {"frames": 7, "cache_interval": 2, "storyboard": "3: a robot", "reference_frames": "first + key frames"},
    ],
    ids=lambda changes: ", ".join(f"{name}={value}" for name, value in changes.items()),
)
def test_result_does_not_depend_on_the_chunk_size(pipeline, changes):
    whole = sampled(order(**changes, chunk_size=512), pipeline)
    for chunk_size in (1, 3):
        assert torch.allclose(sampled(order(**changes, chunk_size=chunk_size), pipeline), whole, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"smooth_background": True, "reference_frames": "first + previous"},
        {"storyboard": "2: a blue robot", "token_merging": 0.5, "cross_frame_attention": False},
    ],
    ids=str,
)
def test_guidance_that_ends_at_once_is_none(pipeline, changes):
    ended, none = ({"guidance_end": 0.0}, {"guidance_scale": 1.0})
    assert torch.equal(sampled(order(**changes, **ended), pipeline), sampled(order(**changes, **none), pipeline))
    assert not torch.equal(sampled(order(**changes, **ended), pipeline), sampled(order(**changes), pipeline))


def test_every_frame_is_evaluated_once_per_step(pipeline):
    count = EvaluationCount(pipeline.components.unet, branches=2)
    sampled(order(frames=5, steps=50, chunk_size=2), pipeline)
    count.handle.remove()
    first_frame, steps = 5, 50 - 2
    assert count.frames == first_frame + 5 * steps
    assert count.batches == [1] * first_frame + [2, 2, 1] * steps


@pytest.mark.parametrize(
    ("changes", "batches"),
    [
        ({}, [4]),
        ({"cross_frame_attention": False}, [4]),
        ({"reference_frames": "first + previous"}, [4]),
        ({"frames": 6, "reference_frames": "first + key frames"}, [1, 1, 3, 1]),
        ({"frames": 9, "storyboard": "3: a robot", "shot_anchors": True}, [3, 6]),
        ({"frames": 9}, [8, 1]),
    ],
    ids=str,
)
def test_the_anchor_rides_with_its_chunk(pipeline, changes, batches):
    count = EvaluationCount(pipeline.components.unet, branches=2)
    sampled(order(**changes, motion=False, steps=4, chunk_size=8), pipeline)
    count.handle.remove()
    assert count.batches == batches * 4


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [4, 7, 50])
def test_samplers_end_at_finite_latents_of_like_size(pipeline, sampler, steps):
    latents = sampled(order(sampler=sampler, steps=steps, guidance_scale=1.0), pipeline)
    assert latents.isfinite().all()
    assert 0.2 < latents.std() < 40


def test_samplers_agree_where_steps_are_many(pipeline):
    changes = {"frames": 1, "motion": False, "guidance_scale": 1.0, "steps": 80}
    exact = sampled(order(**changes), pipeline)
    for sampler in set(SAMPLERS) - {"DDIM"}:
        other = sampled(order(**changes, sampler=sampler), pipeline)
        assert (other - exact).abs().mean() < 0.07 * exact.std(), sampler


def test_first_frame_is_the_same_in_clips_of_any_length(pipeline):
    assert torch.allclose(sampled(order(frames=1), pipeline)[0], sampled(order(frames=6), pipeline)[0], atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"motion_smoothness": 2.0},
        {"motion_smoothness": 2.0, "motion": False},
        {"resampling": "white"},
        {"motion_smoothness": 4.0, "resampling": "white", "zoom": 0.05},
        {"reference_frames": "first + previous"},
        {"camera_keys": "2: right 0.2 zoom 1.3; 9: turn 0.1", "shake": 0.05},
        {"storyboard": "2: a blue robot; 5: the moon", "shot_anchors": True},
    ],
    ids=lambda changes: ", ".join(f"{name}={value}" for name, value in changes.items()),
)
def test_longer_clips_begin_with_shorter_ones(pipeline, changes):
    shorter, longer = (sampled(order(frames=frames, **changes), pipeline) for frames in (3, 6))
    assert torch.allclose(longer[:3], shorter, atol=1e-4)


def test_with_key_frames_longer_clips_are_the_same_as_far_as_the_last_key_frame(pipeline):
    shorter, longer = (
        sampled(order(frames=frames, reference_frames="first + key frames"), pipeline) for frames in (6, 10)
    )
    assert torch.allclose(longer[:5], shorter[:5], atol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"motion": False}, {"resampling": "white"}], ids=str)
def test_motion_smoothness_makes_neighbours_alike_and_leaves_the_first_frame(pipeline, changes):
    still = {**changes, "pan_x": 0.0, "pan_y": 0.0}
    own, path = (sampled(order(**still, motion_smoothness=frames), pipeline) for frames in (0.0, 3.0))
    assert torch.allclose(own[0], path[0], atol=1e-5)
    jumps = [(clip[1:] - clip[:-1]).square().mean() for clip in (own, path)]
    assert jumps[1] < 0.6 * jumps[0]


@pytest.mark.parametrize("camera", [{}, {"zoom": 0.05}, {"rotation": 0.02}], ids=str)
def test_the_last_frame_of_a_loop_leads_into_the_first(pipeline, camera):
    clip = sampled(order(frames=12, loop=True, motion_smoothness=2.0, **camera), pipeline)
    steps = (clip.roll(-1, 0) - clip).square().mean((1, 2, 3)).sqrt()
    assert steps[-1] <= 1.05 * steps.median()


def test_a_camera_that_stands_still_moves_nothing_in_any_way(pipeline):
    still = {"pan_x": 0.0, "pan_y": 0.0}
    smooth, nearest, white = (
        sampled(order(**still, resampling=name), pipeline) for name in ("smooth", "nearest", "white")
    )
    assert torch.equal(smooth, nearest)
    assert torch.allclose(smooth, white, atol=1e-4)


def test_key_frames_of_an_even_movement_are_that_movement(pipeline):
    even = sampled(order(pan_x=0.05, pan_y=0.0), pipeline)
    keyed = sampled(order(camera_keys="3: right 0.15", camera_eased=False), pipeline)
    assert torch.allclose(even, keyed, atol=1e-4)


def test_a_storyboard_of_the_same_prompt_changes_nothing(pipeline):
    assert torch.allclose(sampled(order(storyboard=f"2: {PROMPT}"), pipeline), sampled(order(), pipeline), atol=1e-4)


def test_a_storyboard_changes_what_comes_later_and_not_the_first_frame(pipeline):
    plain, story = (sampled(order(storyboard=text), pipeline) for text in ("", "2: a blue robot on the moon"))
    differences = (plain - story).flatten(1).norm(dim=1)
    assert differences[0] < 1e-4
    assert 1e-3 < differences[1] < differences[2]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"restart": True, "motion_smoothness": 2.0, "resampling": "white"},
        {"motion": False, "motion_smoothness": 2.0},
        {"sampler": "LCM", "guidance_scale": 1.0},
        {"reference_frames": "first + previous"},
        {"cross_frame_attention": False},
        {"camera_keys": "1: right 0.2 zoom 1.3", "shake": 0.05},
        {"cache_interval": 2, "guidance_end": 0.5},
    ],
    ids=str,
)
def test_a_shot_is_the_clip_that_its_prompt_makes_alone(pipeline, changes):
    board = {"storyboard": "2: a blue robot; 5: the moon; 40: is never reached", "shot_anchors": True}
    story = sampled(order(frames=6, **board, **changes), pipeline)
    prompts = {order().prompt: 2, "a blue robot": 3, "the moon": 1}
    shots = [sampled(order(prompt=prompt, frames=count, **changes), pipeline) for prompt, count in prompts.items()]
    assert torch.allclose(story, torch.cat(shots), atol=1e-4)
    assert (shots[0][0] - shots[1][0]).abs().amax() > 1e-2


def test_without_anchors_of_their_own_all_frames_depart_from_the_first(pipeline):
    board = {"frames": 5, "storyboard": "2: a blue robot", "motion_from": 181, "motion_to": 281}
    one, each, none = (
        sampled(order(**{**board, **changes}), pipeline) for changes in ({}, {"shot_anchors": True}, {"storyboard": ""})
    )
    change, cut = ((clip[2] - none[2]).abs().mean() for clip in (one, each))
    assert 0 < 2 * change < cut


def test_switches_of_the_ablation_change_the_clip(pipeline):
    base = sampled(order(), pipeline)
    for switch in ({"motion": False}, {"cross_frame_attention": False}, {"reference_frames": "first + previous"}):
        assert (sampled(order(**switch), pipeline) - base).abs().amax() > 1e-2


def test_without_motion_frames_start_from_noise_of_their_own(pipeline):
    latents = sampled(order(motion=False), pipeline)
    still = sampled(order(pan_x=0.0, pan_y=0.0), pipeline)
    similarity = [torch.corrcoef(clip[:2].flatten(1))[0, 1] for clip in (latents, still)]
    assert similarity[1] > similarity[0]


def test_smoothing_of_strength_zero_changes_nothing(pipeline):
    smoothed = sampled(order(smooth_background=True, smoothing_strength=0.0), pipeline)
    assert torch.equal(smoothed, sampled(order(), pipeline))


class TestGenerate:
    def test_tells_what_happens_and_ends_with_the_video(self, pipeline):
        events = list(generate(order(frames=3, seed=-1, size=None), pipeline))
        progress = [event for event in events if isinstance(event, Progress)]
        assert {event.stage for event in progress} == {"First frame", "Denoising", "Decoding"}
        assert all(0 <= event.step <= event.of for event in progress)
        assert progress[3].seconds_left > 0
        previews = [event for event in events if isinstance(event, Preview)]
        assert len(previews) >= 5
        assert previews[-1].frames.shape == (3, 8, 8, 3)
        video = events[-1].video
        assert isinstance(events[-1], Finished)
        assert video.frames.shape == (3, 64, 64, 3)
        assert video.settings["request"]["seed"] >= 0
        assert video.settings["request"]["size"] == "64x64"

    @pytest.mark.parametrize(("play_fps", "frames", "fps"), [(0, 3, 8), (8, 3, 8), (24, 9, 24)])
    def test_frames_in_between_make_it_smoother_and_not_longer(self, pipeline, play_fps, frames, fps):
        video = list(generate(order(frames=3, play_fps=play_fps), pipeline))[-1].video
        assert (len(video.frames), video.fps) == (frames, fps)
        plain = list(generate(order(frames=3), pipeline))[-1].video
        assert np.array_equal(np.asarray(video.frames)[:: frames // 3], np.asarray(plain.frames))

    def test_settings_make_the_same_video_again(self, pipeline):
        first = list(generate(order(seed=-1, frames=2), pipeline))[-1].video
        again = TextToVideoRequest.from_dict(first.settings["request"])
        assert np.array_equal(list(generate(again, pipeline))[-1].video.frames, first.frames)

    @pytest.mark.parametrize("smooth_background", [False, True])
    @pytest.mark.parametrize("events", [1, 3, 6, 12])
    def test_closing_stops_at_once_and_leaves_no_trace(self, pipeline, events, smooth_background):
        unet = pipeline.components.unet
        before = dict(unet.attn_processors)
        run = generate(order(smooth_background=smooth_background), pipeline)
        for _ in range(events):
            next(run)
        count = EvaluationCount(unet, branches=2)
        run.close()
        count.handle.remove()
        assert count.frames == 0
        assert all(unet.attn_processors[name] is processor for name, processor in before.items())

    def test_a_failure_in_the_unet_leaves_no_trace(self, pipeline):
        unet = pipeline.components.unet
        before = dict(unet.attn_processors)
        clean = sampled(order(), pipeline)

        def fail(_module, _inputs):
            raise RuntimeError("injected")

        for layer in (unet.mid_block, unet.up_blocks[0]):
            handle = layer.register_forward_pre_hook(fail)
            with pytest.raises(RuntimeError, match="injected"):
                list(generate(order(smooth_background=True), pipeline))
            handle.remove()
        assert all(unet.attn_processors[name] is processor for name, processor in before.items())
        assert torch.equal(sampled(order(), pipeline), clean)


class TestSchedule:
    def test_ddim_has_the_timesteps_and_steps_of_diffusers(self, pipeline):
        scheduler = DDIMScheduler.from_config(pipeline.components.scheduler.config)
        scheduler.set_timesteps(50)
        schedule = schedule_of("DDIM", 50, scheduler)
        assert list(schedule.timesteps) == scheduler.timesteps.tolist()
        latents, noise = torch.randn(2, 1, 4, 8, 8)
        for index in (0, 20, 49):
            theirs = scheduler.step(noise, scheduler.timesteps[index], latents).prev_sample
            assert torch.allclose(DDIM(schedule).step(noise, index, latents), theirs, atol=1e-5)

    @pytest.mark.parametrize("sampler", SAMPLERS)
    @pytest.mark.parametrize("steps", [4, 5, 13, 50, 70, 300, 999])
    def test_covers_the_whole_range_and_finds_the_motion_steps(self, pipeline, sampler, steps):
        schedule = schedule_of(sampler, steps, pipeline.components.scheduler)
        assert len(schedule.timesteps) == steps
        assert all(a > b for a, b in zip(schedule.timesteps, schedule.timesteps[1:], strict=False))
        assert schedule.timesteps[0] >= 1000 * (1 - 1 / steps) - 1
        index_from, index_to = schedule.motion_steps(881, 941)
        assert 0 <= index_to < index_from < steps
        if steps >= 50:
            assert abs(schedule.timesteps[index_from] - 881) <= 10
            assert abs(schedule.timesteps[index_to] - 941) <= 10

    def test_fifty_steps_have_the_papers_timesteps(self, pipeline):
        schedule = schedule_of("DDIM", 50, pipeline.components.scheduler)
        index_from, index_to = schedule.motion_steps(881, 941)
        assert (schedule.timesteps[index_from], schedule.timesteps[index_to]) == (881, 941)
        assert (index_to, index_from) == (2, 5)

    @pytest.mark.parametrize(("motion_from", "motion_to"), [(1, 2), (1, 999), (998, 999), (300, 301)])
    def test_motion_ends_before_it_begins_wherever_both_are(self, pipeline, motion_from, motion_to):
        schedule = schedule_of("DDIM", 4, pipeline.components.scheduler)
        index_from, index_to = schedule.motion_steps(motion_from, motion_to)
        assert 0 <= index_to < index_from < 4


def test_a_restart_draws_all_frames_from_one_path_of_fresh_noise(pipeline):
    """Without smoothness other frames stay as they are; a smooth path makes them follow the first one."""
    changes = {"motion_smoothness": 0.0, "cross_frame_attention": False}
    kept, restarted = (sampled(order(**changes, restart=restart), pipeline) for restart in (False, True))
    assert torch.allclose(kept[1:], restarted[1:], atol=1e-5)
    assert (kept[0] - restarted[0]).abs().mean() > 1e-2
    still = {"pan_x": 0.0, "pan_y": 0.0, "motion_smoothness": 3.0, "restart": True}
    first, second, *_ = sampled(order(**still), pipeline)
    assert (second - first).square().mean() < 0.3 * (restarted[1] - restarted[0]).square().mean()


def test_a_restart_counts_no_step_more(pipeline):
    counts = []
    for restart in (False, True):
        count = EvaluationCount(pipeline.components.unet, branches=2)
        sampled(order(restart=restart), pipeline)
        count.handle.remove()
        counts.append(count.frames)
    assert counts[0] == counts[1]

"""Subjects that move, on tiny weights: poses of a ControlNet, and copies of the first frame without further noise."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from diffusers import ControlNetModel

from tests.runs import EvaluationCount, order, sampled
from text2video_zero.errors import UserError
from text2video_zero.events import Finished, Notice
from text2video_zero.generate import generate, sample
from text2video_zero.generators import result_of
from text2video_zero.job import Settings, build_job
from text2video_zero.media.settings import read_settings
from text2video_zero.requests import Size
from text2video_zero.requests.movement import MOVEMENTS, Moving
from text2video_zero.sampling.motion.warp import warp
from text2video_zero.sampling.noise import frame_noise
from text2video_zero.sampling.share import Share
from text2video_zero.sampling.smoothing import around_foreground
from text2video_zero.tasks.moving_subject import kept_in_view, own_cells
from text2video_zero.tasks.text_to_video import ClipRun, camera_views, motion_plan

MOVING = {"movement": "dance", "frames": 6, "fps": 8}
STILL = {"pan_x": 0.0, "pan_y": 0.0}
LATE = {"motion_from": 181, "motion_to": 281, "steps": 10}
"""With a T to which poses are no longer open, as Toyland has it."""


@pytest.fixture
def silent_pipeline(posed_pipeline):
    """With a ControlNet that adds exactly nothing, as freshly made ones do."""
    controlnet = ControlNetModel.from_unet(posed_pipeline.components.unet, conditioning_channels=3).eval()
    return dataclasses.replace(posed_pipeline, controlnet=controlnet)


@pytest.fixture
def loud_pipeline(posed_pipeline):
    """With a ControlNet that cannot be overheard."""
    controlnet = copy.deepcopy(posed_pipeline.controlnet)
    with torch.no_grad():
        for name, weight in controlnet.named_parameters():
            if name.startswith(("controlnet_down", "controlnet_mid", "controlnet_cond")):
                weight.mul_(10)
    return dataclasses.replace(posed_pipeline, controlnet=controlnet)


def test_without_a_movement_a_controlnet_changes_nothing(pipeline, posed_pipeline):
    assert torch.equal(sampled(order(), pipeline), sampled(order(), posed_pipeline))


@pytest.mark.parametrize("movement", MOVEMENTS[2:])
def test_poses_of_each_frame_s_own_make_frames_of_its_own(loud_pipeline, movement):
    frames = sampled(order(**MOVING | STILL | {"movement": movement, "frames": 3}), loud_pipeline)
    assert all((frames[0] - frame).abs().amax() > 1e-2 for frame in frames[1:])


@pytest.mark.parametrize("sampler", ["DDIM", "DPM++ 2M", "LCM"])
def test_frames_differ_in_their_poses_alone(silent_pipeline, sampler):
    """The background keeps still: there is no noise that each frame adds, whatever the smoothness."""
    for smoothness in (0.0, 4.0):
        asked = order(**MOVING | STILL, sampler=sampler, motion_smoothness=smoothness, restart=True)
        frames = sampled(asked, silent_pipeline)
        torch.testing.assert_close(frames, frames[:1].expand_as(frames), atol=1e-4, rtol=0)
    moved = sampled(order(**MOVING, pan_x=1 / 8, pan_y=0.0, sampler=sampler), silent_pipeline)
    assert (moved[0] - moved[1]).abs().amax() > 1e-2


@pytest.mark.parametrize(("sampler", "steps"), [("DDIM", 25), ("DPM++ 2M", 20), ("LCM", 4)])
def test_t_prime_is_t_where_poses_are_open(posed_pipeline, sampler, steps):
    asked = {"sampler": sampler, "steps": steps, "motion_from": 181, "motion_to": 281}
    plan = motion_plan(order(**MOVING, **asked), posed_pipeline)
    assert plan.at_from == plan.at_to
    assert abs(plan.opening.timesteps[plan.at_to] - 781) <= 20
    assert plan.joint.timesteps[plan.begin] == plan.opening.timesteps[plan.at_to]


def test_a_run_evaluates_what_its_plan_says(posed_pipeline):
    request = order(**MOVING, steps=10, guidance_scale=7.5)
    plan = motion_plan(request, posed_pipeline)
    counts = [EvaluationCount(network, 2) for network in (posed_pipeline.components.unet, posed_pipeline.controlnet)]
    sampled(request, posed_pipeline)
    for count in counts:
        count.handle.remove()
        assert count.frames == plan.at_to + 6 * (10 - plan.at_to)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"resampling": "smooth", "zoom": 0.02},
        {"resampling": "white", "rotation": 0.01},
        {"motion": False},
        {"motion_to": 999, "motion_from": 990, "resampling": "white"},
        {"sampler": "LCM", "steps": 4, "guidance_scale": 1.0},
        {"storyboard": "3: a blue robot", "shot_anchors": True},
        {"storyboard": "3: a blue robot"},
        {"smooth_background": True, "foreground_words": "panda"},
        {"cache_interval": 2},
        {"loop": True},
        {"movement": "walk"},
        LATE | {"movement": "walk", "resampling": "smooth", "pan_x": 0.1, "zoom": 0.01},
        LATE,
        LATE | {"storyboard": "3: a blue robot", "shot_anchors": True, "pan_x": 1 / 8},
        LATE | {"smooth_background": True, "foreground_words": "panda"},
        LATE | {"sampler": "DPM++ 2M", "cache_interval": 2},
    ],
    ids=str,
)
def test_the_chunk_size_changes_nothing(posed_pipeline, changes):
    whole, *others = (sampled(order(**MOVING | changes, chunk_size=size), posed_pipeline) for size in (6, 1, 4))
    assert whole.isfinite().all()
    for other in others:
        torch.testing.assert_close(whole, other, atol=1e-4, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize(
    "changes",
    [{}, LATE | {"pan_x": 1 / 8}, LATE | {"pan_x": 1 / 8, "movement": "walk"}],
    ids=["from T on", "late T", "along with the camera"],
)
def test_workers_make_the_same_clip_in_parts(posed_pipeline, changes):
    request = order(**MOVING | changes, chunk_size=2)
    parts = [result_of(sample(request, posed_pipeline, share=Share(number, 2))).latents for number in range(2)]
    torch.testing.assert_close(torch.cat(parts), sampled(request, posed_pipeline), atol=1e-4, rtol=0)


def test_a_shot_moves_as_the_clip_that_its_prompt_makes_alone(posed_pipeline):
    asked = MOVING | LATE
    board = {"storyboard": "4: a blue robot walking", "shot_anchors": True, "movement": "by the prompt"}
    story = sampled(order(**asked | board), posed_pipeline)
    shots = [
        sampled(order(**asked | {"prompt": prompt, "frames": frames, "movement": movement}), posed_pipeline)
        for prompt, frames, movement in ((order().prompt, 4, "dance"), ("a blue robot walking", 2, "walk"))
    ]
    torch.testing.assert_close(story, torch.cat(shots), atol=1e-4, rtol=0)


def test_who_goes_along_with_the_camera_keeps_her_place_in_the_latents(posed_pipeline):
    asked = MOVING | {"size": Size(256, 128), "pan_x": 1 / 16, "pan_y": 0.0, "reach": 1.0}
    for movement in ("walk", "dance"):
        request = order(**asked | {"movement": movement})
        views = camera_views(request, posed_pipeline)
        first = frame_noise(7, 0, (4, 16, 32), "cpu")
        moved = torch.stack([warp(first, view.cells, "nearest") for view in views])
        kept = kept_in_view(moved, request, posed_pipeline, views)
        assert torch.equal(kept[0], first)
        if movement == "dance":
            assert torch.equal(kept, moved)
            continue
        for frame in range(1, 6):
            stays, goes = (kept[frame] == first).all(0), (kept[frame] == moved[frame]).all(0)
            assert (stays | goes).all()
            assert stays[6:9, 16].all()  # the trunk
            assert stays[6:9, 16 - 2 * frame].all()  # where the scene has carried it to
            assert goes[:, : 10 - 2 * frame].all()
            assert goes[:, 24:].all()


@torch.inference_mode()
@pytest.mark.parametrize("steady", [True, False])
def test_around_the_subject_all_is_the_first_frame_s_as_the_camera_sees_it(loud_pipeline, steady):
    resampling = "steady" if steady else "smooth"
    request = order(**MOVING, size=Size(256, 128), pan_x=1 / 16, pan_y=0.0, reach=1.0, resampling=resampling)
    views = camera_views(request, loud_pipeline)
    latents = torch.stack([frame_noise(7, frame, (4, 16, 32), "cpu") for frame in range(6)])
    own = own_cells(request, loud_pipeline, views, 16, 32)
    kept = around_foreground(latents, own, [view.cells for view in views], 1.0, "nearest" if steady else "smooth")
    assert torch.equal(kept[0], latents[0])
    for frame in range(1, 6):
        moved = latents[0].roll(-2 * frame, -1)
        is_moved, is_own = (kept[frame] == moved).all(0), (kept[frame] == latents[frame]).all(0)
        assert (is_moved | is_own).all()
        assert is_moved[:, : max(8 - 2 * frame, 0)].all()  # to the left of the figure
        assert is_own[:, 32 - 2 * frame :].all()  # where the first frame ends
        assert is_own[6:9, 16 - 2 * frame].all()  # the trunk


def test_down_to_t_and_not_where_poses_are_open_at_t(loud_pipeline, monkeypatch):
    calls = []
    monkeypatch.setattr(ClipRun, "_around_the_subject", lambda _, latents: calls.append(len(latents)) or latents)
    sampled(order(**MOVING), loud_pipeline)
    sampled(order(**MOVING | LATE | {"movement": "none"}), loud_pipeline)
    sampled(order(**MOVING | LATE | {"motion": False}), loud_pipeline)
    assert calls == []
    sampled(order(**MOVING | LATE), loud_pipeline)
    assert calls == [6]


def test_it_is_told_and_stands_in_the_video_s_settings(posed_pipeline, tmp_path):
    events = list(generate(order(**MOVING | {"movement": "walk"}), posed_pipeline))
    assert any(isinstance(event, Notice) and "made to walk" in event.text for event in events)
    finished = events[-1]
    assert isinstance(finished, Finished)
    path = finished.video.save(tmp_path / "walk.mp4")
    assert read_settings(path)["request"]["movement"] == "walk"
    again = build_job("text-to-video", {}, model="sd-1.5", settings=Settings.read(path, "text-to-video"))
    assert again.request.movements == (Moving("person", "walk"),)


def test_a_model_without_a_controlnet_says_so(pipeline):
    with pytest.raises(UserError, match="comes without a ControlNet"):
        sampled(order(**MOVING), pipeline)

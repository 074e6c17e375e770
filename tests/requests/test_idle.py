"""Settings that do nothing beside others: they are told, and they do nothing."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.example_files import write_clip
from tests.runs import sampled
from text2video_zero.control.control_source import detector_name, detector_settings
from text2video_zero.events import Notice
from text2video_zero.generate import run_job
from text2video_zero.job import build_job
from text2video_zero.models.catalogue import TOYLAND, TOYLAND_FOLDER
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.requests import DreamBoothRequest, InstructPix2PixRequest, TextToVideoRequest
from text2video_zero.requests.idle import IDLE, copied_story, idle_settings, unreached_keys

CHANGED = {
    "movement": "walk",
    "pan_x": 0.125,
    "pan_y": -0.125,
    "zoom": 0.1,
    "rotation": 0.05,
    "reach": 0.1,
    "camera_keys": "2: right 0.25",
    "camera_eased": False,
    "shake": 0.05,
    "parallax": 0.5,
    "restart": True,
    "resampling": "white",
    "cell_step": 2,
    "motion_from": 400,
    "motion_to": 600,
    "start_strength": 0.9,
    "shot_anchors": True,
    "loop": True,
    "reference_frames": "first + previous",
    "smoothing_strength": 1.0,
    "foreground_detector": "salient object",
    "foreground_words": "fox",
    "negative_prompt": "red, lowres",
    "guidance_end": 0.5,
    "motion_smoothness": 3.0,
    "noise_follows": True,
}
"""Another value of each field that can be idle in a run of tiny weights."""
WHILE = {
    "motion": {"motion": False},
    "camera_keys": {"camera_keys": "2: right 0.25 down 0.125"},
    "resampling": {"resampling": "smooth"},
    "start_picture": {"start_picture": str(TOYLAND_FOLDER / "grid.png")},
    "movement": {"movement": "walk"},
    "storyboard": {},
    "shot_anchors": {"storyboard": "1: a blue robot", "shot_anchors": True},
    "cross_frame_attention": {"cross_frame_attention": False},
    "smooth_background": {},
    "guidance_scale": {"guidance_scale": 1.0},
}
"""For a field of a text-to-video request, by which others are idle: what makes them so."""


def text_to_video(**changes) -> TextToVideoRequest:
    asked = {"prompt": "a red fox", "frames": 3, "steps": 4, "seed": 1, "sampler": "DDIM"}
    asked |= {"motion_from": 500, "motion_to": 700}
    return TextToVideoRequest(**asked | changes)


def cases():
    """Field, and what makes it idle, for every such pair of a text-to-video request that tiny weights can run."""
    own = {name for name, _, _ in TextToVideoRequest.declarations()}
    for idle in IDLE:
        if idle.other in WHILE:
            beside = {} if idle.when(text_to_video()) else WHILE[idle.other]
            yield from (pytest.param(name, beside, id=f"{name}-{idle.other}") for name in idle.fields if name in own)


@pytest.mark.parametrize(("name", "beside"), list(cases()))
def test_what_is_called_idle_changes_nothing(posed_pipeline, name, beside):
    plain = text_to_video(**beside)
    changed = dataclasses.replace(plain, **{name: CHANGED[name]})
    assert idle_settings(changed, [name])
    assert torch.equal(sampled(plain, posed_pipeline), sampled(changed, posed_pipeline))


@pytest.mark.parametrize(("name", "shared"), [("motion_smoothness", True), ("noise_follows", False)])
def test_nor_does_it_in_instructions(manager, tiny_editor, tmp_path, name, shared):
    clip = str(write_clip(tmp_path, "gif"))
    asked = {"prompt": "snow", "clip": clip, "frames": 3, "steps": 4, "seed": 1, "shared_noise": shared}
    plain = InstructPix2PixRequest(**asked)
    changed = dataclasses.replace(plain, **{name: CHANGED[name]})
    assert idle_settings(changed, [name])
    with manager.lend(Checkpoint(str(tiny_editor), kind="instruct-pix2pix")) as editor:
        assert torch.equal(sampled(plain, editor), sampled(changed, editor))


@pytest.mark.parametrize("control", ["edge", "pose", "depth"])
def test_of_a_detectors_settings_those_are_idle_that_do_not_reach_it(control):
    plain = DreamBoothRequest(prompt="a fox", clip="a.mp4", control=control)
    others = {
        "canny_low": 50,
        "canny_high": 300,
        "pose_detector": "OpenPose",
        "hands_and_face": True,
        "depth_detector": "MiDaS",
    }
    for name, value in others.items():
        changed = dataclasses.replace(plain, **{name: value})
        same = all(asked(changed) == asked(plain) for asked in (detector_name, detector_settings))
        assert bool(idle_settings(changed, [name])) == same
        assert idle_settings(dataclasses.replace(changed, ready_made="yes"), [name])


def test_negative_prompts_are_heard_where_a_picture_is_guided():
    request = InstructPix2PixRequest(prompt="snow", clip="a.mp4", guidance_scale=1.0, negative_prompt="red")
    assert not idle_settings(request, ["negative_prompt"])


def test_one_sentence_for_each_reason_names_the_settings_as_they_are_labelled():
    request = text_to_video(motion=False, cell_step=2, zoom=0.1, negative_prompt="red", guidance_scale=1.0)
    assert idle_settings(request, ["cell_step", "zoom", "negative_prompt"]) == (
        "Zoom in and Cells per step do nothing while Motion is off. "
        "Negative prompt does nothing while Guidance scale is 1."
    )
    request = text_to_video(resampling="smooth", cell_step=2, camera_keys="2: right 0.25 down 0.125", pan_x=0.1)
    assert idle_settings(request, ["cell_step", "pan_x", "steps"]) == (
        "Pan right does nothing while Camera key frames is given. "
        "Cells per step does nothing while Movement of the latents is 'smooth'."
    )


def test_only_what_somebody_has_chosen_is_told():
    """Toyland's own settings are many, and a draft of its has no guidance."""
    for given in ({}, {"motion": False}, {"camera_keys": "3: zoom 1.2"}, {"resampling": "smooth"}):
        assert not build_job("text-to-video", {"prompt": "a fox", **given}, model=TOYLAND.name).remarks
    for preset in ("draft", "balanced", "best", "paper"):
        for task, files in (
            ("text-to-video", {}),
            ("edge", {"clip": "a.mp4"}),
            ("instruct-pix2pix", {"clip": "a.mp4"}),
        ):
            assert not build_job(task, {"prompt": "a fox", **files}, model=TOYLAND.name, preset=preset).remarks
        beside = {"motion": False, "camera_keys": "3: zoom 1.2"}
        job = build_job("text-to-video", {"prompt": "a fox", **beside}, model=TOYLAND.name, preset=preset)
        assert job.remarks == "Camera key frames does nothing while Motion is off."
    few_steps = {"prompt": "a fox", "speed": "4 steps", "motion": False}
    assert not build_job("text-to-video", few_steps, model=TOYLAND.name).remarks
    asked = {"prompt": "a fox", "negative_prompt": "red"}
    assert "Guidance scale is 1" in build_job("text-to-video", asked, model=TOYLAND.name, preset="draft").remarks


def test_key_frames_behind_the_last_frame_are_named():
    keys = {"camera_keys": "8: right 0.2; 12: hold; 20: zoom 1", "storyboard": "4: a cat; 24: a dog"}
    assert unreached_keys(text_to_video(**keys, frames=12)) == (
        "Camera key frames: the video has 12 frames and does not come to frame 12, 20. "
        "Storyboard: the video has 12 frames and does not come to frame 24."
    )
    assert not unreached_keys(text_to_video(**keys, frames=25))
    shots = unreached_keys(text_to_video(**keys, frames=12, shot_anchors=True))
    assert shots.startswith(
        "Camera key frames: the camera begins anew in each shot, the longest of which has 8 frames and does not come "
        "to frame 8, 12, 20. "
    )
    assert not unreached_keys(DreamBoothRequest(prompt="a fox", clip="a.mp4"))
    job = build_job("text-to-video", {"prompt": "a fox", "camera_keys": "8: zoom 2"}, model=TOYLAND.name)
    assert "does not come to frame 8" in job.remarks


def test_a_story_that_frames_are_too_finished_to_tell_is_said_to_be():
    story = {"prompt": "a tree in the snow", "frames": 12, "storyboard": "8: a fox on the beach", "shot_anchors": False}
    told = "Storyboard: with Motion on, all frames are copies of the first one down to T = 281,"
    assert build_job("text-to-video", story, model=TOYLAND.name).remarks.startswith(told)
    told_off = ({"motion": False}, {"motion_from": 881, "motion_to": 941}, {"storyboard": ""}, {"shot_anchors": True})
    for more in told_off:
        assert not copied_story(build_job("text-to-video", story | more, model=TOYLAND.name).request)


def test_a_run_begins_with_it(manager, tiny_checkpoint):
    given = {"prompt": "a red fox", "frames": 1, "steps": 4, "resampling": "smooth", "cell_step": 4}
    job = build_job("text-to-video", given, model=str(tiny_checkpoint))
    first = next(iter(run_job(job, manager)))
    assert first == Notice("Cells per step does nothing while Movement of the latents is 'smooth'.")

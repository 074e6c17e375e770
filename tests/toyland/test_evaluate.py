"""The truth of Toyland's videos, on pictures that its renderer drew."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from text2video_zero.evaluation.flow import Flows
from text2video_zero.evaluation.measures import MeasuredClip
from text2video_zero.media.clips import read_clip
from text2video_zero.models.catalogue import TOYLAND_FOLDER
from text2video_zero.requests import REQUESTS, Size, TextToVideoRequest
from text2video_zero.requests.camera import CameraPose
from toyland.evaluate import Truth, ask, asked_for, main, near_over_far, own_motion, scenes_of
from toyland.judges.judge import HEADS, load_judge
from toyland.judges.reader import load_reader
from toyland.world.bipeds import BIPEDS
from toyland.world.captions import plain_caption
from toyland.world.scene import random_scene, render


@pytest.fixture(scope="module")
def truth():
    return Truth(load_judge(TOYLAND_FOLDER / "judge"), load_reader(TOYLAND_FOLDER / "reader"))


@pytest.fixture(scope="module")
def scene():
    return random_scene(np.random.default_rng(4), subject="panda")


def first_frame(path):
    size = Size(128, 128)
    return np.asarray(read_clip(Path(path), first_frame=0, frames=1, fps=8, size=size, native=size).frames)[0]


def words(found):
    return {head: HEADS[head][label] for head, label in found.items()}


def test_a_prompt_names_what_the_judge_looks_for():
    named = {"subject": "panda", "color": "orange", "place": "beach"}
    assert words(asked_for("An orange panda bear, flying at the seaside")) == named
    assert words(asked_for("a fox")) == {"subject": "fox"}
    assert words(asked_for("a red car in a snowy field")) == {"subject": "car", "color": "red", "place": "snow"}
    assert asked_for("something else") == {}


def test_prompts_of_its_own_are_of_two_legged_subjects_or_of_all_others():
    for is_two_legged in (True, False):
        prompts = [plain_caption(scene) for scene in scenes_of(7, two_legged=is_two_legged)]
        assert len(set(prompts)) == 7
        named = {words(asked_for(prompt))["subject"] for prompt in prompts}
        assert all((subject in BIPEDS) == is_two_legged for subject in named)


@pytest.mark.parametrize("task", ["edge", "instruct-pix2pix"])
def test_a_task_that_begins_with_a_clip_gets_one_for_each_prompt(truth, tmp_path, task):
    arguments = argparse.Namespace(
        count=3, evaluated_task=task, set=[], out=tmp_path, prompt=[], clips=[], creatures=False
    )
    shows = ask(arguments)
    assert len(arguments.prompt) == len(arguments.clips) == len(shows) == 3
    for prompt, clip in zip(arguments.prompt, arguments.clips, strict=True):
        assert Path(clip).is_file()
        wanted, before = render(shows[clip], 128).image, first_frame(clip)
        assert not np.array_equal(wanted, before)
        request = REQUESTS[task](clip=clip, prompt=prompt)
        judged = dataclasses.replace(truth, shows=shows)
        assert judged(MeasuredClip(wanted[None], request))["right"] == 1
        assert judged(MeasuredClip(before[None], request))["right"] == 0


def test_one_clip_that_is_given_serves_all_prompts_of_its_own(tmp_path):
    arguments = argparse.Namespace(
        count=2, evaluated_task="edge", set=["clip=fox.mp4"], out=tmp_path, prompt=[], clips=[], creatures=False
    )
    assert ask(arguments) == {}
    assert (len(arguments.prompt), arguments.clips) == (2, [])


def test_a_still_picture_of_what_was_asked_for_is_right_and_itself(truth, scene):
    frames = np.repeat(render(scene, 128).image[None], 3, axis=0)
    still = [CameraPose(0, 0, 1, 0)] * 3
    found = truth(MeasuredClip(frames, TextToVideoRequest(prompt=plain_caption(scene)), still))
    assert found["right"] == found["identity"] == 1
    assert found["joints"] == found["own"] == found["beside"] == 0
    wrong = truth(MeasuredClip(frames, TextToVideoRequest(prompt="a blue fish in the ocean"), still))
    assert wrong["right"] == 0


def test_another_subject_in_the_middle_costs_identity(truth, scene):
    other = random_scene(np.random.default_rng(5), subject="car")
    frames = np.stack([render(one, 128).image for one in (scene, scene, other, other)])
    found = truth(MeasuredClip(frames, TextToVideoRequest(prompt=plain_caption(scene))))
    assert found["identity"] == found["right"] == 0.5


def test_joints_that_go_with_the_camera_have_no_motion_of_their_own():
    joints = np.random.default_rng(0).uniform(40, 80, (1, 18, 2)) + np.zeros((5, 1, 1))
    poses = [CameraPose(3 * frame / 128, 0, 1, 0) for frame in range(5)]
    carried = joints - np.array([[[3 * frame, 0]] for frame in range(5)])
    assert own_motion(carried, poses, 128, 128) == pytest.approx(0, abs=1e-4)
    assert own_motion(joints, poses, 128, 128) == pytest.approx(3, abs=1e-4)
    assert own_motion(carried, None, 128, 128) == pytest.approx(3)


def test_near_over_far_is_how_much_further_near_things_go():
    poses = [CameraPose(4 * frame / 128, 0, 1, 0) for frame in range(3)]
    depth = np.repeat(np.linspace(0, 1, 128)[None, :, None], 3, 0) + np.zeros((1, 1, 128))
    flow = np.zeros((2, 128, 128, 2), np.float32)
    flow[..., 0] = -4 * (0.5 + depth[:2])  # quarters: 0.5 to 0.75, and 1.25 to 1.5
    flows = Flows(flow, -flow)
    assert near_over_far(flows, poses, depth) == pytest.approx(1.375 / 0.625, rel=0.02)
    assert np.isnan(near_over_far(flows, [poses[0]] * 3, depth))


def test_mistakes_are_told_in_one_line(capsys):
    assert main(["--seeds", "0", "--quiet"]) == 2
    assert capsys.readouterr().err == "--seeds is 0: give a whole number from 1 on.\n"

"""Presets: whole, within range, and settable by page and command line alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from text2video_zero.__main__ import build_parser, job_of
from text2video_zero.errors import UserError
from text2video_zero.job import build_job, defaults_of, preset_values
from text2video_zero.requests import REQUESTS, FieldSpec
from text2video_zero.requests.fields import BASICS, CLIP, START
from text2video_zero.requests.presets import BALANCED, BEST, DRAFT, PAPER, PRESETS, preset_fields

# What is not of the method: what is asked for and of which model, what of the clip is seen, how the work is divided.
THE_PERSONS = {
    "chunk_size",
    "ready_made",
    "control",
    "pose_detector",
    "hands_and_face",
    "depth_detector",
    "foreground_detector",
    "foreground_words",
    "storyboard",
    "play_fps",
    "prediction",
}


def of_the_method(name: str, spec: FieldSpec) -> bool:
    return name == "speed" or (spec.section not in {BASICS, START, CLIP} and name not in THE_PERSONS)


@pytest.mark.parametrize("task", REQUESTS)
def test_the_papers_preset_settles_every_field_of_the_method(task):
    fields = {name for name, _, spec in REQUESTS[task].declarations() if of_the_method(name, spec)}
    assert set(PRESETS[PAPER].values[task]) == fields


@pytest.mark.parametrize("model", ["toyland", "sd-1.5"])
@pytest.mark.parametrize("task", REQUESTS)
def test_the_papers_settings_do_not_hang_on_the_model(task, model):
    clip = {"clip": "clip.mp4"} if "clip" in {name for name, _, _ in REQUESTS[task].declarations()} else {}
    model = "toyland-sunset" if (task, model) == ("dreambooth", "toyland") else model
    request = build_job(task, {"prompt": "a fox", **clip}, model=model, preset=PAPER).request
    asked = request.to_dict()
    assert {name: asked[name] for name in preset_fields(task)} == PRESETS[PAPER].values[task]


@pytest.mark.parametrize("task", REQUESTS)
def test_balanced_is_what_the_model_has_by_itself(task):
    values, defaults = preset_values(task, "toyland", BALANCED), defaults_of(task, "toyland")
    assert values == {name: defaults[name] for name in preset_fields(task)}


@pytest.mark.parametrize("model", ["toyland", "sd-1.5", "owner/name"])
@pytest.mark.parametrize("task", REQUESTS)
def test_a_draft_takes_fewer_steps_than_balanced_and_the_best_takes_more(task, model):
    draft, balanced, best = (preset_values(task, model, preset)["steps"] for preset in (DRAFT, BALANCED, BEST))
    assert draft < balanced < best


def test_a_draft_takes_the_speed_of_models_that_have_one_and_of_no_other():
    def draft(task, model):
        values = preset_values(task, model, DRAFT)
        return values.get("speed"), values["sampler"], values["steps"], values["guidance_scale"]

    assert draft("text-to-video", "toyland") == ("4 steps", "LCM", 4, 1.0)
    assert draft("pose", "sd-1.5") == ("full quality", "DDIM", 8, 9.0)  # LCM's LoRA would be a download
    assert draft("text-to-video", "owner/name") == ("full quality", "DDIM", 20, 7.5)
    assert draft("instruct-pix2pix", "toyland")[0] is None
    job = build_job("text-to-video", {"prompt": "a fox"}, model="toyland", preset=DRAFT)
    assert [Path(adapter.source).parent.name for adapter in job.checkpoint.adapters] == ["student"]


def test_the_best_lets_poses_flow_and_a_speed_that_is_given_goes_before_a_preset():
    assert preset_values("text-to-video", "sd-1.5", BEST)["motion_smoothness"] == 4.0
    request = build_job("text-to-video", {"prompt": "a fox", "speed": "full quality"}, preset=DRAFT).request
    assert (request.sampler, request.steps) == ("DDIM", 25)


def test_the_command_line_takes_a_preset_and_options_go_before_it():
    def job(*options):
        return job_of(build_parser().parse_args(["text-to-video", "--prompt", "a fox", *options]))

    assert job("--preset", "paper").request.motion_from == 881
    mixed = job("--preset", "paper", "--motion-from", "700", "--frames", "16").request
    assert (mixed.motion_from, mixed.motion_to, mixed.frames) == (700, 941, 16)
    faster = job("--model", "sd-1.5", "--preset", "paper", "--speed", "LCM").request
    assert (faster.sampler, faster.steps, faster.resampling) == ("LCM", 8, "nearest")


def test_an_unknown_preset_is_told_with_those_there_are():
    with pytest.raises(UserError, match=r"'papr' is not known: choose one of draft, balanced, best, paper\."):
        build_job("text-to-video", {"prompt": "a fox"}, preset="papr")

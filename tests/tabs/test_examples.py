"""The example clips, the examples of the tabs, and the finished ones that the page shows first."""

from __future__ import annotations

import json

import numpy as np
import pytest

from serving.menu import ModelMenu
from tabs.parts.examples import cards_of
from tabs.parts.result import find_example
from tabs.tasks import CLIP_TABS, CLIPS, TABS
from text2video_zero.control.ready_made import looks_ready_made
from text2video_zero.media.clips import probe, read_clip
from text2video_zero.media.settings import read_settings
from text2video_zero.media.video import Video
from text2video_zero.models.catalogue import TOYLAND_FOLDER
from text2video_zero.requests import REQUESTS, Size
from toyland import examples
from toyland.world import clips, edits

SIDE = Size(clips.SIDE, clips.SIDE)
EXAMPLES = [(tab.request, example) for tab in CLIP_TABS for example in tab.examples]


def frames_in(path):
    return np.asarray(read_clip(path, first_frame=0, frames=99, fps=clips.FPS, size=SIDE, native=SIDE).frames)


@pytest.mark.parametrize("name", clips.CLIPS)
def test_the_clips_in_the_repository_are_what_the_renderer_draws(name):
    path = CLIPS / f"{name}.mp4"
    drawn = clips.frames_of(clips.CLIPS[name])
    assert path.stat().st_size < 100_000
    assert probe(path).fps == clips.FPS
    assert np.abs(frames_in(path).astype(int) - drawn).mean() < 3


@pytest.mark.parametrize("name", clips.CLIPS)
def test_a_clip_moves_and_ends_where_it_began(name):
    frames = clips.frames_of(clips.CLIPS[name], 64).astype(int)
    steps = np.abs(np.roll(frames, -1, axis=0) - frames).mean((1, 2, 3))
    assert steps[-1] <= 2 * steps[:-1].max()
    assert steps.max() > 0.2


@pytest.mark.parametrize(("name", "kind"), [("dancing-skeleton", "pose"), ("walking-skeleton", "pose")])
def test_skeletons_are_recognised_as_control_maps(name, kind):
    assert all(looks_ready_made(frame, kind) for frame in frames_in(CLIPS / f"{name}.mp4"))


@pytest.mark.parametrize(("request_type", "example"), EXAMPLES, ids=lambda value: getattr(value, "task", ""))
def test_every_example_of_a_tab_is_a_request_in_words_that_toyland_knows(request_type, example):
    request = request_type.from_dict(example)
    assert probe(request.clip).frames == clips.FRAMES
    vocabulary = ModelMenu("toyland", free=False).of_task(request.task).vocabulary("toyland")
    assert vocabulary.unknown_words(request.prompt) == []


def test_the_editor_knows_instructions_and_the_model_of_pictures_does_not():
    menu = ModelMenu("toyland", free=False)
    editor, pictures = (menu.of_task(task).vocabulary("toyland") for task in ("instruct-pix2pix", "text-to-video"))
    asked = [phrase for phrases in edits.instruction_vocabulary()["instructions"].values() for phrase in phrases]
    assert all(editor.unknown_words(phrase) == [] for phrase in asked)
    assert pictures.unknown_words("make it snow") == ["make"]
    written = json.loads((TOYLAND_FOLDER / "instruct-pix2pix" / "vocabulary.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(edits.instruction_vocabulary()))


def test_the_examples_of_a_tab_name_the_same_fields():
    for tab in TABS:
        assert len({frozenset(example) for example in tab.examples}) == 1


def test_a_card_shows_the_clip_and_the_prompt_as_text(tmp_path):
    clip = tmp_path / "black & white.mp4"
    cards = cards_of([{"clip": str(clip), "prompt": "<b>"}, {"clip": str(clip), "prompt": "a fox"}])
    assert cards.count(f'src="gradio_api/file={tmp_path}/black%20%26%20white.mp4"') == 2
    assert '<button type="button" data-example="1">' in cards
    assert "&lt;b&gt;" in cards


def test_the_page_shows_first_what_its_settings_say(tmp_path):
    assert find_example("edge", tmp_path) is None
    settings = {"model": "toyland", "request": {"prompt": "a fox", "seed": 7}}
    Video(np.zeros((2, 16, 16, 3), np.uint8), 8, settings).save(tmp_path / "edge.mp4")
    found = find_example("edge", tmp_path)
    assert found.caption == "Example: “a fox”, made with toyland, seed 7."
    assert found.guide is None
    Video(np.zeros((2, 16, 16, 3), np.uint8), 8, {}).save(tmp_path / "edge-guide.mp4")
    assert find_example("edge", tmp_path).guide == tmp_path / "edge-guide.mp4"


@pytest.mark.parametrize("task", REQUESTS)
def test_what_the_page_shows_first_was_made_as_the_script_says(task):
    model, example = examples.model_of(task), find_example(task)
    if example is None:
        pytest.skip(f"no example of {task} has been rendered yet")
    assert model in ModelMenu("toyland", free=False).of_task(task).names()
    request = examples.order(task, model)
    settings = read_settings(example.video)
    assert {name: settings["request"][name] for name in examples.RESULTS[task]} == {
        name: request.to_dict()[name] for name in examples.RESULTS[task]
    }
    assert settings["request"]["seed"] == request.seed
    if "clip" in examples.RESULTS[task]:
        assert probe(example.guide).frames == probe(example.video).frames == request.frames

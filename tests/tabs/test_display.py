from __future__ import annotations

import base64
import io
import json
import re

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from serving.menu import ModelMenu
from tabs.look import display
from tabs.look.theme import STYLE
from tabs.parts.model_choice import unknown_words_note, word_list
from tabs.parts.presets import build_presets
from tabs.tasks import TEXT_TO_VIDEO
from text2video_zero.events import Preview, Progress, duration
from text2video_zero.requests import TextToVideoRequest


def decoded(data_url):
    return Image.open(io.BytesIO(base64.b64decode(data_url.removeprefix("data:image/webp;base64,"))))


def frames(count, height=8, width=16):
    """Each frame of one colour, all different, so that an encoder cannot merge them."""
    return np.broadcast_to(
        np.linspace(0, 255, count).astype(np.uint8)[:, None, None, None], (count, height, width, 3)
    ).copy()


def test_a_preview_is_one_endless_animation_that_keeps_the_video_s_shape_and_pace():
    picture = decoded(display.animation(frames(8), fps=4))
    picture.load()
    assert (picture.n_frames, picture.size, picture.info["loop"]) == (8, (16, 8), 0)
    assert picture.info["duration"] == 250
    assert "aspect-ratio:16/8" in display.preview(Preview(frames(2)), fps=4)


def test_a_long_preview_is_thinned_out_and_takes_as_long_as_the_video():
    picture = decoded(display.animation(frames(240), fps=24))
    assert picture.n_frames == display.PREVIEW_FRAMES
    picture.seek(1)
    picture.load()
    assert picture.info["duration"] == pytest.approx(10_000 / display.PREVIEW_FRAMES, abs=1)


def test_a_single_frame_is_a_preview_too():
    assert decoded(display.animation(frames(1), fps=8)).size == (16, 8)


def test_progress_says_stage_count_share_and_time_left():
    line = display.progress(Progress("Denoising", 12, 48, 31.4))
    assert all(part in line for part in ("Denoising", "12 of 48", "translateX(-75.0%)", "about 31 s left"))
    assert "left" not in display.progress(Progress("Denoising", 1, 48))
    assert 'aria-valuemax="48" aria-valuenow="12"' in line
    unmeasured = display.progress(Progress("Loading", 0, 1))
    assert "unmeasured" in unmeasured
    assert "aria-valuenow" not in unmeasured


def test_what_moves_for_long_is_neither_laid_out_nor_painted_anew_at_each_frame_of_the_browser():
    style = STYLE.read_text()
    steps = re.findall(r"@keyframes [\w-]+ \{(.*?\})\s*\}", style, re.DOTALL)
    moved = {name for step in steps for name in re.findall(r"([\w-]+):", step)}
    (bar,) = re.findall(r"\.status \.bar i \{.*?transition: ([\w-]+) ", style, re.DOTALL)
    assert len(steps) == style.count("@keyframes") > 1
    assert moved | {bar} == {"opacity", "transform"}


def test_messages_cannot_bring_html_into_the_page():
    for made in (
        display.line("<script>", "failed"),
        display.empty("<script>"),
        display.progress(Progress("<script>", 0, 1)),
        display.toast("<script>"),
    ):
        assert "<script>" not in made
        assert "&lt;script&gt;" in made


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "1 s"), (42.3, "42 s"), (150, "2 min"), (3000, "50 min"), (9000, "2.5 h")]
)
def test_durations_are_said_as_a_person_would(seconds, said):
    assert duration(seconds) == said


@pytest.fixture
def wordy(tmp_path):
    """A menu with a model of a few words."""
    words = {"subjects": {"panda": ["bear"]}, "places": {"snow": []}, "other": {"a": [], "in": [], "the": []}}
    (tmp_path / "vocabulary.json").write_text(json.dumps(words))
    return ModelMenu(str(tmp_path), free=True)


def test_the_note_names_the_words_that_the_model_has_never_seen(wordy):
    assert unknown_words_note(wordy, wordy.default, "a panda in the snow") == ""
    note = unknown_words_note(wordy, wordy.default, "a panda plays <b>violin</b>")
    assert "<b>plays</b>" in note
    assert "<b>violin</b>" in note
    assert unknown_words_note(wordy, "sd-1.5", "a violin") == ""
    assert unknown_words_note(wordy, "", None) == ""


def test_words_of_a_movement_are_known_where_the_app_reads_them(wordy, tmp_path):
    assert "waving" not in unknown_words_note(wordy, wordy.default, "a panda waving")
    assert "waving" in unknown_words_note(wordy, wordy.default, "a fox waving")  # which it cannot
    assert "galloping" not in unknown_words_note(wordy, wordy.default, "a fox galloping")
    poses = ModelMenu(str(tmp_path), free=True, task="pose")
    assert "waving" in unknown_words_note(poses, str(tmp_path), "a panda waving")


def test_the_list_shows_words_by_role_where_there_is_one(wordy):
    assert "panda" in word_list(wordy, wordy.default)
    assert word_list(wordy, "sd-1.5") == ""


def test_every_camera_preset_is_a_valid_request_and_the_defaults_are_one_of_them():
    presets = TEXT_TO_VIDEO.presets
    for name, values in presets.table.items():
        assert TextToVideoRequest(prompt="a fox", **values)
        assert tuple(values) == presets.fields, name
    defaults = {name: default for name, default, _ in TextToVideoRequest.declarations()}
    with gr.Blocks(analytics_enabled=False):
        assert build_presets("text-to-video", presets, defaults).radio.value == "Pan right-down"
        assert build_presets("text-to-video", presets, defaults | {"zoom": 0.1}).radio.value is None


def test_every_example_is_a_valid_request():
    for example in TEXT_TO_VIDEO.examples:
        assert TextToVideoRequest(**example)


def test_notes_stay_as_a_list_and_take_no_room_while_there_are_none():
    assert display.notes([]) == ""
    assert display.notes(["one", "<two>"]) == '<ul class="notes"><li>one</li><li>&lt;two&gt;</li></ul>'

"""Key frames as a person writes them."""

from __future__ import annotations

import math

import pytest

from text2video_zero.errors import UserError
from text2video_zero.requests import TextToVideoRequest
from text2video_zero.requests.camera import CameraKey, CameraPose, read_camera_keys
from text2video_zero.requests.key_frames import Between
from text2video_zero.requests.text_to_video import read_storyboard


def test_a_storyboard_is_frames_with_prompts():
    read = [(12, "a fox: red, on the beach"), (24, "the city")]
    assert read_storyboard(" 12: a fox: red, on the beach ;24:the city;") == read
    assert read_storyboard("12: a fox: red, on the beach\n\n24: the city") == read
    assert read_storyboard("  ") == []


def test_camera_keys_build_on_the_one_before():
    assert read_camera_keys("4: Right 0.2 zoom 1.5; 8: hold; 12: left 0.1 turn 0.5") == (
        CameraKey(4, CameraPose(0.2, 0, 1.5, 0)),
        CameraKey(8, CameraPose(0.2, 0, 1.5, 0)),
        CameraKey(12, CameraPose(-0.1, 0, 1.5, math.pi)),
    )
    assert read_camera_keys("") == ()


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("storyboard", "a fox", "Storyboard has 'a fox': write 'FRAME: …; FRAME: …'"),
        ("storyboard", "12:", "Storyboard has '12:'"),
        ("storyboard", "-1: a fox", "Storyboard has '-1: a fox'"),
        ("storyboard", "9" * 4500 + ": a fox", "Storyboard has '999"),
        ("storyboard", "0: a fox", "Storyboard names frame 0: give frames from 1 on"),
        ("storyboard", "8: a fox; 8: a dog", "Storyboard names frame 8 after frame 8: give them in rising order"),
        ("camera_keys", "4: right", "has 'right': write pairs of word and number"),
        ("camera_keys", "4: spin 3", "has 'spin': choose from right, left, down, up, zoom, turn and hold"),
        ("camera_keys", "4: zoom nan", "has zoom nan: give a number from 0.25 to 4"),
        ("camera_keys", "4: left 1.5", "has left 1.5: give a number from -1 to 1"),
    ],
)
def test_mistakes_are_told_with_the_remedy(field, text, message):
    with pytest.raises(UserError) as told:
        TextToVideoRequest(prompt="a fox", **{field: text})
    assert message in str(told.value)


def test_smoothing_by_words_and_a_storyboard_do_not_go_together():
    both = {"prompt": "a fox", "storyboard": "4: a dog", "smooth_background": True}
    with pytest.raises(UserError, match="a storyboard has several"):
        TextToVideoRequest(**both)
    assert TextToVideoRequest(**both, foreground_detector="salient object").smooth_background


def test_a_frame_lies_between_two_keys_or_after_the_last():
    keys = (0, 4, 10)
    assert Between.of(0, keys) == Between(0, 1, 0.0)
    assert Between.of(3, keys) == Between(0, 1, 0.75)
    assert Between.of(4, keys) == Between(1, 2, 0.0)
    assert Between.of(10, keys) == Between.of(500, keys) == Between(2, 2, 0.0)

"""The camera: where it is, and its movements by name, values for the motion fields of a text-to-video request."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from text2video_zero.errors import FieldError
from text2video_zero.requests.key_frames import read_key_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PAPER_PAN = 12 / 512
"""The authors' movement: 12 of 512 pixels to the right and down, from frame to frame."""

PAN = 0.025
"""Of a pan, in shares of the frame per frame: what a small model follows (docs/EVALUATION.md, "Which cells ...")."""

CAMERA_PRESETS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        name: MappingProxyType(dict(zip(("pan_x", "pan_y", "zoom", "rotation"), speeds, strict=True)))
        for name, speeds in {
            "Pan right-down": (PAPER_PAN, PAPER_PAN, 0.0, 0.0),
            "Pan right": (PAN, 0.0, 0.0, 0.0),
            "Pan left": (-PAN, 0.0, 0.0, 0.0),
            "Pan up": (0.0, -PAN, 0.0, 0.0),
            "Pan down": (0.0, PAN, 0.0, 0.0),
            "Zoom in": (0.0, 0.0, 0.04, 0.0),
            "Zoom out": (0.0, 0.0, -0.04, 0.0),
            "Rotate": (0.0, 0.0, 0.0, 0.008),
            "Still": (0.0, 0.0, 0.0, 0.0),
        }.items()
    }
)


@dataclass(frozen=True)
class CameraPose:
    """Where the camera is, against frame 0.

    x, y: shift in widths and heights of the frame.  scale: magnification of the picture, > 0.
    angle: clockwise turn in radians.
    """

    x: float
    y: float
    scale: float
    angle: float


@dataclass(frozen=True)
class CameraKey:
    """A frame at which the camera shall be at a pose."""

    frame: int
    pose: CameraPose


BEGINNING = CameraPose(0, 0, 1, 0)
HOLD = "hold"
# word -> how it changes a pose, by a number within bounds
_WORDS: Mapping[str, tuple[Callable[[CameraPose, float], CameraPose], float, float]] = MappingProxyType(
    {
        "right": (lambda pose, share: replace(pose, x=share), -1, 1),
        "left": (lambda pose, share: replace(pose, x=-share), -1, 1),
        "down": (lambda pose, share: replace(pose, y=share), -1, 1),
        "up": (lambda pose, share: replace(pose, y=-share), -1, 1),
        "zoom": (lambda pose, scale: replace(pose, scale=scale), 0.25, 4),
        "turn": (lambda pose, turns: replace(pose, angle=math.tau * turns), -4, 4),
    }
)
_EXAMPLE = "for example '8: right 0.2 zoom 1.3; 12: hold; 20: right 0 zoom 1'"


def read_camera_keys(text: str) -> tuple[CameraKey, ...]:
    """Key frames as the person writes them, "FRAME: WORD NUMBER WORD NUMBER; …", in order; none for a blank text.

    right, left, down, up: how far the camera is from where it began, in widths or heights of the frame.  zoom: how
    large the picture is against frame 0.  turn: full turns to the right.  What a key leaves out is as at the key
    before; "hold" changes nothing. Raises UserError for anything else.
    """
    keys, pose = [], BEGINNING
    for frame, words in read_key_frames(text, "Camera key frames", _EXAMPLE):
        pose = _moved(pose, words.lower().split())
        keys.append(CameraKey(frame, pose))
    return tuple(keys)


def _moved(pose: CameraPose, words: list[str]) -> CameraPose:
    if words == [HOLD]:
        return pose
    if not words or len(words) % 2:
        raise FieldError(f"Camera key frames has {' '.join(words)!r}: write pairs of word and number, {_EXAMPLE}.")
    for word, number in zip(words[::2], words[1::2], strict=True):
        if word not in _WORDS:
            raise FieldError(f"Camera key frames has {word!r}: choose from {', '.join(_WORDS)} and {HOLD}, {_EXAMPLE}.")
        change, lowest, highest = _WORDS[word]
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not lowest <= value <= highest:
            raise FieldError(f"Camera key frames has {word} {number}: give a number from {lowest:g} to {highest:g}.")
        pose = change(pose, value)
    return pose

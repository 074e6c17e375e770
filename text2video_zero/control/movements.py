"""Movements of a subject on two legs, as control maps: a skeleton that walks, dances, jumps, waves or flies.

Poses of each frame's own are what the paper's fresh noise makes; here they follow a motion in time, and a ControlNet
draws the subject in them. Some are near to what Toyland's renderer draws, which its ControlNet knows; the renderer has
its own, so that a dance can be changed without another world to be trained on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import cv2
import numpy as np

from text2video_zero.control.figure import KEYPOINTS, MIRRORED_ORDER, Posture, pose_of
from text2video_zero.control.pose import draw_skeletons
from text2video_zero.requests import Size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from text2video_zero.control.figure import Build
    from text2video_zero.sampling.motion.split import SplitPose

HEIGHT, WIDTH = 0.74, 0.85
"""Of the standing figure: shares of the frame's height and, where that would be less, of its width."""
GROUND = 0.9
"""Where its feet are, as a share of the frame's height."""
_ANKLES = [KEYPOINTS.index("r_ankle"), KEYPOINTS.index("l_ankle")]


@dataclass(frozen=True)
class Movement:
    """A movement that repeats itself.

    posture: (sin, cos) of its phase -> how the figure holds itself.  seconds: of one period.
    goes: it leads on, to where the figure faces, so that a camera that pans goes along with it.
    """

    posture: Callable[[float, float], Posture]
    seconds: float
    goes: bool = False


def _standing(wave: float, swing: float) -> Posture:
    return Posture(
        r_arm=(-32 - 5 * wave, -18 - 3 * wave),
        l_arm=(32 + 5 * wave, 18 + 3 * wave),
        r_leg=(-3, -2),
        l_leg=(3, 2),
        lean=1.5 * wave,
        head=3 * swing,
        sway=0.012 * wave,
    )


def _walking(wave: float, swing: float) -> Posture:
    # The leg that comes forward bends its knee: the right one while `wave` rises.
    right, left = 34 * wave, -34 * wave
    return Posture(
        r_arm=(-30 - 22 * wave, -16 - 20 * wave),
        l_arm=(30 + 24 * wave, 44 + 34 * wave),
        r_leg=(right, right - 8 - 46 * max(swing, 0)),
        l_leg=(left, left - 8 - 46 * max(-swing, 0)),
        lean=3,
        head=2 * wave,
        stance=0.05,
    )


def _running(wave: float, swing: float) -> Posture:
    right, left = 40 * wave, -40 * wave
    return Posture(
        r_arm=(-28 - 32 * wave, 16 - 36 * wave),
        l_arm=(34 + 32 * wave, 84 + 36 * wave),
        r_leg=(right + 8, right - 22 - 50 * max(swing, 0)),
        l_leg=(left + 8, left - 22 - 50 * max(-swing, 0)),
        lean=6,
        head=-3,
        stance=0.05,
        lift=0.04 * abs(wave),
    )


def _dancing(wave: float, swing: float) -> Posture:
    right, left = max(wave, 0), max(-wave, 0)
    return Posture(
        r_arm=(-112 - 18 * wave, -165 - 25 * wave),
        l_arm=(112 - 18 * wave, 165 - 25 * wave),
        r_leg=(-10 - 45 * right, -4 + 35 * right),
        l_leg=(10 + 45 * left, 4 - 35 * left),
        lean=-7 * wave,
        head=-5 * wave,
        sway=0.05 * wave,
        lift=0.01 * (1 - abs(swing)),
    )


def _jumping(wave: float, _swing: float) -> Posture:
    up, down = max(wave, 0), max(-wave, 0)
    return Posture(
        r_arm=(-35 - 90 * up + 10 * down, -20 - 135 * up),
        l_arm=(35 + 90 * up - 10 * down, 20 + 135 * up),
        r_leg=(-5 - 48 * up - 30 * down, -3 + 20 * up + 32 * down),
        l_leg=(5 + 48 * up + 30 * down, 3 - 20 * up - 32 * down),
        lift=0.14 * up,
    )


def _waving(wave: float, swing: float) -> Posture:
    return Posture(
        r_arm=(-32 - 4 * wave, -18),
        l_arm=(108 + 6 * wave, 150 + 34 * wave),
        r_leg=(-3, -2),
        l_leg=(3, 2),
        lean=-2,
        head=3 * swing,
        sway=0.01 * swing,
    )


def _flying(wave: float, swing: float) -> Posture:
    return Posture(
        r_arm=(-75 - 5 * wave, -60),
        l_arm=(125 + 4 * wave, 140),
        r_leg=(-52 + 7 * wave, -50),
        l_leg=(-36 - 7 * wave, -40),
        lean=46,
        head=-42 + 2 * swing,
        sway=-0.12,
        stance=0.07,
        lift=0.22 + 0.025 * wave,
    )


MOVED: Mapping[str, Movement] = MappingProxyType(
    {
        "stand": Movement(_standing, 2.0),
        "walk": Movement(_walking, 1.0, goes=True),
        "run": Movement(_running, 0.5, goes=True),
        "dance": Movement(_dancing, 1.0),
        "jump": Movement(_jumping, 1.0),
        "wave": Movement(_waving, 1.0),
        "fly": Movement(_flying, 1.0, goes=True),
    }
)
"""By the names that requests/movement.py gives them."""


def skeletons(
    name: str, views: Sequence[SplitPose], fps: float, size: Size, build: Build, *, loop: bool = False
) -> Iterator[np.ndarray]:
    """Control maps (height, width, 3) uint8 of a figure that moves, one for each view of the camera.

    name: of the movement.  views: the camera's, of the frames of one shot.  fps: frames a second.
    loop: whether the last frame leads into the first; the movement is then a little slower or faster.
    One that goes, goes to the left where the camera first pans there.
    """
    movement = MOVED[name]
    turns = 1 / (movement.seconds * fps)  # in one frame
    if loop:
        turns = max(1, round(len(views) * turns)) / len(views)
    to_left = movement.goes and next((view.whole.x for view in views if view.whole.x), 0) < 0
    for frame, view in enumerate(views):
        figure = _figure(movement, math.tau * turns * frame, build, mirrored=to_left)
        yield _drawn(figure, view, size, goes=movement.goes)


def body_of(skeleton: np.ndarray, build: Build) -> np.ndarray:
    """Where the figure of a map (height, width, 3) that `skeletons` has drawn may be, (height, width) uint8, 0 or 1."""
    height, width = skeleton.shape[:2]
    radius = round(build.girth * _unit(Size(width, height)))
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    drawn = np.array(skeleton.any(axis=-1), np.uint8)
    return np.asarray(cv2.dilate(drawn, around))


def _unit(size: Size) -> float:
    """Pixels that a standing figure is high."""
    return min(HEIGHT * size.height, WIDTH * size.width)


def _figure(movement: Movement, phase: float, build: Build, *, mirrored: bool) -> np.ndarray:
    """Joints (18, 2) at a phase in radians, from a point on the ground, where the lower foot is unless it is lifted."""
    posture = movement.posture(math.sin(phase), math.cos(phase))
    joints = pose_of(posture, build).joints
    joints -= (0, joints[_ANKLES, 1].max() + posture.lift)
    return joints[list(MIRRORED_ORDER)] * (-1, 1) if mirrored else joints


def _drawn(figure: np.ndarray, view: SplitPose, size: Size, *, goes: bool) -> np.ndarray:
    """The skeleton (height, width, 3) where it belongs in latents, whose picture is then seen as the view says.

    One that goes stays in the middle of the picture, one that does not stays where it is in the scene.
    """
    joints = _unit(size) * figure + (0.5 * size.width, GROUND * size.height)
    seen_from = replace(view.whole, x=0, y=0) if goes else view.whole
    shares = view.beneath(joints, seen_from, size.height, size.width) / (size.width, size.height)
    return draw_skeletons(np.column_stack([shares, np.ones(len(shares))])[None], size.height, size.width)

"""Poses of the two-legged subjects as OpenPose 18-keypoint skeletons.

Figure units: the standing figure is 1 high, origin in its middle, x to where it faces, y down.
The limbs' proportions are those of a picture-book figure: a big head on a short body.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KEYPOINTS = (
    "nose", "neck", "r_shoulder", "r_elbow", "r_wrist", "l_shoulder", "l_elbow", "l_wrist",
    "r_hip", "r_knee", "r_ankle", "l_hip", "l_knee", "l_ankle", "r_eye", "l_eye", "r_ear", "l_ear",
)
"""OpenPose (COCO) order."""

MIRRORED_ORDER = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)
"""Index that swaps right and left, for a figure seen in a mirror."""

_ARM = (0.135, 0.125)
_LEG = (0.12, 0.115)
_SPINE = 0.27
_HEAD_ABOVE_NECK = 0.2
# Relative to the middle of the head, which is turned a little to where the figure faces.
_FACE = {
    "nose": (0.045, 0.055), "r_eye": (-0.055, 0.0), "l_eye": (0.125, 0.0),
    "r_ear": (-0.17, 0.02), "l_ear": (0.17, 0.02),
}


@dataclass(frozen=True)
class Pose:
    """joints: (18, 2) in figure units; head: its middle; angles in degrees, clockwise."""

    joints: np.ndarray
    head: tuple[float, float]
    head_degrees: float
    torso_degrees: float

    def __getitem__(self, keypoint: str) -> tuple[float, float]:
        x, y = self.joints[KEYPOINTS.index(keypoint)]
        return float(x), float(y)


@dataclass(frozen=True)
class _Angles:
    """Degrees from hanging straight down, positive to where the figure faces."""

    r_arm: tuple[float, float]
    l_arm: tuple[float, float]
    r_leg: tuple[float, float]
    l_leg: tuple[float, float]
    lean: float = 0.0
    head: float = 0.0
    sway: float = 0.0
    bob: float = 0.0
    stance: float = 0.085


def _standing(wave: float, swing: float) -> _Angles:
    return _Angles(
        (-32 - 4 * wave, -18), (32 + 4 * wave, 18), (-3, -2), (3, 2), head=3 * swing,
        bob=0.006 * wave,
    )


def _walking(wave: float, swing: float) -> _Angles:
    # The leg that comes forward bends its knee: the right one while wave rises (swing > 0).
    right, left = 34 * wave, -34 * wave
    return _Angles(
        (-30 - 22 * wave, -16 - 20 * wave), (30 + 24 * wave, 44 + 34 * wave),
        (right, right - 8 - 46 * max(swing, 0)), (left, left - 8 - 46 * max(-swing, 0)),
        lean=4, head=2 * wave, bob=0.018 * abs(wave), stance=0.05,
    )


def _dancing(wave: float, swing: float) -> _Angles:
    right, left = max(wave, 0), max(-wave, 0)
    return _Angles(
        (-112 - 18 * wave, -165 - 25 * wave), (112 - 18 * wave, 165 - 25 * wave),
        (-10 - 45 * right, -4 + 35 * right), (10 + 45 * left, 4 - 35 * left),
        lean=-9 * wave, head=-8 * wave, sway=0.05 * wave, bob=0.012 * abs(swing),
    )


def _jumping(wave: float, swing: float) -> _Angles:
    return _Angles(
        (-122 - 10 * wave, -150 - 12 * wave), (122 + 10 * wave, 150 + 12 * wave),
        (-58 + 8 * swing, 18), (58 - 8 * swing, -18), head=3 * swing,
    )


def _flying(wave: float, swing: float) -> _Angles:
    # The drawing turns the whole figure forward; the head looks up again.
    return _Angles(
        (-40 - 5 * wave, -30), (122 + 4 * wave, 160), (-8 + 7 * wave, -4), (8 - 7 * wave, 6),
        head=-42 + 2 * swing, stance=0.07,
    )


_ACTION_ANGLES = {
    "standing": _standing, "walking": _walking, "dancing": _dancing,
    "jumping": _jumping, "flying": _flying,
}


def _turned(point: tuple[float, float], degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x, y = point
    return np.array([c * x - s * y, s * x + c * y])


def _chain(
    start: np.ndarray, lengths: tuple[float, float], degrees: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """The two joints after ``start`` of an arm or leg."""
    angles = np.radians(degrees)
    middle = start + lengths[0] * np.array([np.sin(angles[0]), np.cos(angles[0])])
    return middle, middle + lengths[1] * np.array([np.sin(angles[1]), np.cos(angles[1])])


def pose(action: str, phase: float) -> Pose:
    """The pose of an action (one of ACTIONS) at a phase in [0, 1), periodic."""
    turn = 2 * np.pi * phase
    angles = _ACTION_ANGLES[action](float(np.sin(turn)), float(np.cos(turn)))
    pelvis = np.array([angles.sway, 0.215 + angles.bob])
    neck = pelvis + _turned((0.0, -_SPINE), angles.lean)
    points = {"neck": neck}
    for side, sign in (("r", -1), ("l", 1)):
        shoulder = neck + _turned((sign * 0.12, 0.04), angles.lean)
        hip = pelvis + np.array((sign * angles.stance, 0.0))
        elbow, wrist = _chain(shoulder, _ARM, getattr(angles, f"{side}_arm"))
        knee, ankle = _chain(hip, _LEG, getattr(angles, f"{side}_leg"))
        points |= {
            f"{side}_shoulder": shoulder, f"{side}_elbow": elbow, f"{side}_wrist": wrist,
            f"{side}_hip": hip, f"{side}_knee": knee, f"{side}_ankle": ankle,
        }
    head = neck + _turned((0.0, -_HEAD_ABOVE_NECK), angles.lean)
    head_degrees = angles.lean + angles.head
    points |= {name: head + _turned(offset, head_degrees) for name, offset in _FACE.items()}
    return Pose(
        np.array([points[name] for name in KEYPOINTS]), (float(head[0]), float(head[1])),
        head_degrees, angles.lean,
    )

"""Poses by action and phase, as OpenPose's 18 keypoints: of who has two legs (`control/figure.py`), and of all others
(`control/creatures.py`).
"""

from __future__ import annotations

import numpy as np

from text2video_zero.control.creatures import CREATURES, Bearing, joints_of
from text2video_zero.control.figure import KEYPOINTS, MIRRORED_ORDER, PICTURE_BOOK, Pose, Posture, pose_of

__all__ = ["AIRBORNE", "KEYPOINTS", "MIRRORED_ORDER", "Pose", "bearing", "creature_joints", "pose"]

AIRBORNE = ("jumping", "flying")


def _standing(wave: float, swing: float) -> Posture:
    return Posture(
        (-32 - 4 * wave, -18), (32 + 4 * wave, 18), (-3, -2), (3, 2), head=3 * swing,
        bob=0.006 * wave,
    )


def _walking(wave: float, swing: float) -> Posture:
    # The leg that comes forward bends its knee: the right one while wave rises (swing > 0).
    right, left = 34 * wave, -34 * wave
    return Posture(
        (-30 - 22 * wave, -16 - 20 * wave), (30 + 24 * wave, 44 + 34 * wave),
        (right, right - 8 - 46 * max(swing, 0)), (left, left - 8 - 46 * max(-swing, 0)),
        lean=4, head=2 * wave, bob=0.018 * abs(wave), stance=0.05,
    )


def _dancing(wave: float, swing: float) -> Posture:
    right, left = max(wave, 0), max(-wave, 0)
    return Posture(
        (-112 - 18 * wave, -165 - 25 * wave), (112 - 18 * wave, 165 - 25 * wave),
        (-10 - 45 * right, -4 + 35 * right), (10 + 45 * left, 4 - 35 * left),
        lean=-9 * wave, head=-8 * wave, sway=0.05 * wave, bob=0.012 * abs(swing),
    )


def _jumping(wave: float, swing: float) -> Posture:
    return Posture(
        (-122 - 10 * wave, -150 - 12 * wave), (122 + 10 * wave, 150 + 12 * wave),
        (-58 + 8 * swing, 18), (58 - 8 * swing, -18), head=3 * swing,
    )


def _flying(wave: float, swing: float) -> Posture:
    # The drawing turns the whole figure forward; the head looks up again.
    return Posture(
        (-40 - 5 * wave, -30), (122 + 4 * wave, 160), (-8 + 7 * wave, -4), (8 - 7 * wave, 6),
        head=-42 + 2 * swing, stance=0.07,
    )


_POSTURES = {
    "standing": _standing, "walking": _walking, "dancing": _dancing,
    "jumping": _jumping, "flying": _flying,
}


def pose(action: str, phase: float) -> Pose:
    """The pose of an action (one of ACTIONS) at a phase in [0, 1), periodic."""
    turn = 2 * np.pi * phase
    return pose_of(_POSTURES[action](float(np.sin(turn)), float(np.cos(turn))), PICTURE_BOOK)


def _wave(phase: float, offset: float = 0.0) -> float:
    return float(np.sin(2 * np.pi * (phase + offset)))


def _leg_angle(action: str, phase: float, front: int, far: bool) -> float:
    """Degrees forward of straight down; a trot moves diagonal legs together."""
    if action in AIRBORNE:
        return (52 if front else -52) + 6 * _wave(phase, 0.25 * far)
    if action == "walking":
        return 26 * _wave(phase, 0.5 * (front != far))
    return 0.0


def bearing(subject: str, action: str, phase: float) -> Bearing:
    """How a subject without two legs holds itself in an action at a phase in [0, 1), periodic."""
    near, far = ((_leg_angle(action, phase, 0, side), _leg_angle(action, phase, 1, side)) for side in (False, True))
    wave, swing = _wave(phase), _wave(phase, 0.25)
    is_horse = subject == "horse"
    turn = 360 * phase if subject == "car" or action != "standing" else 20 * wave
    return Bearing(
        near, far, head=3 * (swing if is_horse else wave), nod=0.012 * swing if is_horse else 0.0, wag=wave,
        turn=turn + 20 * (subject == "ball"), bob=0.012 * swing, flame=action in AIRBORNE,
        wing=wave if action == "flying" else None,
    )


def creature_joints(subject: str, action: str, phase: float) -> np.ndarray:
    """Keypoints (18, 3) of a subject without two legs in its own units, and 1 where it has one."""
    return joints_of(CREATURES[subject].points(bearing(subject, action, phase)))

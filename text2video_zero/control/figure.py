"""A figure on two legs: from the angles of its limbs to the 18 keypoints of OpenPose.

Figure units: the standing figure is 1 high, origin in its middle, x to where it faces, y down.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

Point = tuple[float, float]

KEYPOINTS = (
    *("nose", "neck"),
    *("r_shoulder", "r_elbow", "r_wrist", "l_shoulder", "l_elbow", "l_wrist"),
    *("r_hip", "r_knee", "r_ankle", "l_hip", "l_knee", "l_ankle"),
    *("r_eye", "l_eye", "r_ear", "l_ear"),
)
"""In the order of OPENPOSE_KEYPOINTS."""
MIRRORED_ORDER = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)
"""Index that swaps right and left, for a figure seen in a mirror."""


@dataclass(frozen=True)
class Build:
    """The proportions of a figure, in figure units.

    arm, leg: upper and lower part.  pelvis: how far it is below the middle.  spine: from pelvis to neck.
    shoulder: of a shoulder, how far it is beside and below the neck.  hips: factor on how far apart a posture has them.
    head: how far its middle is above the neck.
    face: from the middle of the head, which is turned a little to where the figure faces.
    girth: how far the body reaches around the lines between its keypoints.
    """

    arm: tuple[float, float]
    leg: tuple[float, float]
    pelvis: float
    spine: float
    shoulder: Point
    head: float
    face: Mapping[str, Point]
    girth: float
    hips: float = 1.0


PICTURE_BOOK = Build(
    arm=(0.135, 0.125),
    leg=(0.12, 0.115),
    pelvis=0.215,
    spine=0.27,
    shoulder=(0.12, 0.04),
    head=0.2,
    face=MappingProxyType(
        {
            "nose": (0.045, 0.055),
            "r_eye": (-0.055, 0.0),
            "l_eye": (0.125, 0.0),
            "r_ear": (-0.17, 0.02),
            "l_ear": (0.17, 0.02),
        }
    ),
    girth=0.2,
)
"""A big head on a short body."""

GROWN_UP = Build(
    arm=(0.165, 0.15),
    leg=(0.245, 0.235),
    pelvis=-0.02,
    spine=0.31,
    shoulder=(0.115, 0.01),
    head=0.1,
    face=MappingProxyType(
        {
            "nose": (0.012, 0.015),
            "r_eye": (-0.012, -0.008),
            "l_eye": (0.03, -0.008),
            "r_ear": (-0.042, 0.0),
            "l_ear": (0.044, 0.0),
        }
    ),
    girth=0.1,
    hips=0.8,
)
"""A person of seven and a half heads, as on photographs."""


@dataclass(frozen=True)
class Posture:
    """How a figure holds itself.

    r_arm, l_arm, r_leg, l_leg: degrees of the upper and the lower part from hanging straight down, positive to where
    the figure faces.  lean, head: degrees that the trunk and, on it, the head are turned clockwise.
    sway, bob: shift of the pelvis to where the figure faces and downwards, in figure units.
    stance: of each hip from the middle.  lift: how far the feet are above the ground.
    """

    r_arm: tuple[float, float]
    l_arm: tuple[float, float]
    r_leg: tuple[float, float]
    l_leg: tuple[float, float]
    lean: float = 0.0
    head: float = 0.0
    sway: float = 0.0
    bob: float = 0.0
    stance: float = 0.085
    lift: float = 0.0


@dataclass(frozen=True)
class Pose:
    """joints: (18, 2) in figure units; head: its middle; angles in degrees, clockwise."""

    joints: np.ndarray
    head: Point
    head_degrees: float
    torso_degrees: float

    def __getitem__(self, keypoint: str) -> Point:
        x, y = self.joints[KEYPOINTS.index(keypoint)]
        return float(x), float(y)


def pose_of(posture: Posture, build: Build) -> Pose:
    """The pose of a figure of some build that holds itself so; `lift` is left to whoever knows the ground."""
    pelvis = np.array([posture.sway, build.pelvis + posture.bob])
    neck = pelvis + turned((0.0, -build.spine), posture.lean)
    points = {"neck": neck}
    beside, below = build.shoulder
    for side, sign in (("r", -1), ("l", 1)):
        shoulder = neck + turned((sign * beside, below), posture.lean)
        hip = pelvis + np.array((sign * (build.hips * posture.stance), 0.0))
        elbow, wrist = _chain(shoulder, build.arm, getattr(posture, f"{side}_arm"))
        knee, ankle = _chain(hip, build.leg, getattr(posture, f"{side}_leg"))
        points |= {f"{side}_shoulder": shoulder, f"{side}_elbow": elbow, f"{side}_wrist": wrist}
        points |= {f"{side}_hip": hip, f"{side}_knee": knee, f"{side}_ankle": ankle}
    head = neck + turned((0.0, -build.head), posture.lean)
    head_degrees = posture.lean + posture.head
    points |= {name: head + turned(offset, head_degrees) for name, offset in build.face.items()}
    joints = np.array([points[name] for name in KEYPOINTS])
    return Pose(joints, (float(head[0]), float(head[1])), head_degrees, posture.lean)


def turned(point: Point, degrees: float) -> Point:
    """A point, or x and y of several, turned clockwise about the origin."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x, y = point
    return c * x - s * y, s * x + c * y


def _chain(start: np.ndarray, lengths: tuple[float, float], degrees: tuple[float, float]) -> tuple[np.ndarray, ...]:
    """The two joints after `start` of an arm or leg."""
    angles = np.radians(degrees)
    middle = start + lengths[0] * np.array([np.sin(angles[0]), np.cos(angles[0])])
    return middle, middle + lengths[1] * np.array([np.sin(angles[1]), np.cos(angles[1])])

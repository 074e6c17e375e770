"""Skeletons: the keypoints of people, and their drawing in the look that pose ControlNets were trained on."""

from __future__ import annotations

import colorsys
import itertools
from dataclasses import dataclass, field

import cv2
import numpy as np

OPENPOSE_KEYPOINTS = (
    *("nose", "neck"),
    *("right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist"),
    *("right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle"),
    *("right eye", "left eye", "right ear", "left ear"),
)
COCO_KEYPOINTS = (
    *("nose", "left eye", "right eye", "left ear", "right ear"),
    *("left shoulder", "right shoulder", "left elbow", "right elbow", "left wrist", "right wrist"),
    *("left hip", "right hip", "left knee", "right knee", "left ankle", "right ankle"),
)
_NECK = OPENPOSE_KEYPOINTS.index("neck")
# Chains of joints, in the order that gives each limb its colour: arms, legs, neck, and both halves of the face.
_CHAINS = ((1, 2), (1, 5), (2, 3, 4), (5, 6, 7), (1, 8, 9, 10), (1, 11, 12, 13), (1, 0), (0, 14, 16), (0, 15, 17))
LIMBS = tuple((begin, end) for chain in _CHAINS for begin, end in itertools.pairwise(chain))
FINGERS = tuple(
    (0 if joint == 0 else 4 * finger + joint, 4 * finger + joint + 1) for finger in range(5) for joint in range(4)
)
STANDARD_SIDE = 512  # pixels of the pictures for which OpenPose's line widths are meant
SMALLEST_RADIUS = 2


def _wheel(colours: int) -> list[tuple[int, int, int]]:
    """Fully saturated hues at equal distances, beginning with red."""
    wheel = (colorsys.hsv_to_rgb(hue / colours, 1, 1) for hue in range(colours))
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in wheel]


JOINT_COLOURS = _wheel(18)
LIMB_COLOURS = [(int(0.6 * red), int(0.6 * green), int(0.6 * blue)) for red, green, blue in JOINT_COLOURS[: len(LIMBS)]]
FINGER_COLOURS = _wheel(len(FINGERS))
HAND_COLOUR, FACE_COLOUR = (0, 0, 255), (255, 255, 255)


def _no_one(keypoints: int) -> np.ndarray:
    return np.empty((0, keypoints, 3), np.float32)


@dataclass(frozen=True, eq=False)
class Figures:
    """The people of one frame; of each keypoint x, y in fractions of the frame, and above 0 where it is visible.

    skeletons: (n, 18, 3) in the order of OPENPOSE_KEYPOINTS.  hands: (k, 21, 3).  faces: (k, points, 3).
    """

    skeletons: np.ndarray
    hands: np.ndarray = field(default_factory=lambda: _no_one(21))
    faces: np.ndarray = field(default_factory=lambda: _no_one(70))


def draw_figures(figures: Figures, height: int, width: int) -> np.ndarray:
    """The people of one frame on black, (height, width, 3) uint8 RGB."""
    canvas = draw_skeletons(figures.skeletons, height, width)
    for hand in figures.hands:
        _draw_hand(canvas, hand)
    for face in figures.faces:
        for point in _visible_points(face, height, width).values():
            cv2.circle(canvas, point, _scaled(3, height, width), FACE_COLOUR, cv2.FILLED)
    return canvas


def draw_skeletons(skeletons: np.ndarray, height: int, width: int) -> np.ndarray:
    """Skeletons (n, 18, 3) on black, (height, width, 3) uint8 RGB.

    Of each keypoint x, y in fractions of the frame, and above 0 where it is visible; a limb is drawn where both
    of its ends are. On a side of 512 pixels lines are as wide as OpenPose draws them, on others in proportion.
    """
    canvas = np.zeros((height, width, 3), np.uint8)
    radius = _scaled(4, height, width)
    for skeleton in skeletons:
        points = _visible_points(skeleton, height, width)
        for limb, colour in zip(LIMBS, LIMB_COLOURS, strict=True):
            if points.keys() >= set(limb):
                begin, end = skeleton[list(limb), :2] * (width, height)
                _draw_limb(canvas, begin, end, radius, colour)
        for joint, point in points.items():
            cv2.circle(canvas, point, radius, JOINT_COLOURS[joint], cv2.FILLED)
    return canvas


def openpose_from_coco(keypoints: np.ndarray) -> np.ndarray:
    """Keypoints (..., 17, 3) of COCO as those of OpenPose, (..., 18, 3): x, y and score.

    COCO knows no neck; it lies between the shoulders and is as certain as the less certain of them.
    """
    shoulders = keypoints[..., [COCO_KEYPOINTS.index("left shoulder"), COCO_KEYPOINTS.index("right shoulder")], :]
    neck = np.concatenate([shoulders[..., :2].mean(-2), shoulders[..., 2:].min(-2)], axis=-1)
    order = [COCO_KEYPOINTS.index(name) for name in OPENPOSE_KEYPOINTS if name != "neck"]
    return np.insert(keypoints[..., order, :], _NECK, neck, axis=-2)


def _scaled(pixels: int, height: int, width: int) -> int:
    return max(SMALLEST_RADIUS, round(pixels * min(height, width) / STANDARD_SIDE))


def _visible_points(keypoints: np.ndarray, height: int, width: int) -> dict[int, tuple[int, int]]:
    """Pixels of the visible ones among keypoints (k, 3), by their index."""
    return {index: (int(x * width), int(y * height)) for index, (x, y, visible) in enumerate(keypoints) if visible > 0}


def _draw_limb(
    canvas: np.ndarray, begin: np.ndarray, end: np.ndarray, radius: int, colour: tuple[int, int, int]
) -> None:
    """A filled ellipse between two joints (x, y) in pixels."""
    middle, (dx, dy) = (begin + end) / 2, begin - end
    axes = (int(np.hypot(dx, dy) / 2), radius)
    outline = cv2.ellipse2Poly(tuple(map(int, middle)), axes, int(np.degrees(np.arctan2(dy, dx))), 0, 360, 1)
    cv2.fillConvexPoly(canvas, np.array(outline), colour)


def _draw_hand(canvas: np.ndarray, hand: np.ndarray) -> None:
    points = _visible_points(hand, *canvas.shape[:2])
    for bone, colour in zip(FINGERS, FINGER_COLOURS, strict=True):
        if points.keys() >= set(bone):
            cv2.line(canvas, points[bone[0]], points[bone[1]], colour, _scaled(2, *canvas.shape[:2]))
    for point in points.values():
        cv2.circle(canvas, point, _scaled(4, *canvas.shape[:2]), HAND_COLOUR, cv2.FILLED)

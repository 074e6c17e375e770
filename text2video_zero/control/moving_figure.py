"""A figure that moves, as control maps: where each frame has it, under a camera, and what of the picture is its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from text2video_zero.control.creatures import CREATURES, joints_of
from text2video_zero.control.figure import KEYPOINTS, MIRRORED_ORDER, pose_of, turned
from text2video_zero.control.movements import MOVED
from text2video_zero.control.pose import draw_skeletons
from text2video_zero.requests.movement import PERSON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from text2video_zero.control.creatures import Bearing, Creature
    from text2video_zero.control.figure import Build, Posture
    from text2video_zero.requests import Size
    from text2video_zero.requests.camera import CameraPose
    from text2video_zero.requests.movement import Moving
    from text2video_zero.sampling.motion.split import SplitPose

GROUND = 0.9
"""Where feet are, as a share of the frame's height."""
PERSON_HEIGHT, PERSON_WIDTH = 0.74, 0.85
"""How high a person stands, as a share of the frame's height and, if that is less, of its width."""
CREATURE_WIDTH = 0.74
"""The share of the frame's width that a creature may take, whose tail is not to be where pictures are mirrored."""
_AROUND_CREATURES = 0.05  # of their outline, which is drawn generously
_ANKLES = [KEYPOINTS.index("r_ankle"), KEYPOINTS.index("l_ankle")]


@dataclass(frozen=True)
class Posed:
    """A figure at one moment, from a point on the ground; in figure units or, where it is placed, in pixels.

    joints: (18, 2).  seen: (18,), which of them there are, 1 or 0.  outline: (k, 2), around what no joint is near to.
    """

    joints: np.ndarray
    seen: np.ndarray
    outline: np.ndarray

    def facing(self, way: int) -> Posed:
        """The same, to the right, 1, or as in a mirror, -1."""
        if way > 0:
            return self
        order = list(MIRRORED_ORDER)
        return Posed(self.joints[order] * (-1, 1), self.seen[order], self.outline * (-1, 1))

    def placed(self, where: Callable[[np.ndarray], np.ndarray]) -> Posed:
        """The same, each point (n, 2) where it says."""
        return Posed(where(self.joints), self.seen, where(self.outline))


@dataclass(frozen=True)
class Figure:
    """Who moves.

    height: of who stands, as a share of the frame's.
    width: the share of the frame's width that the height may be, if that is less.
    girth: how far the body reaches around joints and outline, in figure units.  posed: the figure
    that is held so, a Posture of persons, a Bearing of others.
    """

    height: float
    width: float
    girth: float
    posed: Callable[[Any], Posed]

    def unit(self, size: Size) -> float:
        """Pixels that it is high when it stands."""
        return min(self.height * size.height, self.width * size.width)


def figure_of(kind: str, build: Build) -> Figure:
    """The figure of a kind; build: of persons."""
    if kind == PERSON:
        return Figure(PERSON_HEIGHT, PERSON_WIDTH, build.girth, partial(_posed_person, build))
    creature = CREATURES[kind]
    width = CREATURE_WIDTH / (2 * creature.reach)
    return Figure(creature.height, width, _AROUND_CREATURES, partial(_posed_creature, creature))


def _posed_person(build: Build, held: Posture) -> Posed:
    """The lower foot is on the ground, unless it is lifted."""
    joints = pose_of(held, build).joints
    joints -= (0, joints[_ANKLES, 1].max() + held.lift)
    return Posed(joints, np.ones(len(joints)), np.empty((0, 2)))


def _posed_creature(creature: Creature, held: Bearing) -> Posed:
    """It leans about its middle; what is on the ground when it does not is there, unless it is lifted."""
    joints = joints_of(creature.points(held))
    foot = (0, creature.bottom + held.lift)
    points, outline = (
        np.column_stack(turned((x, y), held.lean)) - foot for x, y in (joints[:, :2].T, np.transpose(creature.outline))
    )
    return Posed(points, joints[:, 2], outline)


def poses(
    moving: Moving, views: Sequence[SplitPose], fps: float, size: Size, figure: Figure, *, loop: bool = False
) -> Iterator[Posed]:
    """The figure in pixels of the latents' pictures, one for each view of the camera.

    moving: what the figure does.  views: the camera's, of the frames of one shot.  fps: frames a second.
    loop: whether the last frame leads into the first; the movement is then a little slower or faster.
    Who goes faces where the camera pans to and stays in the middle of what it sees; who does not stays in the scene.
    """
    movement = MOVED[moving.kind][moving.does]
    turns = 1 / (movement.seconds * fps)  # in one frame
    if loop:
        turns = max(1, round(len(views) * turns)) / len(views)
    ways = _ways(views) if movement.goes else [1] * len(views)
    for frame, (view, way) in enumerate(zip(views, ways, strict=True)):
        phase = math.tau * turns * frame
        posed = figure.posed(movement.held(math.sin(phase), math.cos(phase))).facing(way)
        seen_from = replace(view.whole, x=0, y=0) if movement.goes else view.whole
        yield posed.placed(partial(_seen, view, seen_from, size, figure.unit(size)))


def skeleton_of(posed: Posed, size: Size) -> np.ndarray:
    """The control map of a figure in pixels, (height, width, 3) uint8."""
    shares = posed.joints / (size.width, size.height)
    return draw_skeletons(np.column_stack([shares, posed.seen])[None], size.height, size.width)


def trunk_of(posed: Posed, size: Size) -> np.ndarray:
    """Where a figure in pixels is for certain, its skeleton and outline: (height, width) uint8, 0 or 1."""
    drawn = np.array(skeleton_of(posed, size).any(axis=-1), np.uint8)
    if len(posed.outline):
        cv2.fillConvexPoly(drawn, cv2.convexHull(posed.outline.astype(np.int32)), 1)
    return drawn


def body_of(posed: Posed, size: Size, figure: Figure) -> np.ndarray:
    """Where a figure in pixels may be, as far as it reaches around its trunk: (height, width) uint8, 0 or 1."""
    radius = round(figure.girth * figure.unit(size))
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return np.asarray(cv2.dilate(trunk_of(posed, size), around))


def _ways(views: Sequence[SplitPose]) -> list[int]:
    """Where the camera pans to at each view, 1 right and -1 left: where it went last, and right if it went nowhere."""
    ways = [0]
    for one, other in pairwise(views):
        step = other.whole.x - one.whole.x
        ways.append(round(math.copysign(1, step)) if step else ways[-1])
    first = next((way for way in ways if way), 1)
    return [way or first for way in ways]


def _seen(view: SplitPose, seen_from: CameraPose, size: Size, unit: float, points: np.ndarray) -> np.ndarray:
    """Where points (n, 2) in figure units belong in latents, whose picture is then seen as the view says."""
    points = unit * points + (0.5 * size.width, GROUND * size.height)
    return view.beneath(points, seen_from, size.height, size.width)

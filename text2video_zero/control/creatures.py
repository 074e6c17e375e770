"""Figures that are not persons: animals on four legs, a fish and things, as keypoints of OpenPose's skeleton.

OpenPose knows people alone, and a ControlNet that was taught no others cannot follow these; Toyland's was. Forelegs
are arms and hind legs legs, the near ones the right ones; what is without legs has what turns and wags in their place.

Units: the figure is 1 high, origin in its middle, x to where it faces, y down.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from text2video_zero.control.figure import KEYPOINTS, turned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from text2video_zero.control.figure import Point

FAR_SIDE = (0.07, -0.015)
"""Where the legs of the far side are beside those of the near one, so that all four are seen."""


@dataclass(frozen=True)
class Bearing:
    """How an animal or a thing holds itself.

    near, far: degrees forward of straight down of the hind and the fore leg of a side.  head: degrees clockwise.
    nod: how far the head is lowered.  wag: of fins and tail, -1 to 1.  turn: degrees clockwise of what rolls.
    lean: degrees clockwise of the whole.  bob: how far what a car has on its wheels is lowered.
    lift: how far it is above the ground.  flame: whether a rocket's burns.  wing: of who flies, how far it is lowered,
    -1 to 1.
    """

    near: tuple[float, float] = (0.0, 0.0)
    far: tuple[float, float] = (0.0, 0.0)
    head: float = 0.0
    nod: float = 0.0
    wag: float = 0.0
    turn: float = 0.0
    lean: float = 0.0
    bob: float = 0.0
    lift: float = 0.0
    flame: bool = False
    wing: float | None = None


@dataclass(frozen=True)
class Creature:
    """What a figure that is no person is like.

    height: of the standing one, as a share of the picture's.  reach: half its width over its height.
    bottom: how far below the middle the ground is.  outline: points around all of it.
    points: the keypoints that it has, before it leans.
    """

    height: float
    reach: float
    bottom: float
    outline: tuple[Point, ...]
    points: Callable[[Bearing], Mapping[str, Point]]


@dataclass(frozen=True)
class FourLegged:
    """An animal.

    hips: of the near hind and foreleg.  leg: its length.  neck: where it meets the back.  head: its middle.
    face: keypoints, from the middle of the head.
    """

    hips: tuple[Point, Point]
    leg: float
    neck: Point
    head: Point
    face: Mapping[str, Point]

    def points(self, bearing: Bearing) -> Mapping[str, Point]:
        """Neck, face and three points of each leg."""
        found = {"neck": self.neck}
        for side, (dx, dy), degrees in (("r", (0.0, 0.0), bearing.near), ("l", FAR_SIDE, bearing.far)):
            for names, (x, y), angle in zip(_LEGS, self.hips, np.radians(degrees), strict=True):
                for name, share in zip(names, (0, 0.5, 1), strict=True):
                    along = share * self.leg
                    found[f"{side}_{name}"] = (x + dx + along * np.sin(angle), y + dy + along * np.cos(angle))
        x, y = self.head
        for name, offset in self.face.items():
            beside, below = turned(offset, bearing.head)
            found[name] = (x + beside, y + bearing.nod + below)
        return found


_LEGS = (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist"))

CAT = FourLegged(
    hips=((-0.27, 0.2), (0.1, 0.2)),
    leg=0.23,
    neck=(0.12, 0.02),
    head=(0.22, -0.17),
    face=MappingProxyType(
        {
            "nose": (0.03, 0.06),
            "r_eye": (-0.075, -0.01),
            "l_eye": (0.135, -0.01),
            "r_ear": (-0.21, -0.32),
            "l_ear": (0.21, -0.32),
        }
    ),
)
FOX = FourLegged(
    hips=((-0.2, 0.2), (0.14, 0.2)),
    leg=0.23,
    neck=(0.16, 0.03),
    head=(0.22, -0.15),
    face=MappingProxyType(
        {
            "nose": (0.365, 0.08),
            "r_eye": (-0.07, 0.0),
            "l_eye": (0.12, -0.005),
            "r_ear": (-0.2, -0.34),
            "l_ear": (0.16, -0.34),
        }
    ),
)
HORSE = FourLegged(
    hips=((-0.26, 0.14), (0.12, 0.14)),
    leg=0.31,
    neck=(0.12, -0.06),
    head=(0.27, -0.33),
    face=MappingProxyType({"nose": (0.19, 0.1), "r_eye": (0.04, 0.015), "r_ear": (-0.07, -0.2)}),
)


FISH_WAG = 0.07
"""How far the middle of a fish's tail goes."""
WHEELS = (-0.4, 0.4)
"""Where a car's wheels are."""
ROCKET_DOWN, ROCKET_IN_FLIGHT = 0.1, (0.86, -0.02)
"""How far a standing rocket's middle is below the figure's; the scale of one that flies, and the same of it."""
BALL_POLE = (0.1, -0.12)
"""Where a ball's colours meet."""
WINGS: Mapping[str, Point] = MappingProxyType(
    {
        "cat": (-0.06, 0.06),
        "fox": (-0.02, 0.1),
        "horse": (-0.06, 0.06),
        "fish": (0.02, -0.02),
        "car": (-0.05, 0.1),
        "ball": (-0.12, 0.1),
    }
)
"""Where a wing is fastened to those who fly by one."""
_WING_TIP = (-0.3, -0.4)


def wing_degrees(wing: float) -> float:
    """Degrees clockwise by which a wing is turned that is so far lowered."""
    return 20 * wing - 8


def _wing(subject: str, bearing: Bearing, root_name: str, tip_name: str) -> dict[str, Point]:
    """Root and tip of a wing by the names of two keypoints; none of whose legs tell that they fly."""
    if bearing.wing is None:
        return {}
    (x, y), (right, down) = WINGS[subject], turned(_WING_TIP, wing_degrees(bearing.wing))
    return {root_name: (x, y), tip_name: (x + right, y + down)}


def _fish(bearing: Bearing) -> Mapping[str, Point]:
    """Mouth, eye, a fin, both halves of the tail and the wing."""
    wag = FISH_WAG * bearing.wag
    return {
        "nose": (0.62, 0.02),
        "r_eye": (0.365, -0.06),
        "neck": (0.1, 0.0),
        "r_shoulder": (0.1, 0.07),
        "r_elbow": (-0.13, 0.09 + wag),
        "r_hip": (-0.3, 0.0),
        "r_knee": (-0.5, -0.2 + wag),
        "r_ankle": (-0.68, -0.3 + 2 * wag),
        "l_hip": (-0.3, 0.0),
        "l_knee": (-0.5, 0.2 + wag),
        "l_ankle": (-0.68, 0.3 + 2 * wag),
        **_wing("fish", bearing, "l_shoulder", "l_elbow"),
    }


def _car(bearing: Bearing) -> Mapping[str, Point]:
    """A lamp, the roof, of each wheel its hub and a point that goes around, and the wing."""
    x, y = turned((0.19, 0.0), bearing.turn)
    found = {"nose": (0.63, 0.06 + bearing.bob), "neck": (-0.1, -0.42 + bearing.bob)}
    for side, hub in zip("rl", WHEELS, strict=True):
        found |= {f"{side}_hip": (hub, 0.28), f"{side}_knee": (hub + x, 0.28 + y)}
    return found | _wing("car", bearing, "r_shoulder", "r_elbow")


def _rocket(bearing: Bearing) -> Mapping[str, Point]:
    """Its tip, its window and both of its fins: hull and flame together are as high as the standing rocket."""
    scale, down = ROCKET_IN_FLIGHT if bearing.flame else (1.0, ROCKET_DOWN)
    hull = {"nose": (0.0, -0.53), "neck": (0.0, -0.08), "r_hip": (-0.32, 0.36), "l_hip": (0.32, 0.36)}
    return {name: (scale * x, scale * y + down) for name, (x, y) in hull.items()}


def _ball(bearing: Bearing) -> Mapping[str, Point]:
    """Its middle, the pole, the middles of its three light parts and the wing."""
    lights = zip(("r_shoulder", "l_shoulder", "r_hip"), (23, 143, 263), strict=True)
    rim = {name: turned((0.48, 0.0), degrees + bearing.turn) for name, degrees in lights}
    return {
        "neck": (0.0, 0.0),
        "nose": turned(BALL_POLE, bearing.turn),
        **rim,
        **_wing("ball", bearing, "r_elbow", "r_wrist"),
    }


CREATURES: Mapping[str, Creature] = MappingProxyType(
    {
        "cat": Creature(
            height=0.62,
            reach=0.62,
            bottom=0.43,
            outline=((-0.55, -0.4), (-0.3, -0.48), (0.0, -0.5), (0.45, -0.5), (0.48, 0.05), (0.3, 0.48), (-0.45, 0.48)),
            points=CAT.points,
        ),
        "fox": Creature(
            height=0.58,
            reach=0.68,
            bottom=0.43,
            outline=(
                (-0.65, -0.25),
                (-0.5, -0.38),
                (0.0, -0.5),
                (0.4, -0.5),
                (0.64, -0.08),
                (0.36, 0.48),
                (-0.4, 0.48),
            ),
            points=FOX.points,
        ),
        "horse": Creature(
            height=0.66,
            reach=0.58,
            bottom=0.45,
            outline=((-0.6, -0.1), (0.0, -0.5), (0.2, -0.55), (0.52, -0.25), (0.5, -0.1), (0.5, 0.5), (-0.6, 0.5)),
            points=HORSE.points,
        ),
        "fish": Creature(
            height=0.48,
            reach=0.84,
            bottom=0.46,
            outline=((-0.75, -0.48), (0.2, -0.5), (0.65, 0.0), (0.1, 0.5), (-0.75, 0.48)),
            points=_fish,
        ),
        "car": Creature(
            height=0.48,
            reach=0.82,
            bottom=0.47,
            outline=((-0.78, -0.1), (-0.4, -0.5), (0.2, -0.5), (0.76, 0.0), (0.76, 0.5), (-0.78, 0.5)),
            points=_car,
        ),
        "rocket": Creature(
            height=0.7,
            reach=0.38,
            bottom=0.46,
            outline=((-0.1, -0.5), (0.1, -0.5), (0.4, 0.2), (0.38, 0.5), (-0.38, 0.5), (-0.4, 0.2)),
            points=_rocket,
        ),
        "ball": Creature(
            height=0.54,
            reach=0.52,
            bottom=0.48,
            outline=(
                (-0.2, -0.5),
                (0.2, -0.5),
                (0.5, -0.2),
                (0.5, 0.2),
                (0.2, 0.5),
                (-0.2, 0.5),
                (-0.5, 0.2),
                (-0.5, -0.2),
            ),
            points=_ball,
        ),
    }
)
"""By the names that requests/movement.py gives them."""


def joints_of(points: Mapping[str, Point]) -> np.ndarray:
    """Keypoints (18, 3) in figure units, and 1 where there is one."""
    joints = np.zeros((len(KEYPOINTS), 3))
    for name, point in points.items():
        joints[KEYPOINTS.index(name)] = (*point, 1)
    return joints

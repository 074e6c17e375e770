"""The two-legged subjects, drawn from their skeleton, in figure units (see skeleton.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toyland.world.canvas import (
    Canvas,
    Color,
    blob,
    box,
    curve,
    darker,
    lighter,
    limb,
    mix,
    oval,
    polygon,
)
from toyland.world.palette import (
    BLUSH,
    COAL,
    CREAM,
    HAIR_COLORS,
    INK,
    SKIN_TONES,
    WHITE,
)

if TYPE_CHECKING:
    from toyland.world.skeleton import Pose

_LIMB = 0.115
# Of the disc around eyes and mouth, below the middle of the eyes.
_FACE_RADIUS, _FACE_DROP = 0.2, 0.04
_SIDES = ("r", "l")


@dataclass(frozen=True)
class _Dress:
    """Colours of the body's parts."""

    torso: Color
    arm: Color
    leg: Color
    hand: Color
    foot: Color


def eyes(canvas: Canvas, *places: tuple[float, float, float]) -> list[tuple[float, float, float]]:
    """Where a face has its eyes, each x, y and what else its drawing needs: as given, but for a defect.

    The canvas is told that there is a face.
    """
    middle = np.mean([(x, y + _FACE_DROP) for x, y, _ in places], axis=0, keepdims=True)
    x, y = canvas.to_frame(middle)[0]
    canvas.faces.append((float(x), float(y), _FACE_RADIUS * canvas.scale))
    defect, found = canvas.defect, list(places)
    if defect is None or "eye" not in defect.kind:
        return found
    number = int(defect.which * len(places))
    if defect.kind == "eye missing":
        del found[number]
    else:
        x, y, more = places[number]
        angle = np.pi * (1 + 0.15 + 0.7 * defect.much)  # somewhere above
        found.append((x + 0.13 * float(np.cos(angle)), y + 0.13 * float(np.sin(angle)), more))
    return found


def nose(canvas: Canvas, x: float, y: float) -> tuple[float, float]:
    """Where a face has its nose: as given, but for a defect."""
    if canvas.defect is None or canvas.defect.kind != "nose moved":
        return x, y
    angle, away = 2 * np.pi * canvas.defect.which, 0.09 + 0.04 * canvas.defect.much
    return x + away * float(np.cos(angle)), y + away * float(np.sin(angle))


def eye(canvas: Canvas, x: float, y: float, radius: float) -> None:
    """A dark eye with its highlight up on the left."""
    canvas.fill(oval(x, y, radius, radius * 1.2), INK)
    canvas.fill(oval(x - radius * 0.3, y - radius * 0.4, radius * 0.42), WHITE)


def smile(canvas: Canvas, x: float, y: float, width: float, color: Color = INK) -> None:
    """A curved mouth."""
    canvas.fill(
        curve(0.02, (x - width, y), (x, y + width * 0.7), (x + width, y)), color
    )


def blush(canvas: Canvas, x: float, y: float, radius: float, skin: Color) -> None:
    """A rosy cheek."""
    canvas.fill(oval(x, y, radius, radius * 0.7), mix(skin, BLUSH, 0.75))


_Point = tuple[float, float]


def _limbs(
    canvas: Canvas, pose: Pose, joints: tuple[str, str, str]
) -> list[tuple[_Point, _Point, _Point]]:
    """The points of both arms or legs, and by a defect of one more."""
    first, second, third = joints
    found: list[tuple[_Point, _Point, _Point]] = [
        (pose[f"{side}_{first}"], pose[f"{side}_{second}"], pose[f"{side}_{third}"]) for side in _SIDES]
    defect = canvas.defect
    if defect is not None and defect.kind == "limb doubled":
        at_arms, side = divmod(int(4 * defect.which), 2)
        if at_arms == (joints[0] == "shoulder"):
            tips = np.array([found[0][2], found[1][2], pose.head])
            start = np.array(found[side][0])
            turned = [start + (np.array(found[side]) - start) @ _rotation(sign * (50 + 30 * defect.much))
                      for sign in (-1, 1)]
            # To the side where it is seen.
            extra = max(turned, key=lambda limb: np.linalg.norm(tips - limb[2], axis=1).min())
            root, bend, tip = ((float(x), float(y)) for x, y in extra)
            found.append((root, bend, tip))
    return found


def _rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, s], [-s, c]])


def _draw_legs(canvas: Canvas, pose: Pose, dress: _Dress, angular: bool) -> None:
    for hip, knee, ankle in _limbs(canvas, pose, ("hip", "knee", "ankle")):
        x, y = ankle
        canvas.ink([limb(_LIMB, hip, knee, ankle)], dress.leg, INK)
        foot = box(x - 0.06, y - 0.03, x + 0.09, y + 0.05) if angular else oval(
            x + 0.02, y + 0.01, 0.085, 0.055)
        canvas.ink([foot], dress.foot, INK)


def _draw_torso(canvas: Canvas, pose: Pose, color: Color, angular: bool) -> Canvas:
    """Draw the torso and return a canvas with its origin in the torso's middle."""
    neck = np.array(pose["neck"])
    pelvis = (np.array(pose["r_hip"]) + np.array(pose["l_hip"])) / 2
    middle = (neck + pelvis) / 2
    torso = canvas.placed(float(middle[0]), float(middle[1]), degrees=pose.torso_degrees)
    if angular:
        shape = polygon((-0.15, -0.12), (0.15, -0.12), (0.13, 0.18), (-0.13, 0.18))
    else:
        shape = blob((-0.1, -0.13), (0.1, -0.13), (0.16, 0.04), (0.11, 0.17), (-0.11, 0.17),
                     (-0.16, 0.04))
    torso.ink([shape], color, INK)
    return torso


def _draw_arms(canvas: Canvas, pose: Pose, dress: _Dress, angular: bool) -> None:
    for shoulder, elbow, wrist in _limbs(canvas, pose, ("shoulder", "elbow", "wrist")):
        canvas.ink([limb(_LIMB * 0.95, shoulder, elbow, wrist)], dress.arm, INK)
        x, y = wrist
        hand = box(x - 0.06, y - 0.06, x + 0.06, y + 0.06) if angular else oval(x, y, 0.062)
        canvas.ink([hand], dress.hand, INK)


def _head_canvas(canvas: Canvas, pose: Pose) -> Canvas:
    return canvas.placed(*pose.head, degrees=pose.head_degrees)


def draw_cape(canvas: Canvas, pose: Pose, color: Color, phase: float) -> None:
    """A cape that flutters once a period, fastened at the shoulders."""
    flutter = 0.04 * np.sin(2 * np.pi * phase)
    (rx, ry), (lx, ly) = pose["r_shoulder"], pose["l_shoulder"]
    canvas.ink([blob(
        (lx, ly - 0.05), (rx, ry - 0.06), (-0.28, 0.08 - flutter), (-0.42 - flutter, 0.26),
        (-0.36, 0.4 + flutter), (-0.22 + flutter, 0.34), (-0.04, 0.24),
    )], darker(color, 0.3), INK)


def draw_panda(canvas: Canvas, pose: Pose, color: Color, seed: int) -> None:
    """White head, black ears and eye patches, body in the colour."""
    _draw_legs(canvas, pose, _Dress(color, color, color, COAL, COAL), False)
    torso = _draw_torso(canvas, pose, color, False)
    torso.fill(oval(0.02, 0.05, 0.09, 0.09), lighter(color, 0.45))
    _draw_arms(canvas, pose, _Dress(color, color, color, COAL, COAL), False)
    head = _head_canvas(canvas, pose)
    head.ink([oval(-0.165, -0.15, 0.07), oval(0.165, -0.15, 0.07)], COAL, INK)
    head.ink([oval(0, 0, 0.225, 0.19)], WHITE, INK)
    for x, y, turn in eyes(head, (-0.06, 0.0, 24), (0.13, 0.0, -24)):
        head.fill(oval(x, y, 0.056, 0.074, turn), COAL)
        head.fill(oval(x + 0.012, y - 0.005, 0.028, 0.032), WHITE)
        head.fill(oval(x + 0.016, y, 0.019, 0.022), INK)
    blush(head, -0.135, 0.09, 0.035, WHITE)
    blush(head, 0.185, 0.085, 0.025, WHITE)
    head.fill(oval(*nose(head, 0.045, 0.06), 0.032, 0.022), INK)
    smile(head, 0.045, 0.095, 0.04)


def draw_bear(canvas: Canvas, pose: Pose, color: Color, seed: int) -> None:
    """Round ears, a light muzzle and a belly patch, all fur in the colour."""
    paw = darker(color, 0.22)
    dress = _Dress(color, color, color, paw, paw)
    _draw_legs(canvas, pose, dress, False)
    torso = _draw_torso(canvas, pose, color, False)
    torso.fill(oval(0.02, 0.04, 0.1, 0.105), mix(color, CREAM, 0.7))
    _draw_arms(canvas, pose, dress, False)
    head = _head_canvas(canvas, pose)
    head.ink([oval(-0.165, -0.145, 0.078), oval(0.165, -0.145, 0.078)], color, INK)
    for x in (-0.165, 0.165):
        head.fill(oval(x, -0.145, 0.043), mix(color, BLUSH, 0.55))
    head.ink([oval(0, 0, 0.225, 0.19)], color, INK)
    head.fill(oval(0.05, 0.085, 0.1, 0.078), mix(color, CREAM, 0.8))
    for place in eyes(head, (-0.055, -0.01, 0.03), (0.13, -0.01, 0.03)):
        eye(head, *place)
    blush(head, -0.14, 0.075, 0.035, color)
    head.fill(oval(*nose(head, 0.055, 0.055), 0.042, 0.03), INK)
    smile(head, 0.05, 0.1, 0.04)


def draw_robot(canvas: Canvas, pose: Pose, color: Color, seed: int) -> None:
    """Box head with antenna and square glowing eyes, angular limbs."""
    steel = (128, 136, 152)
    dress = _Dress(color, steel, steel, color, color)
    canvas.ink([limb(0.09, pose["neck"], pose.head)], steel, INK)
    _draw_legs(canvas, pose, dress, True)
    _draw_arms(canvas, pose, dress, True)
    torso = _draw_torso(canvas, pose, color, True)
    torso.fill(box(-0.085, -0.03, 0.095, 0.1), lighter(steel, 0.6))
    torso.fill(oval(-0.035, 0.035, 0.033), (240, 84, 80))
    torso.fill(oval(0.045, 0.035, 0.033), (250, 206, 72))
    head = _head_canvas(canvas, pose)
    head.ink([limb(0.03, (0, -0.15), (0, -0.21))], steel, INK)
    head.ink([oval(0, -0.215, 0.036)], (250, 206, 72), INK)
    head.ink([box(-0.245, -0.06, -0.2, 0.07), box(0.2, -0.06, 0.245, 0.07)], steel, INK)
    head.ink([box(-0.21, -0.165, 0.21, 0.165)], color, INK)
    head.fill(box(-0.155, -0.1, 0.185, 0.115), (42, 48, 78))
    for x, y, half in eyes(head, (-0.06, -0.025, 0.05), (0.11, -0.025, 0.05)):
        head.fill(box(x - half, y - 0.045, x + half, y + 0.045), (126, 240, 236))
        head.fill(box(x - 0.03, y - 0.03, x, y), WHITE)
    head.fill(limb(0.024, (-0.03, 0.07), (0.085, 0.07)), (126, 240, 236))


def draw_astronaut(canvas: Canvas, pose: Pose, color: Color, seed: int) -> None:
    """Round helmet with a dark-blue visor, a backpack, the suit in the colour."""
    pale = (226, 230, 238)
    dress = _Dress(color, color, color, pale, pale)
    x, y = pose["neck"]
    pack = canvas.placed(x, y, degrees=pose.torso_degrees)
    pack.ink([blob((-0.2, -0.02), (0.16, -0.02), (0.19, 0.1), (0.16, 0.23), (-0.2, 0.23),
                   (-0.24, 0.1))], (164, 172, 188), INK)
    _draw_legs(canvas, pose, dress, False)
    torso = _draw_torso(canvas, pose, color, False)
    torso.fill(box(-0.065, -0.005, 0.085, 0.09), pale)
    torso.fill(oval(-0.02, 0.04, 0.024), (240, 84, 80))
    torso.fill(oval(0.045, 0.04, 0.024), (70, 150, 240))
    _draw_arms(canvas, pose, dress, False)
    head = _head_canvas(canvas, pose)
    head.ink([oval(0, -0.01, 0.225, 0.21)], lighter(color, 0.12), INK)
    head.ink([oval(0.03, 0.005, 0.165, 0.135)], (28, 44, 104), darker(color, 0.3))
    head.fill(oval(0.03, 0.055, 0.13, 0.07), (48, 78, 160))
    head.fill(oval(-0.05, -0.05, 0.05, 0.026, -30), (216, 236, 255))
    head.fill(oval(0.1, 0.06, 0.02, 0.014, -30), (170, 206, 250))


def draw_person(canvas: Canvas, pose: Pose, color: Color, seed: int) -> None:
    """A child with hair, trousers and a shirt in the colour."""
    tone = seed % len(SKIN_TONES)
    skin = SKIN_TONES[tone]
    # The lightest hair would vanish on the darker skins.
    hair = HAIR_COLORS[seed // 7 % (3 if tone < 2 else 2)]
    dress = _Dress(color, color, darker(color, 0.35), skin, COAL)
    _draw_legs(canvas, pose, dress, False)
    torso = _draw_torso(canvas, pose, color, False)
    torso.fill(curve(0.03, (-0.13, 0.05), (0.02, 0.075), (0.145, 0.05)), lighter(color, 0.5))
    _draw_arms(canvas, pose, dress, False)
    head = _head_canvas(canvas, pose)
    head.ink([oval(-0.02, -0.03, 0.225, 0.2)], hair, INK)
    head.ink([oval(0.015, 0.025, 0.185, 0.155)], skin, skin)
    head.fill(blob((-0.21, 0.02), (-0.2, -0.14), (-0.02, -0.215), (0.16, -0.15), (0.19, -0.02),
                   (0.12, -0.07), (-0.04, -0.075), (-0.15, -0.03)), hair)
    for place in eyes(head, (-0.05, 0.02, 0.03), (0.12, 0.02, 0.03)):
        eye(head, *place)
    blush(head, -0.1, 0.09, 0.036, skin)
    blush(head, 0.155, 0.09, 0.028, skin)
    smile(head, 0.04, 0.095, 0.048, darker((200, 70, 70), 0.2))


BIPEDS = {
    "panda": draw_panda, "bear": draw_bear, "robot": draw_robot, "astronaut": draw_astronaut,
    "person": draw_person,
}

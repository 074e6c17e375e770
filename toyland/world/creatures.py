"""The subjects that are no persons: animals on four legs, the fish, and the things that move.

All face right, in units of their own height, origin in the middle, y down.
"""

from __future__ import annotations

import numpy as np

from text2video_zero.control.creatures import (
    BALL_POLE,
    CAT,
    FAR_SIDE,
    FISH_WAG,
    FOX,
    HORSE,
    ROCKET_DOWN,
    ROCKET_IN_FLIGHT,
    WHEELS,
    WINGS,
    Bearing,
    FourLegged,
    wing_degrees,
)
from toyland.world.bipeds import blush, eye, eyes, nose, smile
from toyland.world.canvas import (
    Canvas,
    Color,
    Shape,
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
from toyland.world.palette import BLUSH, COAL, CREAM, GLASS, INK, WHITE, WING, WING_SHADE
from toyland.world.skeleton import AIRBORNE, bearing


def _wave(phase: float) -> float:
    return float(np.sin(2 * np.pi * phase))


def _draw_legs(
    canvas: Canvas, animal: FourLegged, width: float, colors: tuple[Color, Color], held: Bearing, far: bool,
) -> None:
    """The two legs of one side. colors: leg and foot."""
    leg_color, foot_color = (darker(c, 0.22) for c in colors) if far else colors
    hips, length = animal.hips, animal.leg
    dx, dy = FAR_SIDE if far else (0.0, 0.0)
    legs = list(zip(hips, held.far if far else held.near, strict=True))
    if not far and canvas.defect is not None and canvas.defect.kind == "limb doubled":
        back, front = hips
        share = 0.35 + 0.3 * canvas.defect.which
        legs.append(((back[0] + share * (front[0] - back[0]), back[1]), 24 * canvas.defect.much - 12))
    for hip, degrees in legs:
        angle = np.radians(degrees)
        x, y = hip[0] + dx, hip[1] + dy
        tip = (x + length * np.sin(angle), y + length * np.cos(angle))
        knee = (x + 0.75 * length * np.sin(angle), y + 0.75 * length * np.cos(angle))
        canvas.ink([limb(width, (x, y), tip)], leg_color, INK)
        canvas.fill(limb(width, knee, tip), foot_color)


def _draw_wing(canvas: Canvas, subject: str, held: Bearing) -> None:
    """The feathered wing of who flies."""
    if held.wing is None:
        return
    wing = canvas.placed(*WINGS[subject], degrees=wing_degrees(held.wing))
    wing.ink([blob((0.06, 0.03), (0.02, -0.16), (-0.12, -0.34), (-0.3, -0.4), (-0.29, -0.27),
                   (-0.27, -0.16), (-0.2, -0.06), (-0.1, 0.04))], WING, INK)
    for tip_x, tip_y in ((-0.27, -0.27), (-0.2, -0.12)):
        wing.fill(curve(0.022, (0.0, -0.04), (tip_x * 0.55, tip_y * 0.75), (tip_x, tip_y)),
                  WING_SHADE)


def draw_cat(canvas: Canvas, color: Color, action: str, phase: float, seed: int) -> None:
    """Pointed ears, whiskers and a striped tail held up."""
    held = bearing("cat", action, phase)
    stripe, wag = darker(color, 0.34), 0.05 * held.wag
    legs = (CAT, 0.115, (color, mix(color, CREAM, 0.7)), held)
    _draw_legs(canvas, *legs, far=True)
    tail = ((-0.34, 0.12), (-0.47, 0.0), (-0.46 + wag, -0.2), (-0.38 + 2 * wag, -0.38))
    rings = curve(0.115, *tail)
    canvas.ink([rings], color, INK)
    for part in (slice(10, 14), slice(17, 21), slice(23, 25)):
        canvas.fill(Shape(rings.points[part], 0.1), stripe)
    canvas.ink([oval(-0.1, 0.12, 0.32, 0.2)], color, INK)
    for x in (-0.25, -0.13, -0.01):
        canvas.fill(curve(0.045, (x, -0.05), (x - 0.015, 0.0), (x, 0.06)), stripe)
    _draw_legs(canvas, *legs, far=False)
    _draw_wing(canvas, "cat", held)
    head = canvas.placed(*CAT.head, degrees=held.head)
    head.ink([polygon((-0.23, -0.03), (-0.21, -0.32), (-0.02, -0.17)),
              polygon((0.23, -0.03), (0.21, -0.32), (0.02, -0.17)),
              oval(0, 0, 0.245, 0.2)], color, INK)
    for sign in (-1, 1):
        head.fill(polygon((sign * 0.19, -0.12), (sign * 0.185, -0.25), (sign * 0.08, -0.165)),
                  mix(color, BLUSH, 0.7))
    head.fill(oval(0.03, 0.09, 0.11, 0.075), mix(color, CREAM, 0.8))
    for place in eyes(head, (-0.075, -0.01, 0.037), (0.135, -0.01, 0.037)):
        eye(head, *place)
    head.fill(oval(*nose(head, 0.03, 0.06), 0.03, 0.02), (220, 96, 110))
    smile(head, 0.03, 0.09, 0.05)
    for sign, start in ((-1, -0.1), (1, 0.16)):
        for slope in (-0.03, 0.03):
            tip = (start + sign * 0.16, 0.075 + slope * 2)
            head.fill(limb(0.014, (start, 0.08 + slope / 2), tip), INK)


def draw_fox(canvas: Canvas, color: Color, action: str, phase: float, seed: int) -> None:
    """A bushy tail with a white tip, a pointed snout, dark socks."""
    held = bearing("fox", action, phase)
    pale, wag = mix(color, CREAM, 0.88), 0.05 * held.wag
    legs = (FOX, 0.1, (color, COAL), held)
    _draw_legs(canvas, *legs, far=True)
    tail = canvas.placed(-0.27, 0.1, degrees=100 * wag)
    tail.ink([blob((0.02, 0.07), (-0.16, 0.09), (-0.3, -0.06), (-0.34, -0.27), (-0.24, -0.43),
                   (-0.14, -0.28), (-0.08, -0.08), (0.04, -0.06))], color, INK)
    tail.fill(blob((-0.325, -0.22), (-0.3, -0.33), (-0.24, -0.415), (-0.175, -0.3), (-0.18, -0.24),
                   (-0.25, -0.27)), pale)
    canvas.ink([oval(-0.04, 0.13, 0.29, 0.165)], color, INK)
    _draw_legs(canvas, *legs, far=False)
    canvas.fill(oval(0.17, 0.14, 0.085, 0.11), pale)
    _draw_wing(canvas, "fox", held)
    head = canvas.placed(*FOX.head, degrees=held.head)
    head.ink([polygon((-0.22, -0.02), (-0.2, -0.34), (-0.02, -0.15)),
              polygon((0.16, -0.02), (0.16, -0.34), (-0.02, -0.17)),
              blob((-0.23, 0.02), (-0.14, -0.16), (0.06, -0.17), (0.18, -0.06), (0.38, 0.07),
                   (0.36, 0.12), (0.14, 0.18), (-0.12, 0.17))], color, INK)
    for x in (-0.165, 0.115):
        head.fill(polygon((x - 0.03, -0.17), (x - 0.02, -0.28), (x + 0.05, -0.17)), COAL)
    head.fill(blob((-0.16, 0.09), (0.0, 0.07), (0.16, 0.05), (0.35, 0.09), (0.13, 0.165),
                   (-0.1, 0.155)), pale)
    for place in eyes(head, (-0.07, 0.0, 0.036), (0.12, -0.005, 0.034)):
        eye(head, *place)
    head.fill(oval(*nose(head, 0.365, 0.08), 0.038, 0.034), INK)


def draw_horse(canvas: Canvas, color: Color, action: str, phase: float, seed: int) -> None:
    """Long legs, a long neck, dark mane and tail."""
    held = bearing("horse", action, phase)
    hair, wag = darker(color, 0.5), 0.05 * held.wag
    legs = (HORSE, 0.095, (color, COAL), held)
    canvas.ink([blob((-0.28, -0.05), (-0.38, -0.08), (-0.46 + wag, 0.08), (-0.45 + 2 * wag, 0.3),
                     (-0.37 + wag, 0.26), (-0.33, 0.08))], hair, INK)
    _draw_legs(canvas, *legs, far=True)
    mane = canvas.placed(0.0, held.nod)
    mane.ink([blob((0.26, -0.46), (0.14, -0.46), (0.04, -0.33), (-0.02, -0.16), (-0.05, -0.02),
                   (0.12, -0.06), (0.22, -0.26))], hair, INK)
    mane.ink([blob((0.16, -0.4), (0.3, -0.36), (0.27, -0.14), (0.23, 0.04), (0.06, 0.12),
                   (-0.05, 0.0), (0.08, -0.14))], color, INK)
    canvas.ink([oval(-0.08, 0.08, 0.29, 0.165)], color, INK)
    # Hides the outline between neck and body.
    canvas.fill(oval(0.08, 0.01, 0.1, 0.1), color)
    _draw_legs(canvas, *legs, far=False)
    _draw_wing(canvas, "horse", held)
    x, y = HORSE.head
    head = canvas.placed(x, y + held.nod, degrees=held.head)
    head.ink([polygon((-0.11, -0.06), (-0.07, -0.2), (0.01, -0.08)),
              blob((-0.13, 0.02), (-0.07, -0.11), (0.05, -0.1), (0.18, 0.02), (0.23, 0.13),
                   (0.15, 0.2), (0.04, 0.16), (-0.08, 0.13))], color, INK)
    head.fill(oval(0.165, 0.12, 0.062, 0.065), mix(color, CREAM, 0.6))
    head.fill(oval(0.19, 0.1, 0.014), INK)
    head.fill(blob((-0.06, -0.14), (0.04, -0.12), (0.06, -0.02), (-0.02, -0.06), (-0.1, -0.04)),
              hair)
    for place in eyes(head, (0.04, 0.015, 0.036)):
        eye(head, *place)
    blush(head, 0.04, 0.095, 0.03, color)


def draw_fish(canvas: Canvas, color: Color, action: str, phase: float, seed: int) -> None:
    """An oval with fins, stripes and one big eye; the tail wags."""
    held = bearing("fish", action, phase)
    fin, wag = darker(color, 0.2), FISH_WAG * held.wag
    canvas.ink([blob((-0.3, 0.0), (-0.5, -0.2 + wag), (-0.68, -0.3 + 2 * wag),
                     (-0.6, 2 * wag), (-0.68, 0.3 + 2 * wag), (-0.5, 0.2 + wag))], fin, INK)
    canvas.ink([blob((-0.25, -0.25), (-0.1, -0.46), (0.16, -0.47), (0.18, -0.26)),
                blob((-0.15, 0.28), (-0.12, 0.46), (0.05, 0.46), (0.1, 0.3))], fin, INK)
    canvas.ink([blob((0.62, 0.02), (0.42, -0.25), (0.08, -0.35), (-0.24, -0.23), (-0.44, 0.0),
                     (-0.24, 0.24), (0.08, 0.36), (0.42, 0.27))], color, INK)
    canvas.fill(blob((0.5, 0.2), (0.1, 0.2), (-0.28, 0.17), (-0.1, 0.29), (0.12, 0.335),
                     (0.36, 0.29)), lighter(color, 0.45))
    for x, half in ((-0.05, 0.22), (-0.23, 0.14)):
        canvas.fill(curve(0.07, (x, -half), (x + 0.05, 0.0), (x, half)), lighter(color, 0.6))
    _draw_wing(canvas, "fish", held)
    canvas.ink([blob((0.1, 0.07), (0.0, 0.0 + wag / 2), (-0.13, 0.09 + wag), (0.0, 0.18 + wag))],
               fin, INK)
    for x, y, radius in eyes(canvas, (0.365, -0.06, 0.062)):
        canvas.ink([oval(x - 0.025, y - 0.01, 0.11)], WHITE, INK)
        eye(canvas, x, y, radius)
    blush(canvas, 0.36, 0.12, 0.05, color)
    smile(canvas, 0.51, 0.1, 0.05)


def draw_car(canvas: Canvas, color: Color, action: str, phase: float, seed: int) -> None:
    """Side view: a round roof, two windows, two turning wheels."""
    held = bearing("car", action, phase)
    body = canvas.placed(0.0, held.bob)
    body.ink([blob((-0.5, -0.05), (-0.36, -0.4), (-0.1, -0.47), (0.14, -0.44), (0.36, -0.12),
                   (0.2, 0.05), (-0.3, 0.05))], color, INK)
    body.ink([blob((-0.72, 0.02), (-0.55, -0.12), (0.0, -0.12), (0.46, -0.12), (0.68, -0.02),
                   (0.75, 0.16), (0.66, 0.28), (0.0, 0.29), (-0.62, 0.28), (-0.74, 0.18))],
             color, INK)
    # Hides the outline between cabin and body.
    body.fill(blob((-0.5, -0.08), (-0.36, -0.3), (0.0, -0.36), (0.2, -0.3), (0.34, -0.05),
                   (0.2, 0.0), (-0.4, 0.0)), color)
    body.fill(limb(0.05, (-0.62, 0.19), (0.64, 0.19)), darker(color, 0.22))
    body.fill(polygon((-0.38, -0.12), (-0.3, -0.32), (-0.1, -0.37), (-0.1, -0.12)), GLASS)
    body.fill(polygon((-0.02, -0.12), (-0.02, -0.37), (0.1, -0.35), (0.26, -0.12)), GLASS)
    body.fill(polygon((-0.28, -0.16), (-0.22, -0.29), (-0.17, -0.31), (-0.22, -0.16)), WHITE)
    body.fill(limb(0.03, (0.0, -0.0), (0.1, -0.0)), darker(color, 0.35))
    body.ink([oval(0.63, 0.06, 0.065, 0.075)], (255, 240, 150), INK)
    body.ink([box(-0.75, 0.04, -0.68, 0.13)], (230, 60, 60), INK)
    _draw_wing(canvas, "car", held)
    wheels = [*WHEELS]
    if canvas.defect is not None and canvas.defect.kind == "limb doubled":
        wheels.append(0.3 * canvas.defect.which - 0.15)
    for x in wheels:
        wheel = canvas.placed(x, 0.28, degrees=held.turn)
        wheel.ink([oval(0, 0, 0.19)], COAL, INK)
        wheel.fill(oval(0, 0, 0.11), (214, 218, 228))
        wheel.fill(limb(0.045, (-0.08, 0), (0.08, 0)), (120, 126, 140))
        wheel.fill(limb(0.045, (0, -0.08), (0, 0.08)), (120, 126, 140))


def draw_rocket(canvas: Canvas, color: Color, action: str, phase: float, seed: int) -> None:
    """Nose cone, fins and a round window; a flame when it is off the ground."""
    dark, pale = darker(color, 0.32), (236, 238, 246)
    if action in AIRBORNE:
        scale, down = ROCKET_IN_FLIGHT
        canvas = canvas.placed(0.0, down, scale=scale)
        length = 0.46 + 0.05 * _wave(phase)
        canvas.ink([blob((-0.1, 0.27), (0.1, 0.27), (0.13, 0.37), (0.0, length + 0.06),
                         (-0.13, 0.37))], (255, 146, 38), (214, 70, 30))
        canvas.fill(blob((-0.05, 0.28), (0.05, 0.28), (0.06, 0.34), (0.0, length - 0.02),
                         (-0.06, 0.34)), (255, 236, 120))
    else:
        canvas = canvas.placed(0.0, ROCKET_DOWN)
    canvas.ink([blob((-0.12, 0.02), (-0.3, 0.2), (-0.32, 0.36), (-0.2, 0.3), (-0.08, 0.28)),
                blob((0.12, 0.02), (0.3, 0.2), (0.32, 0.36), (0.2, 0.3), (0.08, 0.28))], dark, INK)
    canvas.ink([box(-0.1, 0.24, 0.1, 0.32)], (116, 122, 140), INK)
    hull = blob((0.0, -0.53), (0.13, -0.36), (0.2, -0.1), (0.17, 0.14), (0.11, 0.27), (-0.11, 0.27),
                (-0.17, 0.14), (-0.2, -0.1), (-0.13, -0.36))
    canvas.ink([hull], color, INK)
    canvas.fill(blob((0.0, -0.52), (0.09, -0.42), (0.145, -0.31), (0.0, -0.27), (-0.145, -0.31),
                     (-0.09, -0.42)), dark)
    canvas.fill(curve(0.05, (-0.15, 0.17), (0.0, 0.2), (0.15, 0.17)), pale)
    canvas.ink([oval(0, -0.08, 0.1)], GLASS, INK)
    canvas.fill(oval(-0.03, -0.11, 0.04, 0.028, -35), WHITE)
    canvas.ink([limb(0.05, (0.0, 0.13), (0.0, 0.32))], dark, INK)


def draw_ball(canvas: Canvas, color: Color, action: str, phase: float, seed: int) -> None:
    """A beach ball: segments in the colour and white around a pole, rolling."""
    light = (214, 220, 232) if min(color) > 240 else WHITE
    canvas.ink([oval(0, 0, 0.48)], color, INK)
    held = bearing("ball", action, phase)
    wheel = canvas.placed(0, 0, degrees=held.turn)
    pole = np.array(BALL_POLE)
    for start in (0, 120, 240):
        edge = np.radians(start + np.linspace(0, 46, 8))
        rim = 0.48 * np.stack([np.cos(edge), np.sin(edge)], axis=1)
        wheel.fill(polygon(tuple(pole), *map(tuple, rim)), light)
    wheel.fill(oval(pole[0], pole[1], 0.09), darker(color, 0.25))
    canvas.fill(oval(-0.2, -0.27, 0.1, 0.055, -38), lighter(color, 0.75))
    _draw_wing(canvas, "ball", held)


CREATURES = {
    "cat": draw_cat, "horse": draw_horse, "fox": draw_fox, "fish": draw_fish, "car": draw_car,
    "rocket": draw_rocket, "ball": draw_ball,
}

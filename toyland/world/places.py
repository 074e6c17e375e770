"""The backdrops, drawn in fractions of the frame with the depth of every thing in them.

A backdrop depends on its random generator and the weather alone, so it stays the same while the
subject moves. What it holds is few, large and smooth.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

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
from toyland.world.palette import CREAM, WHITE

if TYPE_CHECKING:
    from collections.abc import Callable

# Beyond the frame on both sides, so that a panned picture has no empty edge.
_LEFT, _RIGHT = -1.0, 2.0
_GROUND_DEPTH = (0.22, 0.88)

PLACES = ("meadow", "street", "beach", "desert", "snow", "ocean", "moon", "city")


def _sky(canvas: Canvas, upper: Color, lower: Color, bottom: float = 0.75) -> None:
    canvas.at_depth(0.0).gradient(box(_LEFT, -0.01, _RIGHT, bottom), upper, lower)


def _hills(
    canvas: Canvas, rng: np.random.Generator, top: float, rise: float, upper: Color, lower: Color,
    depth: float | tuple[float, float],
) -> None:
    """A rolling ground from ``top`` (row of its middle) down to the bottom edge."""
    x = np.linspace(_LEFT, _RIGHT, 49)
    offset, waves = rng.uniform(0, 1), rng.uniform(0.7, 1.3)
    y = top + rise * np.sin(2 * np.pi * (waves * x + offset))
    outline = [*zip(x, y, strict=True), (_RIGHT, 1.02), (_LEFT, 1.02)]
    levels = depth if isinstance(depth, tuple) else (depth, depth)
    canvas.at_depth(levels[0]).gradient(polygon(*outline), upper, lower, levels)


def ground_depth(horizon: float, y: float) -> float:
    """Depth of the ground at the row y (fractions), 0..1."""
    share = np.clip((y - horizon) / (1.02 - horizon), 0, 1)
    return float(_GROUND_DEPTH[0] + (_GROUND_DEPTH[1] - _GROUND_DEPTH[0]) * share)


def _shining_disc(canvas: Canvas, x: float, y: float, radius: float, color: Color) -> None:
    """The sun, or at night the moon."""
    sky = canvas.at_depth(0.0)
    sky.glow(x, y, radius * 3, radius * 3, lighter(color, 0.5), 0.7)
    sky.fill(oval(x, y, radius), color)


def _cloud(canvas: Canvas, x: float, y: float, size: float, color: Color) -> None:
    sky = canvas.at_depth(0.03)
    for dx, dy, r in ((-0.9, 0.1, 0.5), (0.0, -0.2, 0.75), (0.9, 0.08, 0.55)):
        sky.fill(oval(x + dx * size, y + dy * size, r * size), color)
    base = y + 0.25 * size
    sky.fill(limb(0.76 * size, (x - 0.9 * size, base), (x + 0.95 * size, base)), color)


def _day_sky(
    canvas: Canvas, rng: np.random.Generator, weather: str, upper: Color, lower: Color
) -> None:
    """A sky with what the weather puts into it; what lies below is the same in any weather."""
    rng = rng.spawn(1)[0]
    gray = (168, 182, 198)
    grayness = {"cloudy": 0.35, "rainy": 0.75, "snowy": 0.4}.get(weather, 0.0)
    _sky(canvas, mix(upper, gray, grayness), mix(lower, gray, grayness * 0.6))
    x, y = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.2)
    if weather == "sunny":
        _shining_disc(canvas, x, y, rng.uniform(0.075, 0.1), (255, 226, 92))
    count = {"cloudy": 4, "rainy": 4, "clear": 2, "sunny": 1}.get(weather, 0)
    cloud = mix(WHITE, gray, grayness * 0.75)
    start = rng.uniform(0, 1)
    for index in range(count):
        _cloud(canvas, (start + index / count + rng.uniform(-0.06, 0.06)) % 1.0,
               rng.uniform(0.08, 0.3), rng.uniform(0.055, 0.09), cloud)


def draw_falling(canvas: Canvas, weather: str, detail_seed: int) -> None:
    """Rain or snow in the air behind the subject; to be drawn once the depth has been read."""
    rng = np.random.default_rng((detail_seed, 1))
    columns = (np.arange(26) * 0.618) % 1.0
    if weather == "rainy":
        for x in columns[:22]:
            y = rng.uniform(0, 0.9)
            canvas.fill(limb(0.009, (x, y), (x - 0.025, y + 0.08)), (206, 226, 246))
    if weather == "snowy":
        for x in columns[:20]:  # large ones: of flakes that are small beside a cell of the latents nothing is left
            canvas.fill(oval(x, rng.uniform(0, 0.95), rng.uniform(0.028, 0.042)), WHITE)


def _side(rng: np.random.Generator) -> float:
    """A column near the left or the right edge."""
    return float(rng.uniform(0.06, 0.18) if rng.random() < 0.5 else rng.uniform(0.82, 0.94))


def _draw_meadow(canvas: Canvas, rng: np.random.Generator, weather: str) -> None:
    _day_sky(canvas, rng, weather, (92, 178, 244), (214, 240, 252))
    _hills(canvas, rng, 0.54, 0.05, (152, 212, 128), (120, 190, 100), 0.12)
    if rng.random() < 0.7:
        _round_tree(canvas, _side(rng), 0.62, rng.uniform(0.12, 0.16))
    _hills(canvas, rng, 0.64, 0.025, (134, 208, 88), (74, 160, 60), _GROUND_DEPTH)
    petals = ((255, 255, 255), (255, 170, 205), (255, 226, 90))
    for index in range(8):
        x, y = (index * 0.618 + rng.uniform(0, 0.1)) % 1.0, rng.uniform(0.74, 0.97)
        radius = 0.012 + 0.02 * (y - 0.7) / 0.3
        near = canvas.at_depth(ground_depth(0.64, y))
        near.fill(oval(x, y, radius * 1.5, radius * 1.3), petals[int(rng.integers(3))])
        near.fill(oval(x, y, radius * 0.6), (250, 180, 50))


def _round_tree(canvas: Canvas, x: float, foot: float, size: float) -> None:
    tree = canvas.at_depth(0.2)
    tree.fill(limb(size * 0.28, (x, foot), (x, foot + size * 0.4)), (136, 96, 66))
    tree.fill(limb(size * 0.28, (x, foot - size), (x, foot + size * 0.2)), (136, 96, 66))
    tree.fill(oval(x, foot - size * 1.1, size, size * 0.95), (70, 152, 78))
    tree.fill(oval(x - size * 0.2, foot - size * 1.3, size * 0.6, size * 0.55), (98, 178, 92))


def _draw_street(canvas: Canvas, rng: np.random.Generator, weather: str) -> None:
    _day_sky(canvas, rng, weather, (130, 196, 240), (226, 240, 248))
    walls = ((244, 190, 160), (250, 222, 160), (186, 214, 196), (190, 206, 232), (232, 190, 200))
    roofs = ((186, 90, 80), (148, 104, 92), (110, 108, 136))
    first = int(rng.integers(5))
    x = -0.3 - rng.uniform(0, 0.2)
    for index in range(6):
        width = rng.uniform(0.26, 0.34)
        _house(canvas, x, width, rng.uniform(0.22, 0.34), walls[(first + index) % 5],
               roofs[int(rng.integers(3))])
        x += width + 0.012
    pavement = canvas.at_depth(0.3)
    pavement.gradient(box(_LEFT, 0.62, _RIGHT, 0.72), (214, 206, 198), (196, 188, 184),
                      (0.22, 0.38))
    canvas.at_depth(0.38).fill(box(_LEFT, 0.715, _RIGHT, 0.735), (150, 146, 150))
    canvas.at_depth(0.4).gradient(box(_LEFT, 0.735, _RIGHT, 1.02), (112, 114, 128), (84, 86, 102),
                                  (0.42, 0.88))
    start = rng.uniform(0, 0.3)
    for index in range(-3, 6):
        left = start + index * 0.32
        canvas.at_depth(0.65).fill(polygon((left + 0.01, 0.855), (left + 0.17, 0.855),
                                           (left + 0.16, 0.89), (left, 0.89)), (246, 244, 232))


def _house(
    canvas: Canvas, x: float, width: float, top: float, wall: Color, roof: Color
) -> None:
    house = canvas.at_depth(0.2)
    house.gradient(box(x, top, x + width, 0.63), wall, darker(wall, 0.1))
    ridge = (x + width / 2, top - 0.13)
    house.fill(polygon((x - 0.015, top), ridge, (x + width + 0.015, top)), roof)
    for row in (top + 0.05, top + 0.17):
        for column in (0.16, 0.6):
            left = x + column * width
            house.fill(box(left - 0.01, row - 0.01, left + 0.085, row + 0.085), WHITE)
            house.fill(box(left, row, left + 0.075, row + 0.075), (118, 168, 206))
            if row + 0.12 > 0.6:
                break
    house.fill(box(x + 0.4 * width, 0.52, x + 0.4 * width + 0.075, 0.63), darker(roof, 0.1))


def _draw_beach(canvas: Canvas, rng: np.random.Generator, weather: str) -> None:
    _day_sky(canvas, rng, weather, (96, 196, 250), (222, 244, 252))
    canvas.at_depth(0.08).gradient(box(_LEFT, 0.46, _RIGHT, 0.7), (34, 132, 200), (112, 216, 218),
                                   (0.08, 0.22))
    shore = np.linspace(_LEFT, _RIGHT, 49)
    offset = rng.uniform(0, 1)
    row = 0.66 + 0.018 * np.sin(2 * np.pi * (1.2 * shore + offset))
    foam = canvas.at_depth(0.22)
    foam.fill(Shape(np.stack([shore, row], axis=1), 0.035), WHITE)
    outline = [*zip(shore, row, strict=True), (_RIGHT, 1.02), (_LEFT, 1.02)]
    foam.gradient(polygon(*outline), (252, 230, 172), (240, 200, 128), _GROUND_DEPTH)
    if rng.random() < 0.6:
        _palm(canvas, _side(rng), rng)
    else:
        _parasol(canvas, _side(rng), rng)


def _palm(canvas: Canvas, x: float, rng: np.random.Generator) -> None:
    palm, lean = canvas.at_depth(0.35), rng.uniform(-0.06, 0.06)
    top = (x + lean, 0.3)
    palm.fill(curve(0.042, (x, 0.78), (x - lean * 0.4, 0.55), top), (160, 116, 76))
    for angle in (-165, -125, -60, -15, 25, 155):
        dx, dy = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        palm.fill(blob(top, (top[0] + 0.11 * dx, top[1] + 0.11 * dy - 0.045),
                       (top[0] + 0.2 * dx, top[1] + 0.16 * dy + 0.03),
                       (top[0] + 0.1 * dx, top[1] + 0.1 * dy + 0.015)), (58, 150, 84))


def _parasol(canvas: Canvas, x: float, rng: np.random.Generator) -> None:
    shade = canvas.at_depth(0.35)
    colors = ((240, 96, 92), (250, 170, 60), (84, 160, 226))
    color = colors[int(rng.integers(3))]
    shade.fill(limb(0.016, (x, 0.44), (x, 0.78)), (250, 246, 236))
    dome = np.linspace(np.pi, 2 * np.pi, 7)
    rim = [(x + 0.17 * np.cos(a), 0.52 + 0.13 * np.sin(a)) for a in dome]
    for index, (left, right) in enumerate(pairwise(rim)):
        panel = polygon((x, 0.39), left, (left[0], 0.525), (right[0], 0.525), right)
        shade.fill(panel, color if index % 2 else CREAM)


def _draw_desert(canvas: Canvas, rng: np.random.Generator, weather: str) -> None:
    _sky(canvas, (250, 170, 96), (255, 232, 178))
    if weather == "cloudy":
        above = rng.spawn(1)[0]
        for index in range(3):
            _cloud(canvas, (index / 3 + above.uniform(0, 0.3)) % 1.0, above.uniform(0.08, 0.25),
                   above.uniform(0.05, 0.08), (255, 226, 196))
    _shining_disc(canvas, rng.uniform(0.15, 0.85), rng.uniform(0.16, 0.26), rng.uniform(0.11, 0.14),
         (255, 244, 176))
    _hills(canvas, rng, 0.52, 0.06, (232, 162, 92), (214, 138, 76), 0.1)
    _hills(canvas, rng, 0.6, 0.04, (240, 182, 104), (222, 152, 82), 0.2)
    for x in (_side(rng), _side(rng))[: int(rng.integers(1, 3))]:
        _cactus(canvas, x, rng.uniform(0.2, 0.3))
    _hills(canvas, rng, 0.7, 0.025, (248, 202, 122), (228, 160, 86), _GROUND_DEPTH)


def _cactus(canvas: Canvas, x: float, size: float) -> None:
    cactus, green = canvas.at_depth(0.28), (70, 140, 92)
    cactus.fill(limb(size * 0.26, (x, 0.78), (x, 0.7 - size)), green)
    cactus.fill(curve(size * 0.18, (x, 0.7 - size * 0.25), (x - size * 0.36, 0.7 - size * 0.32),
                      (x - size * 0.4, 0.7 - size * 0.7)), green)
    cactus.fill(curve(size * 0.18, (x, 0.7 - size * 0.1), (x + size * 0.34, 0.7 - size * 0.2),
                      (x + size * 0.38, 0.7 - size * 0.5)), green)
    cactus.fill(limb(size * 0.05, (x - size * 0.04, 0.76), (x - size * 0.04, 0.7 - size)),
                (104, 172, 118))


def _draw_snow(canvas: Canvas, rng: np.random.Generator, weather: str) -> None:
    _day_sky(canvas, rng, weather, (150, 196, 236), (232, 242, 252))
    _hills(canvas, rng, 0.52, 0.07, (222, 234, 248), (196, 214, 238), 0.1)
    for index in range(4):
        _fir(canvas, (index * 0.29 + rng.uniform(-0.06, 0.1)) % 1.0, rng.uniform(0.62, 0.68),
             rng.uniform(0.2, 0.3))
    _hills(canvas, rng, 0.66, 0.025, (250, 253, 255), (204, 222, 244), _GROUND_DEPTH)


def _fir(canvas: Canvas, x: float, foot: float, size: float) -> None:
    fir = canvas.at_depth(0.18)
    fir.fill(limb(size * 0.12, (x, foot - 0.05), (x, foot + 0.05)), (120, 92, 76))
    for row, half in ((0.0, 0.36), (0.28, 0.29), (0.55, 0.21)):
        y = foot - row * size
        fir.fill(polygon((x - half * size, y), (x, y - 0.5 * size), (x + half * size, y)),
                 (62, 122, 112))
        fir.fill(polygon((x - half * 0.42 * size, y - 0.29 * size), (x, y - 0.5 * size),
                         (x + half * 0.42 * size, y - 0.29 * size), (x, y - 0.2 * size)),
                 (246, 250, 255))


def _draw_ocean(canvas: Canvas, rng: np.random.Generator, weather: str) -> None:
    _sky(canvas, (86, 212, 226), (14, 92, 158), bottom=1.0)
    for _ in range(3):
        x = rng.uniform(0.05, 0.95)
        canvas.at_depth(0.0).glow(x, -0.05, 0.16 + 0.06 * (weather == "sunny"), 0.75, WHITE, 0.42)
    _hills(canvas, rng, 0.66, 0.05, (22, 104, 150), (18, 84, 132), 0.12)
    for index in range(3):
        _kelp(canvas, (index * 0.38 + rng.uniform(0, 0.2)) % 1.0, rng.uniform(0.28, 0.5))
    _hills(canvas, rng, 0.8, 0.025, (186, 198, 168), (142, 164, 150), _GROUND_DEPTH)
    corals = ((250, 124, 138), (255, 166, 96), (206, 130, 214))
    for x in (_side(rng), _side(rng)):
        _coral(canvas, x, rng.uniform(0.13, 0.18), corals[int(rng.integers(3))])
    for _ in range(7):
        x, y, r = rng.uniform(0, 1), rng.uniform(0.06, 0.7), rng.uniform(0.012, 0.026)
        canvas.at_depth(0.1).fill(oval(x, y, r), (176, 232, 240))
        canvas.at_depth(0.1).fill(oval(x - r * 0.2, y - r * 0.2, r * 0.5), WHITE)


def _kelp(canvas: Canvas, x: float, size: float) -> None:
    canvas.at_depth(0.25).fill(
        curve(0.045, (x, 0.86), (x + 0.035, 0.86 - size * 0.35), (x - 0.03, 0.86 - size * 0.7),
              (x + 0.015, 0.86 - size)), (30, 140, 116))


def _coral(canvas: Canvas, x: float, size: float, color: Color) -> None:
    coral = canvas.at_depth(0.45)
    for dx, height in ((-0.5, 0.7), (0.0, 1.0), (0.5, 0.8)):
        coral.fill(curve(size * 0.28, (x, 0.88), (x + dx * size * 0.8, 0.88 - size * 0.45),
                         (x + dx * size, 0.88 - size * height)), color)


def _draw_moon(canvas: Canvas, rng: np.random.Generator, weather: str) -> None:
    _sky(canvas, (10, 10, 30), (38, 32, 70))
    for index in range(22):
        x, y = (index * 0.618) % 1.0, rng.uniform(0.02, 0.58)
        canvas.at_depth(0.0).fill(oval(x, y, rng.uniform(0.005, 0.011)), (255, 250, 224))
    _earth(canvas, rng.uniform(0.14, 0.86), rng.uniform(0.14, 0.24), rng.uniform(0.1, 0.13))
    _hills(canvas, rng, 0.6, 0.04, (142, 142, 156), (120, 120, 136), 0.12)
    _hills(canvas, rng, 0.68, 0.02, (196, 196, 206), (134, 134, 150), _GROUND_DEPTH)
    for index in range(5):
        x, y = (index * 0.618 + rng.uniform(0, 0.2)) % 1.0, 0.75 + 0.05 * index
        radius = rng.uniform(0.05, 0.08) * (0.5 + y)
        crater = canvas.at_depth(ground_depth(0.68, y))
        crater.fill(oval(x, y, radius, radius * 0.36), (118, 118, 134))
        crater.fill(oval(x, y + radius * 0.09, radius * 0.86, radius * 0.25), (148, 148, 162))


def _earth(canvas: Canvas, x: float, y: float, radius: float) -> None:
    sky = canvas.at_depth(0.0)
    sky.glow(x, y, radius * 1.9, radius * 1.9, (120, 180, 255), 0.6)
    sky.fill(oval(x, y, radius), (54, 128, 222))
    sky.fill(blob((x - 0.6 * radius, y - 0.3 * radius), (x, y - 0.65 * radius),
                  (x + 0.1 * radius, y - 0.1 * radius), (x - 0.3 * radius, y + 0.2 * radius)),
             (86, 182, 98))
    sky.fill(oval(x + 0.4 * radius, y + 0.35 * radius, 0.35 * radius, 0.25 * radius), (86, 182, 98))
    sky.fill(oval(x - 0.1 * radius, y + 0.6 * radius, 0.45 * radius, 0.14 * radius), WHITE)


def _draw_city(canvas: Canvas, rng: np.random.Generator, weather: str) -> None:
    _sky(canvas, (20, 22, 66), (92, 62, 132))
    moon = (rng.uniform(0.12, 0.88), rng.uniform(0.1, 0.18))
    _shining_disc(canvas, *moon, 0.065, (255, 244, 206))
    _skyline(canvas, rng, (0.2, 0.36), (58, 50, 104), (214, 178, 120), 0.1)
    _skyline(canvas, rng, (0.34, 0.5), (36, 32, 74), (255, 218, 112), 0.2)
    canvas.at_depth(0.22).gradient(box(_LEFT, 0.7, _RIGHT, 1.02), (88, 78, 124), (54, 48, 92),
                                   _GROUND_DEPTH)
    for x in (rng.uniform(0.1, 0.4), rng.uniform(0.6, 0.9)):
        canvas.at_depth(0.5).glow(x, 0.84, 0.26, 0.1, (255, 206, 120), 0.5)


def _skyline(
    canvas: Canvas, rng: np.random.Generator, tops: tuple[float, float], wall: Color, lit: Color,
    depth: float,
) -> None:
    row = canvas.at_depth(depth)
    x = -0.2 - rng.uniform(0, 0.15)
    while x < 1.2:
        width, top = rng.uniform(0.14, 0.2), rng.uniform(*tops)
        row.gradient(box(x, top, x + width, 0.71), wall, lighter(wall, 0.08))
        dark = rng.integers(4)
        for index, y in enumerate(np.arange(top + 0.035, 0.62, 0.085)):
            for column in (0.16, 0.58):
                if (index * 2 + (column > 0.5)) % 4 != dark:
                    left = x + column * width
                    row.fill(box(left, y, left + width * 0.26, y + 0.042), lit)
        x += width + rng.uniform(0.0, 0.04)


@dataclass(frozen=True)
class Place:
    """How to draw a backdrop, the weathers it knows, and the row where its ground begins."""

    draw: Callable[[Canvas, np.random.Generator, str], None]
    weathers: tuple[str, ...]
    horizon: float


PLACE_TABLE: dict[str, Place] = {
    "meadow": Place(_draw_meadow, ("clear", "sunny", "cloudy", "rainy"), 0.64),
    "street": Place(_draw_street, ("clear", "sunny", "cloudy", "rainy"), 0.62),
    "beach": Place(_draw_beach, ("clear", "sunny", "cloudy"), 0.66),
    "desert": Place(_draw_desert, ("clear", "cloudy"), 0.7),
    "snow": Place(_draw_snow, ("clear", "sunny", "snowy"), 0.66),
    "ocean": Place(_draw_ocean, ("clear", "sunny"), 0.8),
    "moon": Place(_draw_moon, ("clear",), 0.68),
    "city": Place(_draw_city, ("clear", "rainy"), 0.7),
}


def draw_place(canvas: Canvas, place: str, weather: str, detail_seed: int) -> None:
    """Paint a whole backdrop, colours and depth, onto the canvas."""
    PLACE_TABLE[place].draw(canvas, np.random.default_rng(detail_seed), weather)

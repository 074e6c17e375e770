"""A small vector-drawing canvas: anti-aliased shapes in local coordinates on a 4-channel picture.

Three channels hold RGB, the fourth a *level*: depth while a backdrop is drawn, coverage while a
subject is drawn. Anti-aliasing blends all four alike, so mask and depth fit the colours exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from toyland.world.defects import Defect

Color = tuple[int, int, int]
"""Red, green, blue, each 0..255."""

OUTLINE_WIDTH = 0.014
"""Width of a subject's outline in fractions of the frame (about 2 px at 128)."""

_SUBPIXEL_BITS = 4
_SUBPIXELS = 1 << _SUBPIXEL_BITS


@dataclass(frozen=True)
class Shape:
    """Points (n, 2) in local units; a closed area, or an open stroke if ``width`` > 0."""

    points: np.ndarray
    width: float = 0.0


def mix(a: Color, b: Color, share: float) -> Color:
    """The colour at ``share`` (0..1) of the way from a to b."""
    red, green, blue = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return red, green, blue


def lighter(color: Color, share: float = 0.35) -> Color:
    """The colour mixed with white."""
    return mix(color, (255, 255, 255), share)


def darker(color: Color, share: float = 0.25) -> Color:
    """The colour in shade: warm colours turn towards wine (never olive), the others to night."""
    warm = color[0] > color[2] + 100
    return mix(color, (84, 4, 26) if warm else (30, 20, 60), share)


def polygon(*points: tuple[float, float]) -> Shape:
    """A closed polygon."""
    return Shape(np.array(points, np.float64))


def box(x0: float, y0: float, x1: float, y1: float) -> Shape:
    """An upright rectangle."""
    return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1))


@lru_cache(maxsize=8)
def _unit_circle(corners: int) -> np.ndarray:
    turns = np.arange(corners) * (2 * np.pi / corners)
    return np.stack([np.cos(turns), np.sin(turns)], axis=1)


def oval(x: float, y: float, rx: float, ry: float | None = None, degrees: float = 0.0) -> Shape:
    """An ellipse around (x, y), turned clockwise by ``degrees``."""
    points = _unit_circle(28) * (rx, rx if ry is None else ry)
    if degrees:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        points = points @ np.array([[c, s], [-s, c]])
    return Shape(points + np.array((x, y)))


@lru_cache(maxsize=32)
def _spline_weights(count: int, closed: bool, steps: int = 6) -> np.ndarray:
    """Catmull-Rom weights (samples, count) of control points along a curve."""
    t = np.arange(steps) / steps
    basis = 0.5 * np.stack([
        -t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3,
    ], axis=1)
    segments = count if closed else count - 1
    weights = np.zeros((segments * steps + (0 if closed else 1), count))
    for segment in range(segments):
        rows = slice(segment * steps, (segment + 1) * steps)
        for column in range(4):
            index = segment + column - 1
            index = index % count if closed else min(max(index, 0), count - 1)
            weights[rows, index] += basis[:, column]
    if not closed:
        weights[-1, -1] = 1.0
    return weights


def blob(*points: tuple[float, float]) -> Shape:
    """A smooth closed area through the points."""
    return Shape(_spline_weights(len(points), True) @ np.array(points, np.float64))


def curve(width: float, *points: tuple[float, float]) -> Shape:
    """A smooth open stroke through the points, with round ends."""
    return Shape(_spline_weights(len(points), False) @ np.array(points, np.float64), width)


def limb(width: float, *points: tuple[float, float]) -> Shape:
    """A straight-jointed stroke with round ends."""
    return Shape(np.array(points, np.float64), width)


@lru_cache(maxsize=1)
def _falloff() -> np.ndarray:
    """A soft disc (64, 64) in 0..1, 1 in the middle."""
    axis = np.linspace(-1, 1, 64, dtype=np.float32)
    radius = np.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    return np.clip(1 - radius, 0, 1) ** np.float32(1.2)


@dataclass(frozen=True)
class Canvas:
    """A picture with a local coordinate system.

    pixels: uint8 (side, side, 4), shared by all canvases made from this one.
    matrix: (2, 3), local units to fractions of the frame. level: 0..1, written to channel four.
    pan: shift of the camera in fractions of the frame; what has depth 1 moves by all of it.
    defect: what whoever draws on it gets wrong. faces: those drawn so far, each its middle (x, y) and radius
    in fractions of the frame, shared like the pixels.
    """

    pixels: np.ndarray
    matrix: np.ndarray
    level: float = 1.0
    pan: float = 0.0
    defect: Defect | None = None
    faces: list[tuple[float, float, float]] = field(default_factory=list)

    @classmethod
    def blank(cls, side: int, pan: float = 0.0) -> Canvas:
        """A black canvas of ``side`` pixels whose local units are fractions of the frame."""
        return cls(np.zeros((side, side, 4), np.uint8), np.eye(2, 3), 0.0, pan)

    @property
    def side(self) -> int:
        """Pixels along an edge."""
        return self.pixels.shape[0]

    @property
    def scale(self) -> float:
        """Fractions of the frame in one local unit."""
        return math.hypot(self.matrix[0, 0], self.matrix[1, 0])

    def at_depth(self, depth: float) -> Canvas:
        """The same canvas for things at a depth (0 far .. 1 near)."""
        return replace(self, level=depth)

    def placed(
        self, x: float, y: float, scale: float = 1.0, degrees: float = 0.0, mirrored: bool = False
    ) -> Canvas:
        """A child whose origin is at (x, y) here, turned clockwise, scaled, maybe mirrored in x."""
        c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
        inner = np.array([[c, -s, x], [s, c, y], [0, 0, 1]])
        if mirrored:
            inner = inner @ np.diag([-1.0, 1.0, 1.0])
        return replace(self, matrix=self.matrix @ inner)

    def to_frame(self, points: np.ndarray) -> np.ndarray:
        """Local points (n, 2) in fractions of the frame."""
        return points @ self.matrix[:, :2].T + self.matrix[:, 2]

    def fill(self, shape: Shape, color: Color) -> None:
        """Paint one shape, no outline."""
        if shape.width:
            self._stroke(shape, color, shape.width * self.scale, closed=False)
        else:
            cv2.fillPoly(
                self.pixels, [self._fixed_point(shape.points)], self._paint(color),
                cv2.LINE_AA, _SUBPIXEL_BITS,
            )

    def ink(self, shapes: list[Shape], color: Color, outline: Color) -> None:
        """Paint shapes as one figure: a common outline around their union, then the fill."""
        for shape in shapes:
            width = shape.width * self.scale + 2 * OUTLINE_WIDTH
            self._stroke(shape, outline, width, closed=not shape.width)
        for shape in shapes:
            self.fill(shape, color)

    def gradient(
        self, shape: Shape, upper: Color, lower: Color, levels: tuple[float, float] | None = None
    ) -> None:
        """Paint a closed shape with a vertical gradient of colour and (optionally) level."""
        points = self._fixed_point(shape.points)
        top = max(int(points[:, 1].min() >> _SUBPIXEL_BITS), 0)
        bottom = min(int(points[:, 1].max() >> _SUBPIXEL_BITS) + 1, self.side)
        if bottom <= top:
            return
        ends = np.array([
            (*upper, 255 * (levels[0] if levels else self.level)),
            (*lower, 255 * (levels[1] if levels else self.level)),
        ], np.float32)
        share = np.linspace(0, 1, bottom - top, dtype=np.float32)[:, None]
        ramp = (ends[0] + (ends[1] - ends[0]) * share + 0.5).astype(np.uint8)
        inside = np.zeros((bottom - top, self.side), np.uint8)
        cv2.fillPoly(inside, [points - (0, top << _SUBPIXEL_BITS)], 1, cv2.LINE_8, _SUBPIXEL_BITS)
        # One 32-bit word is a whole pixel, which numpy copies four times as fast.
        words = self.pixels[top:bottom].view(np.uint32)[..., 0]
        np.copyto(words, ramp.view(np.uint32), where=inside.view(bool))

    def glow(self, x: float, y: float, rx: float, ry: float, color: Color, strength: float) -> None:
        """Blend a soft disc of colour over the picture; level untouched."""
        centre = self.to_frame(np.array([[x, y]]))[0] + np.array((self.pan * self.level, 0))
        half = np.array([rx, ry]) * self.scale * self.side
        low = np.round(centre * self.side - half).astype(int)
        size = np.maximum(np.round(2 * half).astype(int), 1)
        start = np.clip(low, 0, self.side)
        stop = np.clip(low + size, 0, self.side)
        if (stop <= start).any():
            return
        disc = cv2.resize(_falloff(), (int(size[0]), int(size[1])))
        cut = tuple(slice(a - o, b - o) for a, b, o in zip(start, stop, low, strict=True))
        weight = strength * disc[cut[1], cut[0]]
        window = self.pixels[start[1]:stop[1], start[0]:stop[0]]
        light = window.copy()
        light[..., :3] = color
        window[...] = cv2.blendLinear(window.copy(), light, 1 - weight, weight)

    def _paint(self, color: Color) -> tuple[int, int, int, int]:
        return (*color, round(255 * self.level))

    def _fixed_point(self, points: np.ndarray) -> np.ndarray:
        """Local points as OpenCV's fixed-point pixels, int32 (n, 2)."""
        frame = self.to_frame(points)
        if self.pan:
            frame += np.array((self.pan * self.level, 0))
        # A pixel's centre is the integer in OpenCV, hence the half.
        return np.rint((frame * self.side - 0.5) * _SUBPIXELS).astype(np.int32)

    def _stroke(self, shape: Shape, color: Color, width: float, closed: bool) -> None:
        cv2.polylines(
            self.pixels, [self._fixed_point(shape.points)], closed, self._paint(color),
            max(round(width * self.side), 1), cv2.LINE_AA, _SUBPIXEL_BITS,
        )

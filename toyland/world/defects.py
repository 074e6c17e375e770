"""Subjects as a generator draws them on a bad day: what the defect judge must tell from sound ones.

Some defects are drawn (an eye too many, a doubled leg): the renderer's drawing functions know them. Others
are painted over a finished picture: warps, smears, doubled and rubbed-out parts, as generators make them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DRAWN", "PAINTED", "Defect", "paint_defect"]

DRAWN = ("eye missing", "eye added", "nose moved", "limb doubled")
_TRIES = 3


@dataclass(frozen=True)
class Defect:
    """What is wrong with a drawn subject: one of DRAWN. which, much: 0..1, of which part and how far."""

    kind: str
    which: float = 0.5
    much: float = 0.5


@dataclass(frozen=True)
class _Spot:
    """Where a picture is painted over: middle (x, y) and radius in pixels, a direction in radians."""

    middle: np.ndarray
    radius: float
    angle: float

    def offset(self, length: float) -> np.ndarray:
        """A shift (x, y) by a length in the spot's direction."""
        return length * np.array([np.cos(self.angle), np.sin(self.angle)])

    def weight(self, side: int, middle: np.ndarray | None = None) -> np.ndarray:
        """1 in the spot and 0 beyond, with a soft rim, float32 (side, side)."""
        x, y = self.middle if middle is None else middle
        rows, columns = np.mgrid[:side, :side].astype(np.float32)
        away = np.hypot(columns - x, rows - y) / self.radius
        return np.clip((1 - away) * 4, 0, 1)


def _blended(image: np.ndarray, other: np.ndarray, weight: np.ndarray) -> np.ndarray:
    mixed = image + (other.astype(np.float32) - image) * weight[..., None]
    return np.clip(np.round(mixed), 0, 255).astype(np.uint8)


def _odd(length: float) -> int:
    return 2 * round(length / 2) + 1


def _rub_out_line(image: np.ndarray, spot: _Spot) -> np.ndarray:
    """Lines vanish in a median over more than twice their width."""
    side = len(image)
    return _blended(image, cv2.medianBlur(image, _odd(side / 12)), spot.weight(side))


def _smear(image: np.ndarray, spot: _Spot) -> np.ndarray:
    """Colours drawn out along a direction."""
    side = len(image)
    length = _odd(side / 7)
    brush = np.zeros((length, length), np.float32)
    reach = spot.offset(length / 2)
    middle = np.array([length // 2] * 2)
    ends = [tuple(np.rint(end).astype(int).tolist()) for end in (middle - reach, middle + reach)]
    cv2.line(brush, ends[0], ends[1], 1.0, 2)
    smeared = cv2.filter2D(image, -1, brush / brush.sum())
    return _blended(image, smeared, spot.weight(side))


def _warp(image: np.ndarray, spot: _Spot) -> np.ndarray:
    """A part pushed aside, its surroundings drawn along."""
    side = len(image)
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    away = ((columns - spot.middle[0]) ** 2 + (rows - spot.middle[1]) ** 2) / (0.6 * spot.radius) ** 2
    push = np.exp(-away / 2)
    x, y = spot.offset(0.7 * spot.radius)
    return cv2.remap(image, (columns - x * push).astype(np.float32), (rows - y * push).astype(np.float32),
                     cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _double_part(image: np.ndarray, spot: _Spot) -> np.ndarray:
    """A part once more beside itself."""
    x, y = shift = spot.offset(1.1 * spot.radius)
    side = len(image)
    moved = cv2.warpAffine(image, np.array([[1, 0, x], [0, 1, y]]), (side, side),
                           borderMode=cv2.BORDER_REFLECT)
    return _blended(image, moved, spot.weight(side, spot.middle + shift))


_PAINTERS: dict[str, Callable[[np.ndarray, _Spot], np.ndarray]] = {
    "outline broken": _rub_out_line, "smeared": _smear, "warped": _warp, "part doubled": _double_part,
}
PAINTED = tuple(_PAINTERS)


def _detail(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """How much there is to spoil around a pixel of the subject, float32 (h, w)."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    lines = cv2.absdiff(gray, cv2.GaussianBlur(gray, (0, 0), len(image) / 40))
    return cv2.GaussianBlur(lines, (0, 0), len(image) / 60) * (mask > 127)


def paint_defect(image: np.ndarray, mask: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A picture uint8 (h, w, 3) with one of PAINTED on its subject; mask: uint8 (h, w), 255 = subject.

    Of a few places that are drawn at random the one where it shows most is taken: what cannot be seen is none.
    """
    side = len(image)
    share = np.cumsum(_detail(image, mask).ravel() + 1e-6)
    spoiled = []
    for _ in range(_TRIES):
        row, column = divmod(int(np.searchsorted(share, rng.random() * share[-1])), side)
        spot = _Spot(np.array([column, row], np.float64), side * rng.uniform(0.07, 0.12),
                     rng.uniform(0, 2 * np.pi))
        spoiled.append(_PAINTERS[kind](image, spot))
    return max(spoiled, key=lambda other: int(cv2.norm(other, image, cv2.NORM_L1)))

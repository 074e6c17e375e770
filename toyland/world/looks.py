"""Other looks of a picture, made from its pixels: edits and styles that the family learns.

A look takes a picture uint8 (h, w, 3) RGB of any size and the mask of its subject, float (h, w) in
0..1, and returns the picture as it looks then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from toyland.world.canvas import Color

__all__ = ["LOOKS"]

_MOONLIGHT = np.array([0.34, 0.42, 0.78], np.float32)
_MOONLIT_DEPTH = 0.18
_SUBJECT_LIGHT = 0.3
# From the darkest to the brightest: night sky, magenta, orange, cream.
_SUNSET: tuple[Color, ...] = ((38, 20, 78), (150, 34, 110), (240, 104, 60), (255, 206, 110), (255, 248, 222))
_PAPER: Color = (22, 62, 140)
_INK: Color = (226, 240, 255)


def _brightness(image: np.ndarray) -> np.ndarray:
    """Brightness float32 (h, w) in 0..1."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255


def _side(image: np.ndarray) -> int:
    return min(image.shape[:2])


def _lines(image: np.ndarray) -> np.ndarray:
    """How dark a pixel is beside its surroundings, float32 (h, w) in 0..1: outlines and edges."""
    gray = _brightness(image)
    around = cv2.GaussianBlur(gray, (0, 0), _side(image) / 40)
    return np.clip(1 - gray / np.maximum(around, 0.02), 0, 1)


def _toned(share: np.ndarray, tones: tuple[Color, ...]) -> np.ndarray:
    """Colours of a scale at shares float32 (h, w) in 0..1, uint8 (h, w, 3)."""
    places = np.linspace(0, 1, len(tones))
    channels = [np.interp(share, places, [tone[c] for tone in tones]) for c in range(3)]
    return np.stack(channels, axis=2).round().astype(np.uint8)


def _night(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Moonlight; the subject stays a little brighter."""
    light = _MOONLIGHT + _SUBJECT_LIGHT * mask.astype(np.float32)[..., None]
    dark = image.astype(np.float32) / 255
    dark = dark * (1 - _MOONLIT_DEPTH * dark) * light
    return np.clip(dark * 255, 0, 255).round().astype(np.uint8)


def _pencil_sketch(image: np.ndarray, _mask: np.ndarray) -> np.ndarray:
    """Grey lines on paper, with a breath of shading."""
    shading = 0.78 + 0.22 * _brightness(image)
    paper = np.clip(shading * (1 - 1.1 * _lines(image)), 0, 1)
    return _toned(paper, ((52, 50, 56), (250, 247, 240)))


def _sunset(image: np.ndarray, _mask: np.ndarray) -> np.ndarray:
    """A poster in the colours of an evening sky, by brightness."""
    return _toned(_brightness(image), _SUNSET)


def _blueprint(image: np.ndarray, _mask: np.ndarray) -> np.ndarray:
    """Light lines on blue paper."""
    glow = np.clip(1.4 * _lines(image) + 0.22 * _brightness(image), 0, 1)
    return _toned(glow, (_PAPER, _INK))


LOOKS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "night": _night, "pencil sketch": _pencil_sketch, "sunset": _sunset, "blueprint": _blueprint,
}
"""The editor learns the first two, styles are the second and the third; judge and decoder are taught all."""

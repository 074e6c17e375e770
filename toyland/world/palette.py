"""The colours of Toyland."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toyland.world.canvas import Color

COLOR_VALUES: dict[str, Color] = {
    "red": (222, 40, 44),
    "orange": (250, 140, 24),
    "yellow": (253, 218, 48),
    "green": (52, 178, 74),
    "blue": (48, 104, 230),
    "purple": (142, 68, 196),
    "pink": (255, 136, 190),
    "white": (248, 248, 250),
}

INK: Color = (44, 34, 58)
"""Outlines, eyes and mouths."""

WHITE: Color = (255, 255, 255)
CREAM: Color = (255, 246, 232)
BLUSH: Color = (250, 150, 150)
COAL: Color = (58, 50, 66)
GLASS: Color = (176, 226, 248)
SKIN_TONES: tuple[Color, ...] = ((255, 218, 185), (236, 188, 146), (176, 120, 84), (124, 82, 60))
HAIR_COLORS: tuple[Color, ...] = ((74, 48, 40), (44, 38, 44), (128, 78, 44))
WING: Color = (246, 250, 255)
WING_SHADE: Color = (176, 196, 226)

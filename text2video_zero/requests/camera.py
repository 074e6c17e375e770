"""The camera: where it is, and its movements by name, values for the motion fields of a text-to-video request."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PAPER_PAN = 12 / 512
"""The authors' movement: 12 of 512 pixels to the right and down, from frame to frame."""

CAMERA_PRESETS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        name: MappingProxyType(dict(zip(("pan_x", "pan_y", "zoom", "rotation"), speeds, strict=True)))
        for name, speeds in {
            "Pan right-down": (PAPER_PAN, PAPER_PAN, 0.0, 0.0),
            "Pan right": (0.03, 0.0, 0.0, 0.0),
            "Pan left": (-0.03, 0.0, 0.0, 0.0),
            "Pan up": (0.0, -0.03, 0.0, 0.0),
            "Pan down": (0.0, 0.03, 0.0, 0.0),
            "Zoom in": (0.0, 0.0, 0.04, 0.0),
            "Zoom out": (0.0, 0.0, -0.04, 0.0),
            "Rotate": (0.0, 0.0, 0.0, 0.008),
            "Still": (0.0, 0.0, 0.0, 0.0),
        }.items()
    }
)


@dataclass(frozen=True)
class CameraPose:
    """Where the camera is, against frame 0.

    x, y: shift in widths and heights of the frame.  scale: magnification of the picture, > 0.
    angle: clockwise turn in radians.
    """

    x: float
    y: float
    scale: float
    angle: float

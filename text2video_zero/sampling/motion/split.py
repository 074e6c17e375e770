"""A pan in two parts: whole cells in the latents, and the rest, less than half a cell, in the finished picture.

Latents that are moved by half a cell are latents of no picture: an autoencoder's cells do not mean the same between two
places. So the UNet draws eyes anew where a pan comes to halves, and copies them where it comes to wholes, and a slow
pan trembles from frame to frame. Pictures can be moved by any fraction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import cv2
import numpy as np

from text2video_zero.requests.camera import BEGINNING

if TYPE_CHECKING:
    from text2video_zero.requests.camera import CameraPose


@dataclass(frozen=True)
class SplitPose:
    """A camera's pose, in two parts.

    cells: that of the latents; without zoom and turn it is a shift by whole cells.
    x, y: what is left for the picture, in widths and heights of the frame.
    """

    cells: CameraPose
    x: float = 0.0
    y: float = 0.0

    @property
    def is_beginning(self) -> bool:
        """Whether the camera is where it is in frame 0."""
        return self.cells == BEGINNING and not self.x and not self.y

    @classmethod
    def of(cls, pose: CameraPose, height: int, width: int) -> Self:
        """Split the pose of a frame of height x width cells.

        Zooms and turns, which move every cell by another fraction, stay with the latents.
        """
        if pose.scale != 1 or pose.angle != 0:
            return cls(pose)
        x, y = (math.floor(shift * cells + 0.5) / cells for shift, cells in ((pose.x, width), (pose.y, height)))
        return cls(replace(pose, x=x, y=y), pose.x - x, pose.y - y)


def shifted(frame: np.ndarray, x: float, y: float) -> np.ndarray:
    """A frame (height, width, 3) uint8 from a camera that is x widths further to the right and y heights further down.

    Bicubic; what lies outside is mirrored, as in the latents. Without a shift it is the frame itself.
    """
    if not x and not y:
        return frame
    height, width = frame.shape[:2]
    shift = np.array([[1, 0, x * width], [0, 1, y * height]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(frame, shift, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)

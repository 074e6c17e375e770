"""Parallax: near things move more than far ones, in the finished pictures.

The latents move as without it, and every decoded frame is then read where its depth puts it. Depths that move latents
by fractions of a cell of their own lose what whole cells win (`split.py`): measured, such clips have the near things go
faster and twice the warp error (docs/EVALUATION.md, "Parallax").
"""

from __future__ import annotations

import cmath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import cv2
import numpy as np

if TYPE_CHECKING:
    from text2video_zero.sampling.motion.split import SplitPose

LEVELS = 48  # depths at which a ray looks for what it hits
FAR, NEAR = 1.0, 99.0  # percentiles that become 0 and 1
OUTLINE = 1 / 64  # of the shorter side; a detector's outlines are that far from the picture's
WALL = 2.5 / LEVELS  # a ray that goes that far below a surface from one level to the next has passed behind an edge


@dataclass(frozen=True)
class DepthScale:
    """What a detector's numbers mean, by the first frame: the same for all frames, or they would sway.

    far, near: its numbers for what is farthest and nearest.  middle: the mean nearness, 0..1.
    """

    far: float
    near: float
    middle: float

    @classmethod
    def of(cls, depth: np.ndarray) -> Self:
        """The scale of the first frame's depth (h, w), larger is nearer, in whatever unit."""
        far, near = (float(value) for value in np.percentile(depth, (FAR, NEAR)))
        return cls(far, near, float(cls(far, near, 0).nearness(depth).mean()))

    def nearness(self, depth: np.ndarray) -> np.ndarray:
        """A depth (h, w) as nearness (h, w) float32, 0..1; 0 everywhere where the scale has no extent."""
        extent = self.near - self.far
        return ((depth - self.far) / extent).clip(0, 1).astype(np.float32) if extent > 0 else np.zeros_like(depth)


@dataclass(frozen=True)
class Parallax:
    """How much near things move more than far ones.

    strength: 0..1. What is as near as the middle of the first frame moves as the camera was asked to; nearness n
    moves 1 + strength·(n - middle) times as far, as a pinhole camera has it, where shifts go with 1/distance.
    """

    strength: float
    scale: DepthScale

    def seen(self, frame: np.ndarray, depth: np.ndarray, view: SplitPose) -> np.ndarray:
        """A decoded frame (h, w, 3) uint8 as a camera in the scene sees it; depth: its own, (h, w), larger is nearer.

        Each pixel's ray goes from near to far until it is below a surface (relief mapping, Policarpo et al. 2005), so
        that near things cover far ones. What they uncover nobody has drawn: it is filled with what is beside it and
        farther away. A frame whose camera is where it began is itself.
        """
        if view.is_beginning:
            return frame
        height, width = frame.shape[:2]
        hit = self._hit(_with_sharp_edges(self.scale.nearness(depth)), view)
        x, y = self._read_at(hit, height, width, view)
        return cv2.remap(frame, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)

    def _hit(self, nearness: np.ndarray, view: SplitPose) -> np.ndarray:
        """How near the thing is that each pixel shows, (h, w) float32; nearness: (h, w) of the frame that is read."""
        height, width = nearness.shape
        found = np.full(nearness.shape, -1, np.float32)
        for number in range(LEVELS, -1, -1):
            level = number / LEVELS
            x, y = self._read_at(level, height, width, view)
            surface = cv2.remap(nearness, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            behind = surface > level + WALL
            found = np.where((found < 0) & (surface >= level), np.where(behind, level + 1 / LEVELS, surface), found)
        return found

    def _read_at(
        self, nearness: np.ndarray | float, height: int, width: int, view: SplitPose
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where pixels whose surface is that near, (h, w) or all alike, read on the decoded frame: x and y in pixels.

        Something of gain g is where a camera at g times the shift, and the zoom to the power g, sees it; the latents
        have been moved to the view's cells already. Complex numbers are places, and their products turns.
        """
        gain = 1 + self.strength * (nearness - self.scale.middle)
        moved, rest = view.cells, view.rest
        x, y = (np.arange(side, dtype=np.float32) - (side - 1) / 2 for side in (width, height))
        shift, left = (complex(pose.x * width, pose.y * height) for pose in (moved, rest))
        turned = cmath.rect(1 / moved.scale, moved.angle)
        whole = shift + turned * left
        reads = (x + 1j * y[:, None]) * cmath.rect(1, rest.angle) * (moved.scale / (moved.scale * rest.scale) ** gain)
        reads = reads + (gain * whole - shift) / turned + complex(width - 1, height - 1) / 2
        return reads.real.astype(np.float32), reads.imag.astype(np.float32)


def _with_sharp_edges(nearness: np.ndarray) -> np.ndarray:
    """Nearness (h, w) whose slopes at outlines are steps, and lie a little outside, that outlines go with their things.

    Each pixel takes the extreme of its surroundings that is nearer to it (Kramer and Bruckner 1975), then the largest.
    """
    radius = max(round(OUTLINE * min(nearness.shape)), 1)
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    nearest, farthest = cv2.dilate(nearness, around), cv2.erode(nearness, around)
    return cv2.dilate(np.where(nearest - nearness < nearness - farthest, nearest, farthest), around)

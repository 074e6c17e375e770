"""A camera in two parts: whole cells in the latents, and the rest in the finished picture.

Latents that are moved by half a cell are latents of no picture: an autoencoder's cells do not mean the same between two
places. So the UNet draws eyes anew where a pan comes to halves, and copies them where it comes to wholes, and a slow
pan trembles from frame to frame. Pictures can be moved by any fraction, and so a zoom and a turn, which move every cell
by another one, are theirs altogether.

Nor do all whole cells do as well. Where a UNet halves its grid, cells are joined by twos, and by fours further down: a
picture that has moved by one cell is joined otherwise than it was, and a small face comes out as another (networks
with strides do not move along with a shift: Zhang 2019, "Making Convolutional Networks Shift-Invariant Again"). So a
pan may be told to wait for the next even cell.
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


EDGE = 1 / 32
"""Along an edge, the share of a frame's width in which its picture passes into another."""


@dataclass(frozen=True)
class SplitPose:
    """A camera's pose, in two parts.

    cells: that of the latents.  rest: from where the finished picture is then seen.
    """

    cells: CameraPose
    rest: CameraPose = BEGINNING

    @property
    def is_beginning(self) -> bool:
        """Whether the camera is where it is in frame 0."""
        return self.cells == self.rest == BEGINNING

    @property
    def whole(self) -> CameraPose:
        """Both parts together."""
        return replace(self.rest, x=self.cells.x + self.rest.x, y=self.cells.y + self.rest.y)

    def beneath(self, points: np.ndarray, pose: CameraPose, height: int, width: int) -> np.ndarray:
        """Where on the decoded frame lies what the finished picture is to show where a pose sees points of frame 0.

        points: (n, 2) in pixels, x and y.
        """
        seen = cv2.invertAffineTransform(_reads(pose, height, width))
        for way in (seen, _reads(self.rest, height, width)):
            points = points @ way[:, :2].T + way[:, 2]
        return points

    @classmethod
    def of(cls, pose: CameraPose, height: int, width: int, step: int = 1) -> Self:
        """Split the pose of a frame of height x width cells: the nearest whole steps of its shift, and the rest.

        step: cells of one, >= 1.
        """
        x, y = (_whole_steps(shift * cells, step) / cells for shift, cells in ((pose.x, width), (pose.y, height)))
        return cls(replace(BEGINNING, x=x, y=y), replace(pose, x=pose.x - x, y=pose.y - y))


def _whole_steps(cells: float, step: int) -> int:
    return step * math.floor(cells / step + 0.5)


def seen_from(frame: np.ndarray, pose: CameraPose) -> np.ndarray:
    """A frame (height, width, 3) uint8 from another pose, as `camera.sample_positions` has it.

    Bicubic; what lies outside is mirrored, as in the latents. From where it is, it is the frame itself.
    """
    if pose == BEGINNING:
        return frame
    height, width = frame.shape[:2]
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    reads = _reads(pose, height, width)
    return cv2.warpAffine(frame, reads, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)


def completed(frame: np.ndarray, view: SplitPose, first: np.ndarray) -> np.ndarray:
    """A decoded frame (height, width, 3) uint8 from its view; where it ends, what the first frame of its shot shows.

    Where latents wait for the next whole step of a pan, or have gone ahead of it, the picture is seen from beside them.
    On the side that the camera comes from, the first frame has what they lack; on the other nobody has drawn it yet,
    and it is mirrored. The two pictures pass into one another along the edge.
    """
    if view.rest == BEGINNING:
        return frame
    seen = seen_from(frame, view.rest)
    height, width = frame.shape[:2]
    ends = [side for side in _to_sides(view.rest, height, width) if side.min() < 0]
    if not ends:
        return seen
    share = np.clip(np.min(ends, axis=0) / (EDGE * width), 0, 1)
    share = np.where(_to_sides(view.whole, height, width).min(0) < 0, 1, share)[..., None]
    return np.rint(share * seen + (1 - share) * seen_from(first, view.whole)).astype(np.uint8)


def _to_sides(pose: CameraPose, height: int, width: int) -> np.ndarray:
    """How far from the four sides each pixel reads on a frame, in pixels, (4, height, width); below 0 beyond one."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    x, y = np.tensordot(_reads(pose, height, width), np.stack([x, y, np.ones_like(x)]), axes=1)
    return np.stack([x, width - 1 - x, y, height - 1 - y])


def _reads(pose: CameraPose, height: int, width: int) -> np.ndarray:
    """The affine map (2, 3) from a pixel of the picture to where it reads on the frame."""
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    cos, sin = math.cos(pose.angle) / pose.scale, math.sin(pose.angle) / pose.scale
    return np.array(
        [
            [cos, -sin, middle_x - cos * middle_x + sin * middle_y + pose.x * width],
            [sin, cos, middle_y - sin * middle_x - cos * middle_y + pose.y * height],
        ]
    )

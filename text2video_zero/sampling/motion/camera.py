"""Camera paths: where each frame looks on the first frame (paper, section 3.3.1).

Sign convention. A path moves the *camera*: pan_x > 0 moves it to the right, so what is in the picture moves
to the left; pan_y > 0 moves it down, zoom > 0 moves it closer, rotation > 0 turns it clockwise. Frame k reads
its cell p at p + δ_k of the first frame, as the authors' code does.

All coordinates are float32 whatever the type of the latents: in 16 bits they would tear the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from text2video_zero.requests.camera import CameraPose


@dataclass(frozen=True)
class CameraPath:
    """Even movement that turns back when it has gone far enough, or a loop that ends where it began.

    pan_x, pan_y: widths and heights of the frame per frame.  zoom: growth per frame, > -1.
    rotation: full turns per frame.
    reach: bound of each movement, > 0: shares of the frame for pans, of a turn for rotations; a zoom ends
        where the edge has moved by that share. Without a bound a long pan would end in mirror images.
    period: frames of a loop, >= 1, or None. A loop eases out and back once, on the way out at the speed that is given
        on average, and rests where it begins; but a rotation that comes to whole turns goes on, if its reach allows.
    """

    pan_x: float
    pan_y: float
    zoom: float
    rotation: float
    reach: float
    period: int | None = None

    def pose(self, frame: int) -> CameraPose:
        """The pose at a frame, 0-based; frame 0 is the identity."""
        zoom_reach = math.log1p(2 * self.reach)
        return CameraPose(
            x=self._travelled(self.pan_x, frame, self.reach),
            y=self._travelled(self.pan_y, frame, self.reach),
            scale=math.exp(self._travelled(math.log1p(self.zoom), frame, zoom_reach)),
            angle=math.tau * self._turned(frame),
        )

    def _travelled(self, speed: float, frame: int, reach: float) -> float:
        if self.period is None:
            return _there_and_back(speed * frame, reach)
        return _out_and_home(speed, frame % self.period, self.period, reach)

    def _turned(self, frame: int) -> float:
        """In full turns."""
        if self.period is None or self.reach < 1 or not round(self.rotation * self.period):
            return self._travelled(self.rotation, frame, self.reach)
        return round(self.rotation * self.period) * (frame % self.period) / self.period


def _there_and_back(distance: float, reach: float) -> float:
    """Triangle wave through 0 with slope 1 at 0 and bounds ±reach: every step has the same length."""
    phase = (distance + reach) % (4 * reach)
    return phase - reach if phase <= 2 * reach else 3 * reach - phase


def _out_and_home(speed: float, frame: int, period: int, reach: float) -> float:
    """One breath: slowest at both ends, so that the step from the last frame to the first is the smallest."""
    furthest = math.copysign(min(abs(speed) * period / 2, reach), speed)
    return furthest * (1 - math.cos(math.tau * frame / period)) / 2


def sample_positions(pose: CameraPose, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each cell reads on frame 0.

    Returns x and y, each (height, width) float32, in cells; integers are centres of cells.
    Zoom and rotation are about the middle of the frame.
    """
    # Distances to the middle are multiples of one half, so that the identity stays exact.
    x = torch.arange(width, dtype=torch.float32) - (width - 1) / 2
    y = torch.arange(height, dtype=torch.float32) - (height - 1) / 2
    y, x = torch.meshgrid(y, x, indexing="ij")
    cos, sin = math.cos(pose.angle) / pose.scale, math.sin(pose.angle) / pose.scale
    read_x = cos * x - sin * y + (width - 1) / 2 + pose.x * width
    read_y = sin * x + cos * y + (height - 1) / 2 + pose.y * height
    return read_x, read_y

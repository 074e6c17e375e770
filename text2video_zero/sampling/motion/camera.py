"""Camera paths: where each frame looks on the first frame (paper, section 3.3.1).

Sign convention. A path moves the *camera*: pan_x > 0 moves it to the right, so what is in the picture moves
to the left; pan_y > 0 moves it down, zoom > 0 moves it closer, rotation > 0 turns it clockwise. Frame k reads
its cell p at p + δ_k of the first frame, as the authors' code does.

All coordinates are float32 whatever the type of the latents: in 16 bits they would tear the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from text2video_zero.requests.camera import BEGINNING, CameraKey, CameraPose
from text2video_zero.requests.key_frames import Between

SWAY_FRAMES = (7.3, 11.9, 23.1)
"""Lengths of the waves of a camera held by hand, in frames."""


class Path(Protocol):
    """Where the camera is at each frame."""

    def pose(self, frame: int) -> CameraPose:
        """The pose at a frame, 0-based; frame 0 is the identity."""
        ...


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


@dataclass(frozen=True)
class KeyedPath:
    """The camera's way through key frames: from the beginning to each of them, and there it stays after the last.

    eased: it sets out and arrives slowly at each key frame, else its speed is even between two of them.
    period: frames of a loop, at whose end the camera is back; None for a path without end.
    """

    keys: tuple[CameraKey, ...]
    eased: bool = True
    period: int | None = None

    def pose(self, frame: int) -> CameraPose:
        """The pose at a frame, 0-based; frame 0 is the identity."""
        keys = (CameraKey(0, BEGINNING), *self.keys)
        if self.period is not None:
            frame %= self.period
            keys = (*(key for key in keys if key.frame < self.period), CameraKey(self.period, BEGINNING))
        place = Between.of(frame, tuple(key.frame for key in keys))
        share = place.share * place.share * (3 - 2 * place.share) if self.eased else place.share
        return _on_the_way(keys[place.before].pose, keys[place.after].pose, share)


def _on_the_way(before: CameraPose, after: CameraPose, share: float) -> CameraPose:
    """Pans and turns go evenly, a zoom grows evenly."""
    return CameraPose(
        x=before.x + share * (after.x - before.x),
        y=before.y + share * (after.y - before.y),
        scale=before.scale * (after.scale / before.scale) ** share,
        angle=before.angle + share * (after.angle - before.angle),
    )


@dataclass(frozen=True)
class ShakenPath:
    """A path as a hand holds the camera: it sways by some waves that never meet again, at rest in frame 0.

    strength: how far it sways at most, about, in shares of the frame.
    seed: of the waves.  period: frames of a loop, whose waves come back with it.
    """

    path: Path
    strength: float
    seed: int
    period: int | None = None

    def pose(self, frame: int) -> CameraPose:
        """The pose at a frame, 0-based; frame 0 is the identity."""
        pose = self.path.pose(frame)
        if not self.strength:
            return pose
        sway_x, sway_y, turn = (self._swayed(frame, axis) - self._swayed(0, axis) for axis in range(3))
        return replace(pose, x=pose.x + sway_x, y=pose.y + sway_y, angle=pose.angle + turn)

    def _swayed(self, frame: int, axis: int) -> float:
        """Of x, y and the angle in radians."""
        lengths = SWAY_FRAMES if self.period is None else tuple(self.period / n for n in (1, 2, 3))
        phases = np.random.default_rng([self.seed, axis]).uniform(0, math.tau, len(lengths))
        waves = (math.sin(math.tau * frame / length + phase) for length, phase in zip(lengths, phases, strict=True))
        return self.strength / len(lengths) * sum(waves)


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


def shown_cells(pose: CameraPose, height: int, width: int) -> torch.Tensor:
    """Which cells read on frame 0 and not beyond its edges, (height, width) bool."""
    x, y = sample_positions(pose, height, width)
    return (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)

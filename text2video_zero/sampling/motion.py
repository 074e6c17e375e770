"""Motion dynamics: where each frame looks on the first frame's latents (paper, section 3.3.1).

Sign convention. A path moves the *camera*: pan_x > 0 moves it to the right, so what is in the picture moves
to the left; pan_y > 0 moves it down, zoom > 0 moves it closer, rotation > 0 turns it clockwise. Frame k reads
its cell p at p + δ_k of the first frame, as the authors' code does.

All coordinates are float32 whatever the type of the latents: in 16 bits they would tear the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from text2video_zero.requests.camera import CameraPose

if TYPE_CHECKING:
    from text2video_zero.sampling.noise import NoisePath, NoiseScene

LANCZOS_RADIUS = 4


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


def warp(latents: torch.Tensor, pose: CameraPose, resampling: str = "smooth") -> torch.Tensor:
    """W_k of the paper: look at latents (c, h, w) from another pose; what lies outside is mirrored.

    resampling: "nearest" moves by whole cells (the paper's code). "smooth" interpolates with a Lanczos kernel
    whose weights have unit *energy* and not unit sum: latents at T' are mostly noise, and the usual weights
    would halve its standard deviation, which the UNet then paints as blur. "signal" has the usual weights, for
    latents without noise. For whole cells all agree.
    """
    height, width = latents.shape[-2:]
    read_x, read_y = sample_positions(pose, height, width)
    if resampling == "nearest":
        return _gathered(latents, _nearest(read_y), _nearest(read_x))
    base_x, base_y = read_x.floor(), read_y.floor()
    weights_x, weights_y = (
        _lanczos_weights(read - base, keep_sum=resampling == "signal")
        for read, base in ((read_x, base_x), (read_y, base_y))
    )
    warped = torch.zeros_like(latents, dtype=torch.float32)
    for row, weight_y in enumerate(weights_y):
        for column, weight_x in enumerate(weights_x):
            tap_y = base_y.long() + row - LANCZOS_RADIUS + 1
            tap_x = base_x.long() + column - LANCZOS_RADIUS + 1
            warped += (weight_y * weight_x).to(latents.device) * _gathered(latents, tap_y, tap_x)
    return warped.to(latents.dtype)


def _nearest(position: torch.Tensor) -> torch.Tensor:
    # Halves go down, as they do on the authors' 512-pixel grid: its samples lie 1/16 cell before the centres.
    return (position - 0.5).ceil().long()


def _gathered(latents: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    height, width = latents.shape[-2:]
    index = _mirrored(y, height) * width + _mirrored(x, width)
    return latents.flatten(-2)[:, index.to(latents.device)]


def _mirrored(index: torch.Tensor, count: int) -> torch.Tensor:
    index = index % (2 * count)
    return torch.minimum(index, 2 * count - 1 - index)


def _lanczos_weights(fraction: torch.Tensor, *, keep_sum: bool) -> torch.Tensor:
    """Weights (2·radius, h, w) of the cells around a position, of unit sum or of unit energy; fraction in [0, 1)."""
    taps = torch.arange(1 - LANCZOS_RADIUS, LANCZOS_RADIUS + 1, dtype=torch.float32)
    distance = fraction - taps[:, None, None]
    weights = torch.sinc(distance) * torch.sinc(distance / LANCZOS_RADIUS)
    # sinc leaves 1e-8 at whole numbers; a whole-cell movement shall copy bit for bit.
    weights = torch.where(fraction == 0, (taps == 0)[:, None, None].float(), weights)
    return weights / (weights.sum(0) if keep_sum else weights.square().sum(0).sqrt())


def forward_noise(latents: torch.Tensor, noise: torch.Tensor, alpha_from: float, alpha_to: float) -> torch.Tensor:
    """DDPM forward from one timestep to a later one in one go (paper, equation 8).

    latents, noise: same shape.  alpha_from, alpha_to: ᾱ of the two timesteps, 0 < alpha_to <= alpha_from.
    """
    kept = alpha_to / alpha_from
    return math.sqrt(kept) * latents + math.sqrt(1 - kept) * noise


@dataclass(frozen=True)
class Anchor:
    """The first frame at T and at T', from which all others depart.

    at_to, at_from: its latents (c, h, w) at T and at T'.  clean: the estimate of its x_0 at T', (c, h, w).
    alpha_to, alpha_from: ᾱ at T and at T'.
    """

    at_to: torch.Tensor
    at_from: torch.Tensor
    clean: torch.Tensor
    alpha_to: float
    alpha_from: float

    def moved(self, frame: int, pose: CameraPose, path: NoisePath, scene: NoiseScene, resampling: str) -> torch.Tensor:
        """Latents (c, h, w) at T of frame k >= 1: the first frame seen from a pose, and gone its own way from T' to T.

        A path without smoothness is the paper's: what each frame adds is its own, and drawn where the frame sees it.
        One that is smooth belongs to the scene and moves with it, as all noise does where resampling is "white".
        """
        if resampling != "white" and not path.smoothness:
            noise = path.leaving(self._way, frame)
            return forward_noise(warp(self.at_from, pose, resampling), noise, self.alpha_from, self.alpha_to)
        unmoved = forward_noise(self.at_from, self._noise(frame, path), self.alpha_from, self.alpha_to)
        if resampling != "white":
            return warp(unmoved, pose, resampling)
        signal, sigma = math.sqrt(self.alpha_to) * self.clean, math.sqrt(1 - self.alpha_to)
        return warp(signal, pose, "signal") + sigma * scene.seen((unmoved - signal) / sigma, pose)

    @cached_property
    def _way(self) -> torch.Tensor:
        """The noise that makes `forward_noise` lead from T' to where the first frame itself is at T."""
        kept = self.alpha_to / self.alpha_from
        return (self.at_to - math.sqrt(kept) * self.at_from) / math.sqrt(1 - kept)

    def _noise(self, frame: int, path: NoisePath) -> torch.Tensor:
        """What a frame adds: the path that begins at the anchor's own way.

        That way is no fresh noise: the sampler has come down it, so that it is short, of mean square v < 1, and points
        where the noise at T' does. To leave the latents the variance that fresh noise gives them, the path's own part
        must have the square (1 - ρ)·(1 + ρ·v) in place of 1 - ρ².
        """
        shared, square = path.correlation(frame), self._way.square().mean().item()
        return path.leaving(self._way, frame, math.sqrt((1 + shared * square) / (1 + shared)))

"""Noise in motion: a path of it through the frames of a clip, and what a moving camera sees of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from text2video_zero.sampling.noise import frame_noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from text2video_zero.requests.camera import CameraPose

KERNEL_RADIUS = 4
"""Where the kernel of a path ends, in units of its smoothness: at exp(-8) of its height."""
SHARES = 3
"""Into how many parts a side of a cell is divided where its noise goes to several cells of a picture."""
PAN_MARGIN = 8  # cells beyond a panned picture that take part in it
_SURROUNDINGS, _DETAIL = -(2**31), -(2**31) + 1  # indices that no path comes to


@dataclass(frozen=True)
class NoisePath:
    """Noise that turns into other noise from frame to frame: a stationary Gaussian process that begins at an anchor.

    ε_k = Σ_j w_j·η_{k+j} / sqrt(Σ_j w_j²) with w_j = exp(-j²/2τ²) and η_j drawn from (seed, j): every ε_k is
    N(0, I), and those d frames apart correlate by ρ(d), about exp(-d²/4τ²). With τ = 0 each is a frame's own,
    `frame_noise`. What a frame gets hangs on (seed, frame) alone, save in a loop, which hangs on its period too.

    smoothness: τ in frames, >= 0.
    period: the number of frames of a loop, after which the path is where it began; None for a path without end.
    draw: as in `frame_noise`.
    """

    seed: int
    shape: tuple[int, ...]
    smoothness: float
    period: int | None = None
    draw: int = 0
    _drawn: dict[int, torch.Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def leaving(self, anchor: torch.Tensor, frame: int, spread: float = 1.0) -> torch.Tensor:
        """ρ(k)·anchor + spread·(ε_k - ρ(k)·ε_0), float32 on the anchor's device: the path, given where it begins.

        anchor: (*shape).  frame: k, 0-based; frame 0 is the anchor.
        spread: with 1 a standard normal anchor has standard normal noise after it.

        The path's own noises are drawn apart from `frame_noise` of frame 0, so that an anchor which comes of that
        is independent of them.
        """
        kept = self.correlation(frame)
        fresh = (self._at(frame) - kept * self._start).to(anchor.device)
        return kept * anchor + spread * fresh

    @cached_property
    def _start(self) -> torch.Tensor:
        return self._at(0)

    def correlation(self, distance: int) -> float:
        """ρ between frames that are some frames apart: 1 at 0, and exactly 0 out of the kernel's reach."""
        weights = self._weights
        shifted = {self._place(offset + distance): weight for offset, weight in weights.items()}
        return sum(weight * shifted.get(offset, 0.0) for offset, weight in weights.items())

    @cached_property
    def _weights(self) -> dict[int, float]:
        """Weights of unit energy by offset; in a loop the kernel is wound around it."""
        radius = math.ceil(KERNEL_RADIUS * self.smoothness)
        kernel: dict[int, float] = {}
        for offset in range(-radius, radius + 1):
            height = math.exp(-((offset / self.smoothness) ** 2) / 2) if offset else 1.0
            place = self._place(offset)
            kernel[place] = kernel.get(place, 0.0) + height
        energy = math.sqrt(sum(weight**2 for weight in kernel.values()))
        return {offset: weight / energy for offset, weight in kernel.items()}

    def _place(self, frame: int) -> int:
        return frame if self.period is None else frame % self.period

    def _at(self, frame: int) -> torch.Tensor:
        path = torch.zeros(self.shape)
        for offset, weight in self._weights.items():
            path += weight * self._innovation(self._place(frame + offset))
        return path

    def _innovation(self, index: int) -> torch.Tensor:
        if index not in self._drawn:
            frame = index if index > 0 else index - 1  # number 0 is the anchor's
            self._drawn[index] = frame_noise(self.seed, frame, self.shape, "cpu", self.draw)
        return self._drawn[index]


@dataclass(frozen=True)
class NoiseScene:
    """White noise on all sides of a frame, of which a moving camera sees pictures that are white, too.

    What frame 0 does not show is drawn once, from the seed alone, and so stays what it is while the camera passes.
    A mirror, as pictures have it at their border, would show the same noise twice.

    shape: channels, height and width of a frame; the scene is three times as high and as wide.
    draw: as in `frame_noise`.
    """

    seed: int
    shape: Sequence[int]
    draw: int = 0

    @cached_property
    def _surroundings(self) -> torch.Tensor:
        """(c, 3·h, 3·w)."""
        channels, height, width = self.shape
        return frame_noise(self.seed, _SURROUNDINGS, (channels, 3 * height, 3 * width), "cpu", self.draw)

    @cached_property
    def _detail(self) -> torch.Tensor:
        """(c, 3·h, 3·w, s, s): how the parts of a cell differ from their mean."""
        parts = frame_noise(self.seed, _DETAIL, (*self._surroundings.shape, SHARES, SHARES), "cpu", self.draw)
        return parts - parts.mean((-2, -1), keepdim=True)

    def seen(self, noise: torch.Tensor, pose: CameraPose) -> torch.Tensor:
        """White noise (c, h, w) that is `noise`, (c, h, w) and white, as far as another pose shows the same.

        float32 on the device of `noise`, from CPU arithmetic, which is the same for all devices.
        """
        _, height, width = self.shape
        scene = self._surroundings.clone()
        scene[:, height : 2 * height, width : 2 * width] = noise
        is_pan = pose.scale == 1 and pose.angle == 0
        return (self._panned(scene, pose) if is_pan else self._gathered(scene, pose)).to(noise.device)

    def _panned(self, scene: torch.Tensor, pose: CameraPose) -> torch.Tensor:
        """Phase shift in the Fourier domain, which is orthogonal: white, and all of the noise is kept."""
        _, height, width = self.shape
        down, rows = _phase_shift(height, pose.y * height)
        across, columns = _phase_shift(width, pose.x * width)
        return down @ scene[:, rows][:, :, columns] @ across.T

    def _gathered(self, scene: torch.Tensor, pose: CameraPose) -> torch.Tensor:
        """Every part of every cell goes to the one cell of the picture where it is seen; sums of unit variance.

        The parts of a cell with value x are x/s + z - mean(z), z ~ N(0, I): independent, and x together. Shares of
        area a have the law a·x + sqrt(a)·z_j - a·Σ sqrt(a_i)·z_i of a Brownian bridge (Chang et al. 2024, "How I
        Warped Your Noise", integral noise).
        """
        _, height, width = self.shape
        rows, columns = _cells_in_sight(pose, height, width)
        here = (slice(None), slice(rows.start, rows.stop), slice(columns.start, columns.stop))
        parts = self._detail[here] + scene[here][..., None, None] / SHARES
        target = _seen_at(pose, rows, columns, height, width).flatten()
        sums = torch.zeros(len(scene), height * width + 1).index_add_(1, target, parts.flatten(1))[:, :-1]
        counts = torch.bincount(target, minlength=height * width + 1)[:-1]
        fresh = self._surroundings[:, :height, :width].flatten(1)  # where no part is seen
        return torch.where(counts > 0, sums / counts.clamp(min=1).sqrt(), fresh).unflatten(1, (height, width))


def _phase_shift(cells: int, shift: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Shift along one axis, in cells: weights (cells, n), and which n cells of the scene they weigh.

    The weights are rows of an orthogonal circulant matrix, the phase shift of n cells; n is odd, because an even
    number has a frequency whose phase cannot be shifted.
    """
    whole = math.floor(shift + 0.5)
    margin = min(PAN_MARGIN, cells // 2)
    count = cells + 2 * margin + (cells + 1) % 2
    places = torch.arange(cells, dtype=torch.float64)[:, None] + margin + (shift - whole)
    distance = places - torch.arange(count, dtype=torch.float64)
    weights = torch.sinc(distance) / torch.sinc(distance / count)
    return weights.float(), (cells + whole - margin + torch.arange(count)) % (3 * cells)


def _cells_in_sight(pose: CameraPose, height: int, width: int) -> tuple[range, range]:
    """Rows and columns of the scene, in which frame 0 begins at (height, width), that hold all that a pose sees."""
    cos, sin = abs(math.cos(pose.angle)) / pose.scale, abs(math.sin(pose.angle)) / pose.scale
    down, across = (sin * width + cos * height) / 2, (cos * width + sin * height) / 2
    middle_y, middle_x = (1.5 + pose.y) * height, (1.5 + pose.x) * width
    return (
        range(max(math.floor(middle_y - down), 0), min(math.ceil(middle_y + down), 3 * height)),
        range(max(math.floor(middle_x - across), 0), min(math.ceil(middle_x + across), 3 * width)),
    )


def _seen_at(pose: CameraPose, rows: range, columns: range, height: int, width: int) -> torch.Tensor:
    """Number of the picture's cell where each part of some of the scene's cells is seen, (rows, columns, s, s).

    height·width for those out of sight. The inverse of `camera.sample_positions`.
    """
    y, x = (
        (torch.arange(SHARES * len(cells)) + 0.5) / SHARES + cells.start - (1.5 + shift) * side
        for cells, side, shift in ((rows, height, pose.y), (columns, width, pose.x))
    )
    y, x = y.view(-1, 1, SHARES, 1), x.view(1, -1, 1, SHARES)
    cos, sin = math.cos(pose.angle) * pose.scale, math.sin(pose.angle) * pose.scale
    to_x = (cos * x + sin * y + width / 2).floor()
    to_y = (cos * y - sin * x + height / 2).floor()
    inside = (to_x >= 0) & (to_x < width) & (to_y >= 0) & (to_y < height)
    return torch.where(inside, to_y * width + to_x, height * width).long()

"""Noise that goes with a clip: it sticks to what moves in it, and not to the screen that things move behind.

One noise for all frames, as the paper has it, stays where it is while the scene moves under it, and textures with it.
Here every cell of the first frame's noise is carried along the clip's own flow; where nothing arrives, noise of the
frame's own comes in. A cell's noise is never divided or mixed, and never shown twice, so that it stays white.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Self

import cv2
import numpy as np
import torch

from text2video_zero.media.flow import occluded, optical_flow
from text2video_zero.sampling.noise import frame_noise

if TYPE_CHECKING:
    from text2video_zero.media.frames import Frames


@dataclass(frozen=True, eq=False)
class CarriedNoise:
    """Where the noise of every cell of a clip comes from.

    births: (f, h, w), the frame whose own noise it is.  places: (f, h, w), the number of the cell there.
    """

    births: np.ndarray
    places: np.ndarray

    @classmethod
    def along(cls, frames: Frames, height: int, width: int) -> Self:
        """Follow a clip (f, …, …, 3) uint8 on a grid of height x width cells; two frames are in memory at a time."""
        cells = np.arange(height * width)
        centres = np.stack([cells % width, cells // width], -1).astype(np.float32)
        positions, births, places = centres, [np.zeros_like(cells)], [cells]
        for number, pair in enumerate(pairwise(frames), start=1):
            moved, seen = _moved(positions, *pair, height, width)
            source = _arrivals(moved, seen, height, width)
            arrived = source >= 0
            births.append(np.where(arrived, births[-1][source], number))
            places.append(np.where(arrived, places[-1][source], cells))
            positions = np.where(arrived[:, None], moved[source], centres)
        return cls(*(np.stack(kind).reshape(-1, height, width) for kind in (births, places)))

    def noise(self, seed: int, channels: int, draw: int = 0) -> torch.Tensor:
        """The noise (f, c, h, w) float32 of all frames, on the CPU; draw: as in `frame_noise`."""
        frames, height, width = self.births.shape
        own = [frame_noise(seed, frame, (channels, height, width), "cpu", draw) for frame in range(frames)]
        births, places = torch.from_numpy(self.births), torch.from_numpy(self.places)
        shown = torch.stack(own).flatten(2)[births, :, places]  # (f, h, w, c)
        return shown.movedim(-1, 1).contiguous()


def _moved(
    positions: np.ndarray, before: np.ndarray, after: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, 2) a frame later, in cells, and which of them the next frame shows, (n,) bool."""
    there, back = optical_flow(before, after), optical_flow(after, before)
    scale = np.array([width / before.shape[1], height / before.shape[0]], np.float32)
    flow = cv2.resize(there, (width, height), interpolation=cv2.INTER_AREA) * scale
    lost = cv2.resize(occluded(there, back).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    x, y = (np.ascontiguousarray(positions[:, axis].reshape(height, width)) for axis in (0, 1))
    step, lost = (cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for field in (flow, lost))
    return positions + step.reshape(-1, 2), lost.ravel() < 0.5


def _arrivals(positions: np.ndarray, seen: np.ndarray, height: int, width: int) -> np.ndarray:
    """For each cell, (h·w,), the number of the position that it shows, -1 where there is none.

    A cell shows what is nearest to its middle. What finds its cell taken goes to the next nearest one if that is empty:
    half-way between two cells a little less or more would otherwise leave one without and the other with two.
    """
    nearest = np.rint(positions).astype(int)
    rest = positions - nearest
    axis = np.abs(rest).argmax(1)[:, None]
    sideways = np.where(np.take_along_axis(rest, axis, 1) < 0, -1, 1)
    second = nearest + sideways * (np.arange(2) == axis)
    found = np.full(height * width, -1)
    waiting = np.flatnonzero(seen)
    for places in (nearest, second):
        column, row = places[waiting].T
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        cells = np.where(inside, row * width + column, 0)
        free = inside & (found[cells] < 0)
        aside = np.square(positions[waiting] - places[waiting]).sum(-1)
        order = np.argsort(-aside, kind="stable")  # the nearest last, which stays
        order = order[free[order]]
        found[cells[order]] = waiting[order]
        waiting = np.setdiff1d(waiting, found)
    return found

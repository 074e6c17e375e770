"""Frames in between: a clip that plays more smoothly than it was drawn, along its own optical flow.

A frame at a time between two others shows what is in both where it is on its way, and what only one of them shows as
that one has it: where things cover others nothing is blended, so that there are no double images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from text2video_zero.media.flow import occluded, optical_flow, warped_along

if TYPE_CHECKING:
    from collections.abc import Iterator

    from text2video_zero.media.frames import Frames

SOFTNESS = 1.0  # pixels over which what one frame alone shows goes over into the rest


def resampled(frames: Frames, fps: int, play_fps: int, *, loop: bool = False) -> Iterator[np.ndarray]:
    """Frames (h, w, 3) uint8 of the same clip at another rate, as long as before.

    frames: (f, h, w, 3) uint8, at fps frames a second. Those that fall on one of them are that one, bit for bit.
    loop: what comes after the last frame leads to the first; else the last one stays.
    """
    count, gap, pair = len(frames), None, None
    for number in range(resampled_count(count, fps, play_fps)):
        place, moment = divmod(number * fps, play_fps)
        if moment == 0 or (place == count - 1 and not loop):
            yield frames[place]
            continue
        if pair is None or place != gap:
            gap, pair = place, Pair.of(frames[place], frames[(place + 1) % count])
        yield pair.at(moment / play_fps)


def resampled_count(count: int, fps: int, play_fps: int) -> int:
    """How many frames `resampled` makes of `count`, at least one."""
    return max(round(count * play_fps / fps), 1)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two frames with what moves between them.

    there, back: flows from the first to the second and back.
    first_alone, second_alone: (h, w) float32, 1 where a frame shows what the other does not.
    """

    first: np.ndarray
    second: np.ndarray
    there: np.ndarray
    back: np.ndarray
    first_alone: np.ndarray
    second_alone: np.ndarray

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray) -> Pair:
        """Find out."""
        there, back = optical_flow(first, second), optical_flow(second, first)
        alone = (
            cv2.GaussianBlur(occluded(*ways).astype(np.float32), (0, 0), SOFTNESS)
            for ways in ((there, back), (back, there))
        )
        return cls(first, second, there, back, *alone)

    def at(self, moment: float) -> np.ndarray:
        """The frame (h, w, 3) uint8 at a share of the way, 0..1.

        Flows from there to both frames are put together from those between them (Jiang et al. 2018, "Super SloMo",
        equation 4).
        """
        to_first = moment * (moment * self.back - (1 - moment) * self.there)
        to_second = (1 - moment) * ((1 - moment) * self.there - moment * self.back)
        weights = [
            (1 - moment) * (1 - warped_along(self.second_alone, to_second)),
            moment * (1 - warped_along(self.first_alone, to_first)),
        ]
        weights[moment >= 0.5] += 1e-3  # what both call their own is the nearer one's
        share = (weights[1] / (weights[0] + weights[1]))[..., None]
        first, second = warped_along(self.first, to_first), warped_along(self.second, to_second)
        return np.round(first + share * (second - first)).astype(np.uint8)

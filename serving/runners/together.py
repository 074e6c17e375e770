"""One video by several workers: what they tell of its parts, told as if one had made it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from text2video_zero.events import Event, Finished, Notice, Preview, Progress
from text2video_zero.sampling.share import can_be_shared

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from text2video_zero.job import Job
    from text2video_zero.media.video import Video

FRAMES_APIECE = 8
"""Fewer are not worth a further worker: each samples the anchor, and reads and encodes a clip, as the first does."""


def useful_workers(job: Job) -> int:
    """How many workers can make a job's video together."""
    if job.maps_only or not can_be_shared(job.request):
        return 1
    return max(1, job.request.frames // FRAMES_APIECE)


class Together:
    """The parts of a video while they are made, in the order of their frames."""

    def __init__(self, parts: int) -> None:
        self._running = set(range(parts))
        self._progress: list[Progress | None] = [None] * parts
        self._previews: list[np.ndarray | None] = [None] * parts
        self._videos: list[Video | None] = [None] * parts
        self._stages: list[str] = []  # as they came first
        self._told: set[str] = set()

    @property
    def videos(self) -> list[Video]:
        """Those of all parts that have any frames."""
        return [video for video in self._videos if video is not None]

    def ended(self, number: int) -> None:
        """A part is over, perhaps without a video: a clip may turn out to have fewer frames than there are parts."""
        self._running.discard(number)
        self._progress[number] = None

    def heard(self, number: int, event: Event) -> Iterator[Event]:
        """What there is to tell when a part has told something."""
        match event:
            case Progress():
                if event.stage not in self._stages:
                    self._stages.append(event.stage)
                self._progress[number] = event
                yield self._slowest()
            case Preview():
                self._previews[number] = event.frames
                if all(self._previews[part] is not None for part in self._running):
                    yield Preview(_of_one_size([frames for frames in self._previews if frames is not None]))
            case Finished():
                self._videos[number], self._progress[number] = event.video, None
            case Notice():
                if event.text not in self._told and not (number and event.of_machine):
                    self._told.add(event.text)
                    yield event
            case _:
                if number == 0:  # a clip or its maps, which each has whole
                    yield event

    def _slowest(self) -> Progress:
        """Of the parts that are being made, that which is the furthest from its end."""
        running = [progress for progress in self._progress if progress is not None]
        return min(running, key=lambda progress: (self._stages.index(progress.stage), progress.step / progress.of))


def _of_one_size(previews: Sequence[np.ndarray]) -> np.ndarray:
    """Frames (f, h, w, 3) behind each other, at the size of the smallest: a decoder draws long parts coarser."""
    sizes = [frames.shape[1:3] for frames in previews]
    rows, columns = min(sizes)
    grids = [np.ix_(np.arange(rows) * high // rows, np.arange(columns) * wide // columns) for high, wide in sizes]
    return np.concatenate([frames[:, *grid] for frames, grid in zip(previews, grids, strict=True)])

"""What one visitor may take of a page that others use too: jobs, their size and time."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from serving.estimates import pixels
from text2video_zero.errors import UserError
from text2video_zero.events import Progress
from text2video_zero.generators import mapped
from text2video_zero.media.clips import frames_at, probing
from text2video_zero.requests import ClipRequest

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from text2video_zero.job import Job


@dataclass(frozen=True)
class Limits:
    """Limits of a shared page; a page of one's own has none. Each is a whole number from 1 on.

    waiting: jobs of one visitor in the queue.  minute: jobs that a visitor asks for within a minute.
    neighbours: visitors who may share an address, a school's say: it has the limits of so many together.
    events: of one address that wait at once for their turn on the page: looks at clips, say.
    clip: seconds of a clip that are used.  decoded: frames of the clip that lie in them.
    frames: of a video, that are drawn.  played: frames of a video, those in between counted.
    pixels: of a frame.  steps: of denoising.  seconds: that a job computes.
    """

    waiting: int = 12
    minute: int = 24
    neighbours: int = 3
    events: int = 16
    clip: int = 60
    decoded: int = 60 * 120
    frames: int = 128
    played: int = 960
    pixels: int = 1024 * 1024
    steps: int = 100
    seconds: int = 30 * 60

    @classmethod
    def read(cls, given: Sequence[str]) -> Self:
        """The usual limits but for those that are given as NAME=NUMBER; raises UserError."""
        names = {one.name for one in dataclasses.fields(cls)}
        limits = cls()
        for pair in given:
            name, _, number = pair.partition("=")
            if name not in names or not number.isdecimal() or int(number) < 1:
                raise UserError(
                    f"The limit {pair!r} is none: give one of {', '.join(sorted(names))} with a whole number, "
                    "for example --limit frames=64."
                )
            limits = dataclasses.replace(limits, **{name: int(number)})
        return limits

    def check(self, job: Job) -> None:
        """Raise UserError where a job asks for more than a visitor may have."""
        request = job.request
        if request.frames > self.frames:
            raise UserError(f"Frames is {request.frames}, but a shared page draws at most {self.frames}: ask for less.")
        if request.frames_played > self.played:
            raise UserError(
                f"Play at {request.play_fps} makes {request.frames_played} frames, but a shared page writes at most "
                f"{self.played}: play slower, or draw fewer."
            )
        if pixels(job) > self.pixels:
            size, side = request.size or "the model's own", int(self.pixels**0.5)
            raise UserError(f"Size is {size}, but a shared page draws at most {side}x{side} or as many pixels.")
        if request.steps > self.steps:
            raise UserError(f"Steps is {request.steps}, but a shared page takes at most {self.steps}: ask for fewer.")

    def checking_clip(self, job: Job) -> Generator[Progress]:
        """Look how long the part of a clip is that a job uses, as `checking_part` does."""
        if isinstance(request := job.request, ClipRequest):
            part = self.checking_part(Path(request.clip), request.first_frame, request.frames, request.fps)
            yield from mapped(part, lambda _: Progress("Opening the clip", 0, 1))

    def checking_part(self, path: Path, first_frame: int, frames: int, fps: float) -> Generator[None]:
        """Look how long a part of a clip is, before its frames are decoded, which all are that lie in it.

        first_frame, frames: the part, at `fps` frames per second.  Pictures without times are never more than the
        frames of the video, which `check` counts.
        Yields now and then. Raises UserError where the part is longer than a visitor may have it, and for a clip that
        cannot be read.
        """
        info = yield from probing(path)
        seconds = 0 if info.timeless else min(frames, frames_at(info, fps) - first_frame) / fps
        decoded = round(seconds * info.fps)
        if seconds > self.clip:
            amiss = f"lasts {seconds:.3g} seconds, but a shared page reads at most {self.clip}"
        elif decoded > self.decoded:
            amiss = f"has {decoded} frames, but a shared page decodes at most {self.decoded}"
        else:
            return
        raise UserError(
            f"The part of the clip that is used {amiss}: ask for fewer Frames or more Frames per second, or cut the "
            "clip."
        )

    def check_time(self, seconds: float) -> None:
        """Raise UserError where a job has computed for longer than a visitor may have it."""
        if seconds > self.seconds:
            told = f"This took longer than the {self.seconds} seconds that a shared page gives to a video"
            raise UserError(f"{told}: ask for fewer frames or steps, or a smaller size.")


class Asked:
    """How many jobs each visitor asked for within the last minute."""

    def __init__(self) -> None:
        self._moments: dict[str, deque[float]] = {}

    def within_a_minute(self, who: str) -> int:
        """Jobs that somebody, an owner or an address, asked for within the last minute."""
        moments, now = self._moments.get(who, deque()), time.monotonic()
        while moments and now - moments[0] > 60:
            moments.popleft()
        return len(moments)

    def note(self, who: str) -> None:
        """Somebody asks for a job now. Who asked for none of late is forgotten."""
        for known in list(self._moments):
            if not self.within_a_minute(known):
                del self._moments[known]
        self._moments.setdefault(who, deque()).append(time.monotonic())

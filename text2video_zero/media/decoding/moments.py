"""Which frames are on the screen at given moments, from the times at which they appear."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from text2video_zero.media.decoding.facts import Facts

Frame = TypeVar("Frame")
LENIENCE = 0.002  # seconds; some containers round their time stamps to milliseconds
SAME_RATE = 1e-3  # two rates closer than that are one, written with more or fewer digits


def own_rate(facts: Facts, rate: float) -> bool:
    """Whether a clip's frames come as they are: nothing is resampled, so they are counted and not timed."""
    return not facts.variable_rate and math.isclose(rate, facts.fps, rel_tol=SAME_RATE)


def moments(numbers: Sequence[int], rate: float) -> list[float]:
    """Seconds after the first frame up to which a frame must have appeared to be seen as one of these numbers."""
    return [number / rate + min(LENIENCE, 0.25 / rate) for number in numbers]


def chosen(frames: Iterable[tuple[float, Frame]], wanted: Sequence[float], lasting: float) -> Iterator[Frame]:
    """For each wanted moment the last frame that has appeared by then; fewer where the frames end before.

    frames: with their times in seconds, ascending.  wanted: ascending.
    lasting: seconds that the last frame is seen.
    """
    waiting = iter(wanted)
    moment = next(waiting, None)
    held: Frame | None = None
    time = 0.0
    for time, frame in frames:
        while moment is not None and held is not None and moment < time:
            yield held
            moment = next(waiting, None)
        if moment is None:
            return
        held = frame
    while held is not None and moment is not None and moment < time + lasting:
        yield held
        moment = next(waiting, None)


def varies(times: Sequence[float]) -> bool:
    """Whether some frames stay much longer than others; less than that is the rounding of time stamps."""
    delays = [later - earlier for earlier, later in pairwise(times)]
    if len(delays) < 2:
        return False
    usual = statistics.median(delays)
    return max(abs(delay - usual) for delay in delays) > 0.25 * usual

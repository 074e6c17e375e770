"""What a run tells its caller, in the order in which it happens. Plain, picklable values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from text2video_zero.video import Video


@dataclass(frozen=True)
class Progress:
    """One unit of work is done.

    stage: what is going on, fit to be shown ("Denoising").
    step, of: units done and units in all of this stage, 0 <= step <= of.
    seconds_left: estimate for the whole run; None while there is nothing to judge by.
    """

    stage: str
    step: int
    of: int
    seconds_left: float | None = None


@dataclass(frozen=True)
class Preview:
    """The clip as it looks now, from the latents, at latent resolution.

    frames: (f, h, w, 3) uint8 RGB, h and w the size of the latents (an eighth of the video's).
    """

    frames: np.ndarray


@dataclass(frozen=True)
class Notice:
    """Something that the person should know but need not act on, as one sentence."""

    text: str


@dataclass(frozen=True)
class ControlMaps:
    """What shapes a controlled video, before sampling begins.

    frames: (f, height, width, 3) uint8 RGB at the size of the video.
    """

    frames: np.ndarray


@dataclass(frozen=True)
class Finished:
    """The video, the last event of a run that was not closed."""

    video: Video


Event = Progress | Preview | Notice | ControlMaps | Finished

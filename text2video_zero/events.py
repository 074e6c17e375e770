"""What a run tells its caller, in the order in which it happens. Plain, picklable values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from text2video_zero.media.frames import Frames
    from text2video_zero.media.video import Video

MB, GB = 10**6, 10**9  # as the Hub and download pages count them

JOINING = "Joining"
"""The stage of a run that several workers share, once all parts are made."""


def duration(seconds: float) -> str:
    """Seconds as a person says them: rounded, in minutes from one and a half on, in hours likewise."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


@dataclass(frozen=True)
class Progress:
    """One unit of work is done.

    stage: what is going on, fit to be shown ("Denoising").
    step, of: units done and units in all of this stage, 0 <= step <= of.
    seconds_left: estimate for the whole run; None while there is nothing to judge by.
    unit: "steps", or "bytes" of a download.
    """

    stage: str
    step: int
    of: int
    seconds_left: float | None = None
    unit: str = "steps"

    @property
    def count(self) -> str:
        """How far the stage is, in words: "12 of 50", or "1.2 of 4.3 GB"; blank before the one step of a stage."""
        if self.unit == "bytes":
            divisor, name = (MB, "MB") if self.of < GB else (GB, "GB")
            return f"{self.step / divisor:.1f} of {self.of / divisor:.1f} {name}"
        return "" if (self.step, self.of) == (0, 1) else f"{self.step} of {self.of}"


@dataclass(frozen=True)
class Preview:
    """The clip as it looks now, from the latents.

    frames: (f, h, w, 3) uint8 RGB, of the size that the pipeline's `PreviewDecoder` makes them.
    """

    frames: np.ndarray


@dataclass(frozen=True)
class Notice:
    """Something that the person should know but need not act on, as one sentence.

    of_machine: whether it is about the machine alone. Several that make a video's parts are told of by the first.
    """

    text: str
    of_machine: bool = False


@dataclass(frozen=True)
class ControlMaps:
    """What shapes a controlled video, before sampling begins.

    frames: (f, height, width, 3) uint8 RGB at the size of the video.
    """

    frames: Frames


@dataclass(frozen=True)
class ClipFrames:
    """What an instruction changes, before sampling begins: the clip as it was read.

    frames: (f, height, width, 3) uint8 RGB at the size of the video.
    """

    frames: Frames


@dataclass(frozen=True)
class Finished:
    """The video, the last event of a run that was not closed.

    Its frames lie in a temporary file that belongs to the video itself and not to the run: whoever got it can
    still save it after the run is closed, and the file goes with the last reference to it. Pickled, a video carries
    its frames along.
    """

    video: Video


Event = Progress | Preview | Notice | ControlMaps | ClipFrames | Finished

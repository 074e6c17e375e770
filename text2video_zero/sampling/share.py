"""A part of a clip, for one of several workers: each samples its own frames, and the anchor once more beside them.

All numbers that a frame is made of hang on the seed, on the frame's own number and on the anchor. So the parts of
a clip need nothing of each other, and put one behind the other they are the clip that one worker makes alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from text2video_zero.requests import TextToVideoRequest
from text2video_zero.requests.video import FIRST

if TYPE_CHECKING:
    from text2video_zero.requests import VideoRequest


@dataclass(frozen=True)
class Share:
    """One of `of` even parts of a clip; number: which, from 0."""

    number: int
    of: int

    def frames(self, count: int) -> range:
        """The frames, of a clip of so many, that are in this part; none where there are more parts than frames."""
        return range(self.number * count // self.of, (self.number + 1) * count // self.of)

    def rows(self, count: int) -> slice:
        """The same, for tensors (f, ...)."""
        frames = self.frames(count)
        return slice(frames.start, frames.stop)


WHOLE = Share(0, 1)


def can_be_shared(request: VideoRequest) -> bool:
    """Whether frames of a request hang on no other frames but the anchor.

    Smoothing looks at all, parallax is scaled by the first, and some reference frames are earlier ones.
    """
    if isinstance(request, TextToVideoRequest) and (request.smooth_background or request.parallax):
        return False
    return request.reference_frames == FIRST or not request.cross_frame_attention

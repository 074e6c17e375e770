"""From frames as they come to the finished video: kept on disk, joined, and brought to the rate of playing."""

from __future__ import annotations

import dataclasses
from itertools import chain
from typing import TYPE_CHECKING

from text2video_zero.events import JOINING, Event, Finished, Progress
from text2video_zero.media.between import resampled, resampled_count
from text2video_zero.media.files import readable_errors
from text2video_zero.media.frames import StoredFrames, spool_folder
from text2video_zero.requests import TextToVideoRequest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    import numpy as np

    from text2video_zero.media.video import Video
    from text2video_zero.requests import VideoRequest


def stored(frames: Iterator[np.ndarray], count: int, stage: str) -> Generator[Event, None, StoredFrames]:
    """Put frames on disk as they come; they are gone again where not all of them come."""
    kept: StoredFrames | None = None
    try:
        for frame in frames:
            with readable_errors(spool_folder()):
                kept = kept or StoredFrames(frame.shape)
                kept.append(frame)
            yield Progress(stage, len(kept), count)
    except BaseException:
        if kept is not None:
            kept.close()
        raise
    if kept is None:
        raise ValueError("a video has at least one frame")
    return kept


def played(video: Video, request: VideoRequest) -> Generator[Event, None, Video]:
    """The video at the rate that it is to be played at."""
    if request.play_fps in {0, request.fps}:
        return video
    loop = isinstance(request, TextToVideoRequest) and request.loops
    between = resampled(video.frames, request.fps, request.play_fps, loop=loop)
    count = resampled_count(len(video.frames), request.fps, request.play_fps)
    frames = yield from stored(between, count, "Frames in between")
    return dataclasses.replace(video, frames=frames, fps=request.play_fps)


def joined(request: VideoRequest, parts: Sequence[Video]) -> Generator[Event]:
    """The video of whose frames each part holds some, in their order; the last event is Finished, as of any run."""
    count = sum(len(part.frames) for part in parts)
    frames = yield from stored(chain.from_iterable(part.frames for part in parts), count, JOINING)
    yield Finished((yield from played(dataclasses.replace(parts[0], frames=frames), request)))

"""Clips: the videos and pictures that a person begins with, read at the size and rate that a run needs.

Frames are decoded one after the other, scaled down as they come, and put into a file, so that memory is bounded
by a frame and not by the clip.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from text2video_zero.errors import UserError
from text2video_zero.media.clip_pictures import PictureSequence, open_pictures
from text2video_zero.media.clip_video import FORMATS_TO_GIVE, GUARDED, LENIENCE, VideoStream, open_video, read_video
from text2video_zero.media.ffmpeg import run_ffmpeg
from text2video_zero.media.files import readable_errors, renamed_when_whole
from text2video_zero.media.frames import Frames, StoredFrames, spool_folder
from text2video_zero.requests.fields import Size

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

MULTIPLE = 8  # pixels per latent cell
SMALLEST_SIDE, LARGEST_SIDE = 64, 2048
PICTURE_FPS = 8.0  # pictures know no time; this is the speed at which they are played unless another is asked for
WORTH_TELLING = 0.02  # a crop of less than this share of the picture is what rounding does


@dataclass(frozen=True)
class ClipInfo:
    """What a clip holds.

    frames: how many there are.  fps: frames per second, on average where they vary; 8 for pictures.
    size: as shown, turned upright and with square pixels.  duration: seconds.
    rotation: degrees by which the file asks to be turned.  variable_rate: some frames stay longer than others.
    transparent: it may have transparent parts, which are read as black.
    """

    frames: int
    fps: float
    size: Size
    duration: float
    has_audio: bool = False
    rotation: float = 0.0
    variable_rate: bool = False
    transparent: bool = False


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of a clip, ready to be worked on.

    frames: (f, h, w, 3) uint8 RGB, f >= 1, on disk.  fps: frames per second that they stand for.
    size: their size, sides multiples of 8.
    note: what was done to the picture, fit to be shown ("480x270 -> 680x384"); "" if nothing was.
    start: seconds from the beginning of the file to the first of these frames, for the sound.
    """

    frames: Frames
    fps: float
    size: Size
    note: str
    start: float
    source: ClipInfo


def probe(path: Path) -> ClipInfo:
    """What a clip holds; decodes one frame of it at most.

    path: a video, an animated or still picture, a folder of pictures, or a zip of them.
    Raises UserError, one sentence, for whatever cannot be read.
    """
    return _info(_opened(Path(path)))


def read_clip(path: Path, *, first_frame: int, frames: int, fps: float | None, size: Size | None, native: Size) -> Clip:
    """Read a part of a clip, in proportion: what does not fit the size is cut off evenly on both sides.

    first_frame, frames: the part, counted at the asked frames per second; fewer frames come where the clip ends.
    fps: rate to resample to, by the clip's time stamps; None keeps the clip's own, its average where it varies.
        Pictures are never resampled: one picture is one frame.
    size: None is `fitted_size`.  native: the size that the model was trained at.

    Raises UserError when the clip cannot be read or ends before the first frame; ValueError for a size that is
    not of multiples of 8.
    """
    source = _opened(Path(path))
    info = _info(source)
    target = size or fitted_size(*info.size, native)
    if target.width % MULTIPLE or target.height % MULTIPLE:
        raise ValueError(f"sides must be multiples of {MULTIPLE}, not {target}")
    rate = fps or info.fps
    pictures_only = isinstance(source, PictureSequence)
    available = info.frames if pictures_only else max(1, math.ceil((info.duration - LENIENCE) * rate))
    if first_frame >= available:
        raise UserError(
            f"First frame is {first_frame}, but the clip has only {available} frames at {rate:.3g} frames per second: "
            f"choose one from 0 to {available - 1}."
        )
    wanted = min(frames, available - first_frame)
    with readable_errors(spool_folder()):
        pictures = StoredFrames.of(_pictures(source, info, range(first_frame, first_frame + wanted), rate, target))
    start = 0.0 if pictures_only else float(source.times[0]) + first_frame / rate
    note = _note(info.size, target, asked=frames, wanted=wanted, found=len(pictures))
    return Clip(pictures, rate, target, note, start, info)


def glimpses(path: Path, clip: Clip, first_frame: int, count: int) -> Generator[np.ndarray, None, None]:
    """A few of a clip's frames, evenly spread, as they are in the file: (h, w, 3) uint8 RGB at the clip's own size.

    clip: what `read_clip` has read of the path, from `first_frame` on.  count: at most so many, in the same array.
    Closing the generator stops the reading, which costs more the larger the clip's pictures are.
    """
    last = first_frame + len(clip.frames) - 1
    numbers = np.unique(np.linspace(first_frame, last, min(count, len(clip.frames))).round().astype(int)).tolist()
    yield from _pictures(_opened(Path(path)), clip.source, numbers, clip.fps, clip.source.size)


def _pictures(
    source: VideoStream | PictureSequence, info: ClipInfo, numbers: Sequence[int], rate: float, target: Size
) -> Generator[np.ndarray, None, None]:
    """Frames (h, w, 3) uint8 RGB of a size, by their numbers at some frames per second."""
    if isinstance(source, PictureSequence):
        yield from (source.picture(number, lambda shown: placement(shown, target)) for number in numbers)
    else:
        resampled = None if not info.variable_rate and math.isclose(rate, info.fps, rel_tol=1e-3) else rate
        yield from read_video(source, resampled, numbers, *placement(info.size, target))


def fitted_size(width: int, height: int, native: Size) -> Size:
    """The size in the clip's proportions whose area comes nearest to the model's own, in multiples of 8.

    Sides stay between 64 and 2048 pixels; a clip longer than that in one direction is cropped.
    """
    area = native.width * native.height
    scale = math.sqrt(area / (width * height))
    return Size(*(_rounded_side(side * scale) for side in (width, height)))


def placement(shown: Size, target: Size) -> tuple[Size, Size]:
    """The size that a picture is scaled to so that it covers the target, and the target, cut out of its middle."""
    scale = max(target.width / shown.width, target.height / shown.height)
    covering = Size(*(max(side, round(own * scale)) for own, side in zip(shown, target, strict=True)))
    return covering, target


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of the pictures of a folder; hexadecimal.

    Raises UserError when it cannot be read.
    """
    path = Path(path)
    source = _opened(path)
    files = [path]
    if isinstance(source, PictureSequence) and path.is_dir():
        files = [path / name for name in source.names]
    digest = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as content:
                contents = hashlib.file_digest(content, "sha256").digest()
        except OSError as error:
            raise UserError(f"{file.name} cannot be read ({error.strerror}): check its permissions.") from error
        digest.update(contents if len(files) == 1 else file.name.encode(errors="surrogateescape") + contents)
    return digest.hexdigest()


def mux_audio(video_path: Path, clip_path: Path, start: float = 0.0) -> Path:
    """Put the clip's sound, from `start` seconds on, under an MP4, and return the MP4's path.

    The pictures and the settings in the file stay as they are; it is replaced when the new one is whole. A clip
    without sound changes nothing. Raises UserError when the video is no .mp4 or one of the files is unreadable.
    """
    video_path, clip_path = Path(video_path), Path(clip_path)
    if video_path.suffix.lower() != ".mp4":
        raise UserError(f"{video_path.name} cannot carry the clip's sound: save the video as .mp4.")
    if not probe(clip_path).has_audio:
        return video_path
    duration = probe(video_path).duration
    inputs = ["-i", f"file:{video_path}", *GUARDED, "-ss", f"{start:.6f}", "-i", f"file:{clip_path}"]
    # The sound may be shorter or longer than the pictures: it ends with them.
    streams = ["-map", "0:v:0", "-map", "1:a:0", "-c:v", "copy", "-c:a", "aac", "-t", f"{duration:.6f}"]
    with readable_errors(video_path), renamed_when_whole(video_path) as temporary:
        run_ffmpeg([*inputs, *streams, "-map_metadata", "0", "-movflags", "+faststart", str(temporary)])
    return video_path


def _opened(path: Path) -> VideoStream | PictureSequence:
    if not path.exists():
        raise UserError(f"There is no clip {path.name}: check the name.")
    if path.is_file() and not path.stat().st_size:
        raise UserError(f"The clip {path.name} is empty: give {FORMATS_TO_GIVE}.")
    return open_pictures(path) or open_video(path)


def _info(source: VideoStream | PictureSequence) -> ClipInfo:
    if isinstance(source, PictureSequence):
        return ClipInfo(len(source), PICTURE_FPS, source.size, len(source) / PICTURE_FPS)
    return ClipInfo(
        frames=len(source.times),
        fps=source.fps,
        size=source.size,
        duration=source.end - float(source.times[0]),
        has_audio=source.has_audio,
        rotation=source.rotation,
        variable_rate=source.variable_rate,
        transparent=source.alpha,
    )


def _rounded_side(side: float) -> int:
    return min(max(round(side / MULTIPLE) * MULTIPLE, SMALLEST_SIDE), LARGEST_SIDE)


def _note(shown: Size, target: Size, *, asked: int, wanted: int, found: int) -> str:
    """What a person wants to know of scaling, cropping and missing frames."""
    covering, _ = placement(shown, target)
    parts = [f"{shown} -> {target}"] if shown != target else []
    for share, where in (
        (1 - target.width / covering.width, "left and right"),
        (1 - target.height / covering.height, "top and bottom"),
    ):
        if share > WORTH_TELLING:
            parts.append(f"{share:.0%} cropped at {where}")
    if found < wanted:
        parts.append(f"the clip is damaged, only {found} of {wanted} frames could be read")
    elif wanted < asked:
        parts.append(f"the clip ends after {wanted} of {asked} frames")
    return ", ".join(parts)

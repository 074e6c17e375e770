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

from text2video_zero.errors import FieldError, UserError
from text2video_zero.generators import mapped, result_of
from text2video_zero.media.clip_reader import LIMITS, ClipReader
from text2video_zero.media.decoding.facts import CONTAINERS, pictures_among
from text2video_zero.media.decoding.moments import LENIENCE
from text2video_zero.media.ffmpeg import run_ffmpeg
from text2video_zero.media.files import readable_errors, readable_file, renamed_when_whole
from text2video_zero.media.frames import Frames, StoredFrames, spool_folder
from text2video_zero.requests.fields import LARGEST_SIDE, LATENT_FACTOR, SMALLEST_SIDE, Size

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from text2video_zero.media.clip_reader import ClipInfo

# What keeps a stranger's clip from having ffmpeg open something else, and from filling the memory.
GUARDED = ["-format_whitelist", CONTAINERS, "-protocol_whitelist", "file,pipe", "-max_alloc", str(1 << 28)]
HASHED_AT_A_TIME = 16 << 20  # bytes, a few hundredths of a second
WORTH_TELLING = 0.02  # a crop of less than this share of the picture is what rounding does


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of a clip, ready to be worked on.

    frames: (f, h, w, 3) uint8 RGB, f >= 1, on disk.  fps: frames per second that they stand for.
    size: their size, sides multiples of 8.
    note: what was done to the picture, fit to be shown ("480x270 -> 680x384"); "" if nothing was.
    start: seconds from the beginning of the file to the first of these frames, for the sound.
    source: what the file holds, of which these frames are a part.
    part: which part of the clip they are, in words; "" where they are all of it.
    """

    frames: Frames
    fps: float
    size: Size
    note: str
    start: float
    source: ClipInfo
    part: str = ""


class SoundError(UserError):
    """A video is there, but without the clip's sound."""


def probe(path: Path) -> ClipInfo:
    """What a clip holds; decodes one frame of it at most, unless it is a moving picture.

    path: a video, an animated or still picture, a folder of pictures, or a zip of them.
    Raises UserError, one sentence, for whatever cannot be read.
    """
    return result_of(probing(path))


def probing(path: Path) -> Generator[None, None, ClipInfo]:
    """What a clip holds, as `probe` returns it; yields now and then, and closing it stops."""
    with _opened(Path(path)) as reader:
        return (yield from reader.opening())


def read_clip(path: Path, *, first_frame: int, frames: int, fps: float | None, size: Size | None, native: Size) -> Clip:
    """Read a part of a clip as `reading` does, with nobody watching."""
    return result_of(reading(path, first_frame=first_frame, frames=frames, fps=fps, size=size, native=native))


def reading(
    path: Path, *, first_frame: int, frames: int, fps: float | None, size: Size | None, native: Size
) -> Generator[int, None, Clip]:
    """Read a part of a clip, in proportion: what does not fit the size is cut off evenly on both sides.

    Yields the number of frames that are there, several times a second whatever the clip does; closing it stops.

    first_frame, frames: the part, counted at the asked frames per second; fewer frames come where the clip ends.
    fps: rate to resample to, by the clip's time stamps; None keeps the clip's own, its average where it varies.
        Pictures are never resampled: one picture is one frame.
    size: None is `fitted_size`.  native: the size that the model was trained at.

    Raises UserError when the clip cannot be read or ends before the first frame; ValueError for a size that is
    not of multiples of 8.
    """
    if size is not None and (size.width % LATENT_FACTOR or size.height % LATENT_FACTOR):
        raise ValueError(f"sides must be multiples of {LATENT_FACTOR}, not {size}")
    with _opened(Path(path)) as reader:
        info = yield from mapped(reader.opening(), lambda _: 0)
        target = size or fitted_size(*info.size, native)
        rate = fps or info.fps
        available = frames_at(info, rate)
        if first_frame >= available:
            raise FieldError(
                f"First frame is {first_frame}, but the clip has only {available} frames at {rate:.3g} frames per "
                f"second: choose one from 0 to {available - 1}."
            )
        wanted = min(frames, available - first_frame)
        numbers = range(first_frame, first_frame + wanted)
        pictures = yield from _stored(reader.reading(numbers, rate, target), target)
    start = 0.0 if info.timeless else info.start + first_frame / rate
    note = _note(info, target, asked=frames, wanted=wanted, found=len(pictures))
    part = _part(first_frame, len(pictures), available, None if info.timeless else rate)
    return Clip(pictures, rate, target, note, start, info, part)


def whole_clip(path: Path) -> Generator[int, None, Clip]:
    """Every frame of a clip, as it is in the file: at its own size and rate.

    Yields the number of frames that are there, as `reading` does. Raises UserError when it cannot be read.
    """
    with _opened(Path(path)) as reader:
        info = yield from mapped(reader.opening(), lambda _: 0)
        frames = yield from _stored(reader.reading(range(info.frames), info.fps, info.size), info.size)
    return Clip(frames, info.fps, info.size, "", info.start, info)


def _stored(pictures: Iterator[np.ndarray | None], size: Size) -> Generator[int, None, StoredFrames]:
    """Put pictures on disk as they come, None for none yet; yields each time how many there are."""
    with readable_errors(spool_folder()):
        kept = StoredFrames((size.height, size.width, 3))
    for picture in pictures:
        if picture is not None:
            with readable_errors(spool_folder()):
                kept.append(picture)
        yield len(kept)
    return kept


def glimpses(path: Path, clip: Clip, first_frame: int, count: int) -> Generator[np.ndarray | None, None, None]:
    """A few of a clip's frames, evenly spread, as they are in the file: (h, w, 3) uint8 RGB at the clip's own size.

    Between them comes None, now and then while the next is waited for.

    clip: what `read_clip` has read of the path, from `first_frame` on.  count: at most so many.
    Closing the generator stops the reading, which costs more the larger the clip's pictures are.
    """
    last = first_frame + len(clip.frames) - 1
    numbers = np.unique(np.linspace(first_frame, last, min(count, len(clip.frames))).round().astype(int)).tolist()
    with _opened(Path(path)) as reader:
        for _ in reader.opening():
            yield None
        yield from reader.reading(numbers, clip.fps, clip.source.size)


def fitted_size(width: int, height: int, native: Size) -> Size:
    """The size in the clip's proportions whose area comes nearest to the model's own, in multiples of 8.

    Sides stay between 64 and 2048 pixels; a clip longer than that in one direction is cropped.
    """
    area = native.width * native.height
    scale = math.sqrt(area / (width * height))
    return Size(*(_rounded_side(side * scale) for side in (width, height)))


def frames_at(info: ClipInfo, rate: float) -> int:
    """How many frames a clip has at so many per second; pictures without times are always as many as they are."""
    return info.frames if info.timeless else max(1, math.ceil((info.duration - LENIENCE) * rate))


def _covering(shown: Size, target: Size) -> Size:
    """The size that a picture is scaled to so that it covers the target, which is cut out of its middle."""
    scale = max(target.width / shown.width, target.height / shown.height)
    return Size(*(max(side, round(own * scale)) for own, side in zip(shown, target, strict=True)))


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as `hashing` returns it, with nobody watching."""
    return result_of(hashing(path))


def hashing(path: Path) -> Generator[None, None, str]:
    """SHA-256 of a file, or of the names and contents of the pictures of a folder; hexadecimal.

    Yields now and then, because an hour of video has many gigabytes. Raises UserError when it cannot be read.
    """
    path = readable_file(Path(path))
    files = [path]
    if path.is_dir():
        names, _ = pictures_among(entry.name for entry in path.iterdir() if entry.is_file())
        files = [path / name for name in names]
    digest = hashlib.sha256()
    for file in files:
        contents = hashlib.sha256()
        try:
            with file.open("rb") as opened:
                while piece := opened.read(HASHED_AT_A_TIME):
                    contents.update(piece)
                    yield
        except OSError as error:
            raise UserError(f"{file.name} cannot be read ({error.strerror}): check its permissions.") from error
        name = b"" if len(files) == 1 else file.name.encode(errors="surrogateescape")
        digest.update(name + contents.digest())
    return digest.hexdigest()


def mux_audio(video_path: Path, clip_path: Path, start: float = 0.0) -> Path:
    """Put the clip's sound, from `start` seconds on, under an MP4, and return the MP4's path.

    The pictures and the settings in the file stay as they are; it is replaced when the new one is whole. A clip
    without sound changes nothing. Raises UserError when the video is no .mp4 or cannot be replaced; SoundError when the
    clip's sound cannot be read.
    """
    video_path, clip_path = Path(video_path), Path(clip_path)
    if video_path.suffix.lower() != ".mp4":
        raise UserError(f"{video_path.name} cannot carry the clip's sound: save the video as .mp4.")
    lost = SoundError(f"The sound of {clip_path.name} cannot be read: the video is silent.")
    try:
        if not probe(clip_path).has_audio:
            return video_path
    except UserError as error:  # it was there when its frames were read
        raise lost from error
    duration = probe(video_path).duration
    inputs = ["-i", f"file:{video_path}", *GUARDED, "-ss", f"{start:.6f}", "-i", f"file:{clip_path}"]
    # The sound may be shorter or longer than the pictures: it ends with them.
    streams = ["-map", "0:v:0", "-map", "1:a:0", "-c:v", "copy", "-c:a", "aac", "-t", f"{duration:.6f}"]
    with readable_errors(video_path), renamed_when_whole(video_path) as temporary:
        try:
            run_ffmpeg(
                [*inputs, *streams, "-map_metadata", "0", "-movflags", "+faststart", str(temporary)],
                seconds=LIMITS.seconds,
            )
        except UserError as error:  # a full disk is an OSError; the pictures have just been written by the same ffmpeg
            raise lost from error
    return video_path


def _opened(path: Path) -> ClipReader:
    return ClipReader(readable_file(path))


def _rounded_side(side: float) -> int:
    return min(max(round(side / LATENT_FACTOR) * LATENT_FACTOR, SMALLEST_SIDE), LARGEST_SIDE)


def _part(first_frame: int, used: int, available: int, rate: float | None) -> str:
    """What is taken of a clip that has more, in words; blank where it is all. rate: None for pictures without times."""
    if used == available:
        return ""
    if rate is None:
        return f"pictures {first_frame} to {first_frame + used - 1} of {available}"
    begin, end, whole = (frames / rate for frames in (first_frame, first_frame + used, available))
    return f"seconds {begin:.1f} to {end:.1f} of {whole:.1f}"


def _note(info: ClipInfo, target: Size, *, asked: int, wanted: int, found: int) -> str:
    """What a person wants to know of scaling, cropping, missing frames and whatever else was done to the pictures."""
    covering = _covering(info.size, target)
    parts = [f"{info.size} -> {target}"] if info.size != target else []
    for share, where in (
        (1 - target.width / covering.width, "left and right"),
        (1 - target.height / covering.height, "top and bottom"),
    ):
        if share > WORTH_TELLING:
            parts.append(f"{share:.0%} cropped at {where}")
    if found < wanted and not info.estimated:
        parts.append(f"the clip is damaged, only {found} of {wanted} frames could be read")
    elif found < asked:
        parts.append(f"the clip ends after {found} of {asked} frames")
    return ", ".join((*parts, *info.remarks))

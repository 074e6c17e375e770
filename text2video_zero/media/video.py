"""Videos: the result of a run, written as MP4, WebM, GIF or PNG frames together with the settings that made it.

Files are written under a temporary name in their own folder and renamed when they are whole, so that nobody
ever meets half a video. What went wrong on the person's machine is told as UserError with its remedy.
"""

from __future__ import annotations

import errno
import functools
import io
import math
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from text2video_zero.errors import UserError
from text2video_zero.media.clips import SoundError, mux_audio
from text2video_zero.media.ffmpeg import FFMPEG_REMEDY, run_ffmpeg
from text2video_zero.media.files import listed, readable_errors, renamed_when_whole, unique_path
from text2video_zero.media.frames import Frames
from text2video_zero.media.settings import as_json, as_tags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PALETTE_SAMPLE = 1 << 20  # pixels from which a GIF's colours are chosen; more cost time and change nothing
GIF_FASTEST = 2  # hundredths of a second; browsers play anything faster at a tenth of the speed
# The colours are converted by this matrix and tagged with it; untagged, players guess by the size of the picture.
BT709 = (
    "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,"
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)


@dataclass(frozen=True)
class Sound:
    """Where a video's sound comes from: a clip, from `start` seconds on. A clip may have none."""

    clip: Path
    start: float = 0.0


@dataclass(frozen=True, eq=False)  # arrays do not compare to one truth value; a video equals itself alone
class Video:
    """A finished clip and how to make it again.

    frames: (f, h, w, 3) uint8 RGB, at least one frame and one pixel; an array, or on disk. Read one at a time.
    fps: frames per second, a whole number from 1 on.
    settings: JSON values; they travel in every file that `save` writes.
    sound: what an .mp4 plays beside the frames, None for silence.
    Raises ValueError for anything else: whoever made the frames has a bug.
    """

    frames: Frames
    fps: int
    settings: dict[str, Any]
    sound: Sound | None = None

    def __post_init__(self) -> None:
        _check(self.frames, self.fps)

    def save(self, path: Path) -> Path:
        """Write the video in the form that the suffix names (see FORMATS) and return the path.

        An older file of that name is replaced; missing folders are made. Raises UserError, and leaves
        nothing behind, when the suffix is unknown or the file cannot be written; SoundError, when it has been written
        and the clip's sound cannot be read.
        """
        path = Path(path)
        suffix = _known_suffix(path)
        with readable_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with renamed_when_whole(path) as temporary:
                FORMATS[suffix](self, temporary)
                lost = self._add_sound(temporary) if suffix == ".mp4" else None
        if lost:
            raise lost
        return path

    def _add_sound(self, mp4: Path) -> SoundError | None:
        """Put the sound under an MP4; returns what to tell where it stays silent."""
        try:
            if self.sound:
                mux_audio(mp4, self.sound.clip, self.sound.start)
        except SoundError as lost:
            return lost
        return None

    def save_last_frame(self, path: Path) -> Path:
        """Write the last frame as a PNG and return the path: what another video can begin with.

        Raises UserError when it cannot be written.
        """
        with readable_errors(path), renamed_when_whole(path) as temporary:
            Image.fromarray(self.frames[len(self.frames) - 1]).save(temporary, "PNG")
        return path

    def save_frames(self, directory: Path) -> list[Path]:
        """Write frame_0000.png and so on into a folder, which is made if need be, and return their paths.

        Raises UserError when they cannot be written, or would mix with the frames of another video.
        """
        directory = Path(directory)
        check_frames_directory(directory)
        paths = []
        for name, png in _png_files(self.frames):
            with readable_errors(directory / name), renamed_when_whole(directory / name) as temporary:
                temporary.write_bytes(png)
            paths.append(directory / name)
        return paths


def _check(frames: Any, fps: Any) -> None:
    """Raises ValueError for what is no video's, whatever its maker's annotations promise."""
    if not isinstance(frames, Frames) or frames.dtype != np.uint8:
        raise ValueError(f"frames must be a uint8 array, not {getattr(frames, 'dtype', type(frames))}")
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be of shape (f, h, w, 3) and not empty, not {frames.shape}")
    if isinstance(fps, bool) or not isinstance(fps, int) or fps < 1:
        raise ValueError(f"fps must be a whole number from 1 on, not {fps!r}")


def save_or_keep_frames(video: Video, path: Path, tell: Callable[[str], object]) -> Path:
    """Save the video; should that fail, keep its frames as a PNG zip, so that no computed clip is ever lost.

    tell: is called with a sentence where the video is saved, but its sound is lost or a GIF plays slower.
    Returns the path of the saved video. Raises UserError, which tells what went wrong and where the frames
    are: beside the path, or in the system's folder for temporary files if that one takes no files either.
    """
    try:
        video.save(path)
    except SoundError as lost:
        tell(str(lost))
    except UserError as error:
        for folder in (Path(path).parent, Path(tempfile.gettempdir())):
            try:
                kept = video.save(unique_path(folder, Path(path).stem, ".zip"))
            except UserError:
                continue
            raise UserError(f"{error} The frames are kept in {kept}.") from error
        raise
    if path.suffix.lower() == ".gif" and video.fps * GIF_FASTEST > 100:
        tell(f"{path.name} plays at {100 // GIF_FASTEST} frames per second, a GIF's fastest, and not at {video.fps}.")
    return path


def check_destination(path: Path) -> None:
    """Raise the UserError that `Video.save` would raise for this path, before an hour is spent on the frames."""
    _known_suffix(path)
    with readable_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def check_frames_directory(directory: Path) -> None:
    """Raise the UserError that `Video.save_frames` would raise for this folder; makes the folder if need be."""
    with readable_errors(directory / "frame_0000.png"):
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
        if any(directory.glob("frame_*.png")):
            raise UserError(f"The folder {directory} already holds frames: empty it or name another one.")


@functools.cache
def probe_encoder() -> None:
    """Encode and decode a few frames, to learn before sampling whether a video can be written at all.

    Success is remembered for the life of the program. Raises UserError with the remedy when ffmpeg is
    missing, broken, or gives other pictures back.
    """
    frames = np.zeros((3, 16, 32, 3), np.uint8)
    frames[1:, :, 8:24] = (200, 120, 40)
    with readable_errors(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.mp4"
        Video(frames, 8, {}).save(path)
        raw = run_ffmpeg(["-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
    decoded = np.frombuffer(raw, np.uint8)
    if decoded.size != frames.size or np.abs(decoded.reshape(frames.shape) - frames.astype(int)).mean() > 10:
        raise UserError(f"The video encoder gives back other pictures than it was given: {FFMPEG_REMEDY}.")


def _known_suffix(path: Path) -> str:
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{path.name} does not say which kind of video it is: end it in {listed(FORMATS)}.")
    return path.suffix.lower()


def _write_mp4(video: Video, path: Path) -> None:
    """H.264 in yuv420p with the index in front: what every browser and phone plays while it loads."""
    _encode(video, ["-c:v", "libx264", "-crf", "16", "-movflags", "+faststart"], path)


def _write_webm(video: Video, path: Path) -> None:
    """VP9 in yuv420p, for where H.264 is not welcome; bitexact, so that the same video is the same file."""
    quality = ["-c:v", "libvpx-vp9", "-crf", "18", "-b:v", "0", "-cpu-used", "4", "-row-mt", "1"]
    _encode(video, [*quality, "-fflags", "+bitexact"], path)


def _encode(video: Video, codec: list[str], path: Path) -> None:
    height, width = (side + side % 2 for side in video.frames.shape[1:3])
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(video.fps), "-i", "-"]
    colours = ["-vf", BT709, "-pix_fmt", "yuv420p"]
    # A file and not an argument: the system limits the length of an argument, nobody that of a prompt.
    with tempfile.TemporaryDirectory() as folder:
        tags = Path(folder) / "tags.txt"
        tags.write_bytes(as_tags(video.settings))
        tagged = ["-f", "ffmetadata", "-i", str(tags), "-map", "0:v", "-map_metadata", "1"]
        run_ffmpeg([*source, *tagged, *colours, *codec, str(path)], stdin=map(_even_sides, video.frames))


def _even_sides(frame: np.ndarray) -> np.ndarray:
    """Repeat the last row and column of an odd-sized frame, because yuv420p halves both sides of the colours."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _write_gif(video: Video, path: Path) -> None:
    """An endless GIF with one palette for all frames, which flickers less than a palette for each.

    GIF counts time in hundredths of a second: single frames are rounded so that the whole keeps its length, up to 50
    frames per second. Faster ones play at 50, and so for longer.
    """
    pixels = math.prod(video.frames.shape[1:3])
    stride = -(-len(video.frames) * pixels // PALETTE_SAMPLE)
    # Every stride-th pixel of the clip, as if its frames were one long row.
    samples = [
        frame.reshape(-1, 1, 3)[-number * pixels % stride :: stride] for number, frame in enumerate(video.frames)
    ]
    palette = Image.fromarray(np.concatenate(samples)).quantize(256, Image.Quantize.MEDIANCUT)
    first, *others = (
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in video.frames
    )
    ends = np.round(np.arange(len(video.frames) + 1) * 100 / video.fps)
    delays = np.maximum(np.diff(ends), GIF_FASTEST).astype(int)
    first.save(
        path,
        save_all=True,
        append_images=others,
        loop=0,
        duration=[10 * int(delay) for delay in delays],
        comment=as_json(video.settings),
    )


def _write_zip(video: Video, path: Path) -> None:
    """PNG frames and settings.json; not compressed again, because PNG is."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (*_png_files(video.frames), ("settings.json", as_json(video.settings))):
            member = zipfile.ZipInfo(name)  # without the time of day, so that the same video is the same file
            member.external_attr = 0o644 << 16
            archive.writestr(member, content)


FORMATS: dict[str, Callable[[Video, Path], None]] = {
    ".mp4": _write_mp4,
    ".gif": _write_gif,
    ".webm": _write_webm,
    ".zip": _write_zip,
}


def _png_files(frames: Frames) -> Iterator[tuple[str, bytes]]:
    for index, frame in enumerate(frames):
        png = io.BytesIO()
        Image.fromarray(frame).save(png, "PNG")
        yield f"frame_{index:04d}.png", png.getvalue()

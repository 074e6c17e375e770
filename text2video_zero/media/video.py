"""Videos: the result of a run, written as MP4, GIF or PNG frames together with the settings that made it.

Files are written under a temporary name in their own folder and renamed when they are whole, so that nobody
ever meets half a video. What went wrong on the person's machine is told as UserError with its remedy.
"""

from __future__ import annotations

import errno
import functools
import io
import json
import math
import os
import re
import secrets
import subprocess
import tempfile
import time
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio_ffmpeg
import numpy as np
from PIL import Image

from text2video_zero.errors import UserError
from text2video_zero.media.frames import Frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

SETTINGS_LIMIT = 1 << 20  # bytes of settings that are read from a file; nobody's prompt is longer
SLUG_LENGTH = 40
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
        frames = self.frames
        if not isinstance(frames, Frames) or frames.dtype != np.uint8:
            raise ValueError(f"frames must be a uint8 array, not {getattr(frames, 'dtype', type(frames))}")
        if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
            raise ValueError(f"frames must be of shape (f, h, w, 3) and not empty, not {frames.shape}")
        if isinstance(self.fps, bool) or not isinstance(self.fps, int) or self.fps < 1:
            raise ValueError(f"fps must be a whole number from 1 on, not {self.fps!r}")

    def save(self, path: Path) -> Path:
        """Write the video in the form that the suffix names (see FORMATS) and return the path.

        An older file of that name is replaced; missing folders are made. Raises UserError, and leaves
        nothing behind, when the suffix is unknown or the file cannot be written.
        """
        path = Path(path)
        suffix = _known_suffix(path)
        with readable_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with renamed_when_whole(path) as temporary:
                FORMATS[suffix](self, temporary)
                if self.sound and suffix == ".mp4":
                    from text2video_zero.media.clips import mux_audio  # reading clips rests on this module

                    mux_audio(temporary, self.sound.clip, self.sound.start)
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


def save_or_keep_frames(video: Video, path: Path) -> Path:
    """Save the video; should that fail, keep its frames as a PNG zip, so that no computed clip is ever lost.

    Returns the path of the saved video. Raises UserError, which tells what went wrong and where the frames
    are: beside the path, or in the system's folder for temporary files if that one takes no files either.
    """
    try:
        return video.save(path)
    except UserError as error:
        for folder in (Path(path).parent, Path(tempfile.gettempdir())):
            try:
                kept = video.save(unique_path(folder, Path(path).stem, ".zip"))
            except UserError:
                continue
            raise UserError(f"{error} The frames are kept in {kept}.") from error
        raise


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


def unique_path(directory: Path, stem: str, suffix: str) -> Path:
    """Return a path for a new file: a readable name, the local time, and a token that nobody can guess.

    stem: any text, for example the prompt.  suffix: with its dot.  Nothing is written.
    """
    while True:
        moment = time.strftime("%Y%m%d-%H%M%S")
        path = Path(directory) / f"{slug(stem)}-{moment}-{secrets.token_hex(8)}{suffix}"
        if not path.exists():
            return path


def slug(prompt: str) -> str:
    """Letters and digits of any script, joined by hyphens, at most 40 characters; "video" if there are none."""
    words = "-".join(re.findall(r"[^\W_]+", prompt.lower()))
    return words[:SLUG_LENGTH].strip("-") or "video"


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
        raise UserError(f"The video encoder gives back other pictures than it was given: {_FFMPEG_REMEDY}.")


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings that `Video.save` wrote into an .mp4, .gif or .zip, or that a .json file holds.

    Raises UserError when the file is missing, of another kind, or carries no settings. Files of strangers
    are safe to read: no more than 1 MiB of text is taken from them and nothing they point to is opened.
    """
    path = Path(path)
    read = _SETTINGS_READERS.get(path.suffix.lower())
    if read is None:
        raise UserError(f"{path.name} cannot hold settings: choose a file that ends in {_listed(_SETTINGS_READERS)}.")
    if not path.is_file():
        raise UserError(f"There is no file {path}: check the name.")
    try:
        settings = json.loads(_limited(read(path)) or "null")
    # Whatever a damaged or foreign file does to its reader, its owner is told the same thing.
    except (OSError, ValueError, KeyError, SyntaxError, RecursionError, zipfile.BadZipFile) as error:
        raise UserError(f"{path.name} cannot be read as settings ({error}): choose a video of this app.") from error
    if not isinstance(settings, dict) or not settings:
        raise UserError(f"{path.name} carries no settings: choose a video that this app has saved with them.")
    return settings


def _known_suffix(path: Path) -> str:
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{path.name} does not say which kind of video it is: end it in {_listed(FORMATS)}.")
    return path.suffix.lower()


def _listed(suffixes: Sequence[str]) -> str:
    *others, last = suffixes
    return f"{', '.join(others)} or {last}"


@contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into a UserError with its remedy."""
    try:
        yield
    except OSError as error:
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                remedy = "the disk is full: free some space or write elsewhere"
            case errno.EACCES | errno.EPERM | errno.EROFS:
                remedy = "permission is denied: write to a folder of your own"
            case errno.ENOTDIR | errno.EEXIST:
                remedy = "a part of its path is a file and no folder: write elsewhere"
            case errno.EISDIR:
                remedy = "it is a folder: name a file in it"
            case _:
                remedy = f"{error.strerror or error}: write elsewhere"
        raise UserError(f"{path} cannot be written, {remedy}.") from error


@contextmanager
def renamed_when_whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` at the end, or remove it after an error."""
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix.lower()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


_FFMPEG_REMEDY = "install imageio-ffmpeg again, or set IMAGEIO_FFMPEG_EXE to an ffmpeg that has libx264"


def run_ffmpeg(arguments: list[str], stdin: Iterable[np.ndarray] = ()) -> bytes:
    """Run ffmpeg and return its standard output.

    stdin: pictures that it reads, handed over one after the other; with them it must write to a file.
    imageio_ffmpeg's own writer is not used: it neither looks at ffmpeg's exit status nor keeps its message.
    Raises OSError for a full disk or a missing permission, UserError for everything else that fails.
    """
    with tempfile.TemporaryFile() as complaints:
        try:
            command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-v", "error", *arguments]
            ffmpeg = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints
            )
        except (RuntimeError, OSError) as error:
            raise UserError(f"The video encoder ffmpeg cannot be started ({error}): {_FFMPEG_REMEDY}.") from error
        with ffmpeg:
            try:
                # It closes its end when it fails, and tells then why.
                with suppress(BrokenPipeError):
                    for picture in stdin:
                        ffmpeg.stdin.write(memoryview(np.ascontiguousarray(picture)).cast("B"))
                output, _ = ffmpeg.communicate()
            finally:
                ffmpeg.kill()
        complaints.seek(0)
        _raise_failure(ffmpeg.returncode, complaints.read().decode(errors="replace").strip())
    return output


def _raise_failure(status: int, message: str) -> None:
    """Raise what an exit status of ffmpeg other than 0 stands for, by what it wrote before."""
    if status:
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            if os.strerror(number) in message:
                raise OSError(number, os.strerror(number))
        reason = message.splitlines()[-1] if message else f"it stopped with status {status}"
        raise UserError(f"The video encoder ffmpeg failed ({reason}): {_FFMPEG_REMEDY}.")


def _write_mp4(video: Video, path: Path) -> None:
    """H.264 in yuv420p with the index in front: what every browser and phone plays while it loads."""
    height, width = (side + side % 2 for side in video.frames.shape[1:3])
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(video.fps), "-i", "-"]
    codec = ["-vf", BT709, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "16", "-movflags", "+faststart"]
    # A file and not an argument: the system limits the length of an argument, nobody that of a prompt.
    with tempfile.TemporaryDirectory() as folder:
        tags = Path(folder) / "tags.txt"
        tags.write_bytes(b";FFMETADATA1\ncomment=" + _escaped(_compact_json(video.settings)) + b"\n")
        tagged = ["-f", "ffmetadata", "-i", str(tags), "-map", "0:v", "-map_metadata", "1"]
        run_ffmpeg([*source, *tagged, *codec, str(path)], stdin=map(_even_sides, video.frames))


def _even_sides(frame: np.ndarray) -> np.ndarray:
    """Repeat the last row and column of an odd-sized frame, because yuv420p halves both sides of the colours."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _write_gif(video: Video, path: Path) -> None:
    """An endless GIF with one palette for all frames, which flickers less than a palette for each.

    GIF counts time in hundredths of a second: single frames are rounded so that the whole keeps its length.
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
        comment=_compact_json(video.settings),
    )


def _write_zip(video: Video, path: Path) -> None:
    """PNG frames and settings.json; not compressed again, because PNG is."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (*_png_files(video.frames), ("settings.json", _compact_json(video.settings))):
            member = zipfile.ZipInfo(name)  # without the time of day, so that the same video is the same file
            member.external_attr = 0o644 << 16
            archive.writestr(member, content)


FORMATS: dict[str, Callable[[Video, Path], None]] = {".mp4": _write_mp4, ".gif": _write_gif, ".zip": _write_zip}


def _png_files(frames: Frames) -> Iterator[tuple[str, bytes]]:
    for index, frame in enumerate(frames):
        png = io.BytesIO()
        Image.fromarray(frame).save(png, "PNG")
        yield f"frame_{index:04d}.png", png.getvalue()


def _compact_json(settings: dict[str, Any]) -> bytes:
    """JSON in UTF-8, without line breaks. A lone surrogate, which UTF-8 cannot hold, becomes its JSON escape."""
    return json.dumps(settings, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace")


def _escaped(value: bytes) -> bytes:
    """Write a value in ffmpeg's metadata format; `_unescaped` reads it."""
    return re.sub(rb"([=;#\\\n])", rb"\\\1", value)


def _unescaped(value: bytes) -> bytes:
    return re.sub(rb"\\(.)", rb"\1", value, flags=re.DOTALL)


def _mp4_settings(path: Path) -> bytes:
    """Return the comment of an MP4, empty if it has none.

    The demuxer is named because ffmpeg would otherwise take a play list for a video and open what it lists.
    """
    source = ["-f", "mov", "-protocol_whitelist", "file", "-i", f"file:{path.resolve()}"]
    try:
        tags = run_ffmpeg([*source, "-f", "ffmetadata", "-"])
    except UserError as error:
        raise ValueError(str(error)) from error
    comment = re.search(rb"^comment=((?:[^\\\n]|\\.)*)$", tags, re.MULTILINE | re.DOTALL)
    return _unescaped(comment[1]) if comment else b""


def _gif_settings(path: Path) -> bytes:
    with Image.open(path, formats=["GIF"]) as picture:
        return picture.info.get("comment", b"")


def _zip_settings(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive, archive.open("settings.json") as member:
        return member.read(SETTINGS_LIMIT + 1)


def _json_settings(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SETTINGS_LIMIT + 1)


def _limited(text: bytes) -> bytes:
    if len(text) > SETTINGS_LIMIT:
        raise ValueError("it is larger than settings ever are")
    return text


_SETTINGS_READERS: dict[str, Callable[[Path], bytes]] = {
    ".mp4": _mp4_settings,
    ".gif": _gif_settings,
    ".zip": _zip_settings,
    ".json": _json_settings,
}

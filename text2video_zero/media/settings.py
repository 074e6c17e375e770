"""Settings in their files: how they are written into a video, and read from one whoever made it."""

from __future__ import annotations

import json
import lzma
import re
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from text2video_zero.errors import UserError
from text2video_zero.media.clip_reader import LIMITS
from text2video_zero.media.ffmpeg import run_ffmpeg
from text2video_zero.media.files import listed

if TYPE_CHECKING:
    from collections.abc import Callable

# Whatever a damaged or foreign file does to its reader. RuntimeError: zipfile raises it, or one derived from it, for
# members that are locked or packed by a method that it does not know.
UNREADABLE = (
    *(OSError, ValueError, KeyError, SyntaxError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
LARGEST_INDEX = 1 << 28  # bytes that ffmpeg takes at once; an hour of video needs a hundredth
SETTINGS_LIMIT = 1 << 20  # bytes of settings that are read from a file; nobody's prompt is longer


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings that `Video.save` wrote into an .mp4, .webm, .gif or .zip, or that a .json file holds.

    Raises UserError when the file is missing, of another kind, or carries no settings. Files of strangers
    are safe to read: no more than 1 MiB of text is taken from them and nothing they point to is opened.
    """
    path = Path(path)
    read = _SETTINGS_READERS.get(path.suffix.lower())
    if read is None:
        raise UserError(f"{path.name} cannot hold settings: choose a file that ends in {listed(_SETTINGS_READERS)}.")
    if not path.is_file():
        raise UserError(f"There is no file {path}: check the name.")
    try:
        settings = json.loads(_limited(read(path)) or "null")
    except UNREADABLE as error:
        raise UserError(f"{path.name} cannot be read as settings ({error}): choose a video of this app.") from error
    if not isinstance(settings, dict) or not settings:
        raise UserError(f"{path.name} carries no settings: choose a video that this app has saved with them.")
    return settings


def as_json(settings: dict[str, Any]) -> bytes:
    """JSON in UTF-8, without line breaks. A lone surrogate, which UTF-8 cannot hold, becomes its JSON escape."""
    return json.dumps(settings, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace")


def as_tags(settings: dict[str, Any]) -> bytes:
    """A file of tags in ffmpeg's metadata format, whose comment is the settings."""
    return b";FFMETADATA1\ncomment=" + _escaped(as_json(settings)) + b"\n"


def _escaped(value: bytes) -> bytes:
    """Write a value in ffmpeg's metadata format; `_unescaped` reads it."""
    return re.sub(rb"([=;#\\\n])", rb"\\\1", value)


def _unescaped(value: bytes) -> bytes:
    return re.sub(rb"\\(.)", rb"\1", value, flags=re.DOTALL)


def _tagged_settings(path: Path, demuxer: str) -> bytes:
    """Return the comment of a video, empty if it has none.

    The demuxer is named because ffmpeg would otherwise take a play list for a video and open what it lists.
    """
    source = [
        "-max_alloc",
        str(LARGEST_INDEX),
        "-f",
        demuxer,
        "-protocol_whitelist",
        "file",
        "-i",
        f"file:{path.resolve()}",
    ]
    try:
        tags = run_ffmpeg([*source, "-f", "ffmetadata", "-"], seconds=LIMITS.seconds)
    except UserError as error:
        raise ValueError(str(error)) from error
    # Matroska shouts the names of its tags.
    comment = re.search(rb"^comment=((?:[^\\\n]|\\.)*)$", tags, re.MULTILINE | re.DOTALL | re.IGNORECASE)
    return _unescaped(comment[1]) if comment else b""


def _gif_settings(path: Path) -> bytes:
    from PIL import Image  # late: every mistake in the options comes by here

    try:
        with Image.open(path, formats=["GIF"]) as picture:
            return picture.info.get("comment", b"")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError("it is larger than any video of this app") from error


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
    ".mp4": partial(_tagged_settings, demuxer="mov"),
    ".gif": _gif_settings,
    ".webm": partial(_tagged_settings, demuxer="matroska"),
    ".zip": _zip_settings,
    ".json": _json_settings,
}

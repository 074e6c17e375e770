"""What passes through the wall: limits go in, what a clip holds comes out, both as plain values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMATS_TO_GIVE = "an MP4, MOV, WebM, MKV, AVI or GIF, a picture, or a folder or zip of pictures"
# No play lists, no lists of files: a stranger's clip must not make ffmpeg open something else.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,h264,hevc,m4v,flv,asf,ogg,mxf,nut,ivf,dv,"
    "yuv4mpegpipe"
)
# What stands in a folder or zip beside pictures without anybody having put it there.
UNREMARKABLE = frozenset({"thumbs.db", "desktop.ini", "settings.json"})
PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"}
)


@dataclass(frozen=True)
class Limits:
    """How much a file may ask for before it is refused.

    pixels: of one picture; 64 megapixels are more than a camera takes and less than what fills the memory.
    memory: bytes of address space of the process, where the system keeps such a limit (Linux).
    seconds: between two signs of life: until the clip is open, and from picture to picture.
    packets: read for one request; an hour of film at 60 frames per second has half as many.
    listed, listed_bytes: packets, and bytes of them, that are looked at to learn a clip's times. A longer clip is
        judged by its beginning and its header, so that opening takes the same time whatever its length.
    member: bytes of one unpacked picture of a zip; a zip bomb is larger.
    """

    pixels: int = 1 << 26
    memory: int = 2 << 30
    seconds: float = 60.0
    packets: int = 500_000
    listed: int = 2_000
    listed_bytes: int = 64 << 20
    member: int = 256 << 20

    def check_size(self, width: int, height: int) -> None:
        """Raise ValueError for a picture that would fill the memory."""
        if width * height > self.pixels:
            raise ValueError(f"it has {width}x{height} pixels, more than {self.pixels >> 20} megapixels")


@dataclass(frozen=True)
class Facts:
    """What a clip holds.

    frames: how many there are.  fps: frames per second, on average where they vary; 8 for pictures.
    width, height: as shown, turned upright and with square pixels.
    start: seconds from where the file begins to where its pictures do.  duration: seconds of its pictures.
    timeless: pictures that know no time, one frame each whatever the speed.
    rotation: degrees by which the file asks to be turned.  variable_rate: some frames stay longer than others.
    transparent: it may have transparent parts, which are read as black.
    estimated: the clip was too long to be looked through, so frames and duration are what its header says.
    remarks: what is done to its pictures, or was left out, that a person wants to know; in words.
    """

    frames: int
    fps: float
    width: int
    height: int
    duration: float
    start: float = 0.0
    timeless: bool = False
    has_audio: bool = False
    rotation: float = 0.0
    variable_rate: bool = False
    transparent: bool = False
    estimated: bool = False
    remarks: tuple[str, ...] = ()


def pictures_among(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The pictures among names, in the order of the numbers in them, and what else there is that is worth telling.

    Hidden files are what operating systems leave beside pictures; names that end in a slash are folders in a zip.
    """
    pictures: list[str] = []
    others: list[str] = []
    for name in names:
        base = name.rsplit("/", 1)[-1]
        if not base or base.startswith(".") or base.lower() in UNREMARKABLE:
            continue
        suffix = base[base.rfind(".") :].lower()
        (pictures if suffix in PICTURE_SUFFIXES else others).append(name)
    return sorted(pictures, key=_by_numbers), sorted(others, key=_by_numbers)


def _by_numbers(name: str) -> list[tuple[int, str]]:
    """Frame 10 comes after frame 9, however many zeros are written in front."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]

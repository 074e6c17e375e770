"""Clips that come as pictures (Pillow): a still, the pages of one, a folder or a zip of pictures, a moving picture."""

from __future__ import annotations

import math
import zipfile
from contextlib import contextmanager
from itertools import count
from typing import IO, TYPE_CHECKING

import pillow_heif
from PIL import AvifImagePlugin, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from text2video_zero.errors import UserError
from text2video_zero.media.decoding.facts import Facts, pictures_among
from text2video_zero.media.decoding.fitting import fitted, in_srgb, plain
from text2video_zero.media.decoding.moments import chosen, moments, own_rate, varies

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from text2video_zero.media.decoding.facts import Limits

# Formats that Pillow may look for: no scripts (EPS), nothing that names other files.
KINDS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "HEIF")
MOVING = frozenset({"PNG", "WEBP", "GIF", "AVIF"})  # where several pictures are an animation
PICTURE_FPS = 8.0  # pictures know no time; this is the speed at which they are played unless another is asked for
SHORTEST = 0.02  # seconds; browsers show what is to stay for less than that ...
PATIENT = 0.1  # ... for a tenth of a second
NAMED = 3  # files that are left out and told by name
ORIENTATION = 0x0112  # EXIF: from 5 on a picture lies on its side

# Pillow knows the formats whose modules are imported; without these it would import all that there are to look for one.
EXTRA_PLUGINS = (AvifImagePlugin, TiffImagePlugin, WebPImagePlugin)
pillow_heif.register_heif_opener()
Image.MAX_IMAGE_PIXELS = None  # `Limits.pixels` is asked instead, of every picture before it is decoded


class Pictures:
    """Pictures without times: a still, the pages of a TIFF, or those of a folder or a zip.

    names: what they are called in the folder or the zip; empty for a file.  left_out: what else is there.
    pages: how many a file has.
    """

    def __init__(
        self, path: Path, limits: Limits, names: Sequence[str] = (), left_out: Sequence[str] = (), pages: int = 1
    ) -> None:
        self._path, self._limits, self._names, self._pages = path, limits, names, pages
        self.packets = 0
        self.facts = self._facts(left_out)

    def pictures(self, numbers: Sequence[int], rate: float, target: tuple[int, int]) -> Iterator[Image.Image]:
        """Pictures by their numbers, RGB of the target's size. Raises UserError for one that cannot be read."""
        del rate  # one picture is one frame
        for number in numbers:
            with self._opened(number) as picture:
                upright = ImageOps.exif_transpose(picture)
                yield in_srgb(fitted(plain(upright), target), picture.info.get("icc_profile"))

    def _facts(self, left_out: Sequence[str]) -> Facts:
        """What there is, judged by the first picture, which is not decoded yet."""
        with self._opened(0) as picture:
            lies = picture.getexif().get(ORIENTATION, 1) >= 5
            width, height = reversed(picture.size) if lies else picture.size
            transparent = picture.has_transparency_data
        frames = len(self._names) or self._pages
        return Facts(
            *(frames, PICTURE_FPS, width, height, frames / PICTURE_FPS),
            timeless=True,
            transparent=transparent,
            remarks=(f"left out, as no picture: {_few(left_out)}",) if left_out else (),
        )

    @contextmanager
    def _opened(self, number: int) -> Generator[Image.Image]:
        name = self._names[number] if self._names else self._path.name
        try:
            with self._file(number) as file, Image.open(file, formats=KINDS) as picture:
                if self._pages > 1:
                    picture.seek(number)
                self._limits.check_size(*picture.size)
                yield picture
        except Exception as error:  # whatever the libraries behind this make of a damaged file
            raise UserError(
                f"The picture {name} cannot be read ({reason(error)}): save it again or leave it out."
            ) from error

    @contextmanager
    def _file(self, number: int) -> Generator[IO[bytes]]:
        if not self._names or self._path.is_dir():
            with (self._path / self._names[number] if self._names else self._path).open("rb") as file:
                yield file
        else:
            with zipfile.ZipFile(self._path) as archive:
                if archive.getinfo(self._names[number]).file_size > self._limits.member:
                    raise ValueError(f"it is larger than {self._limits.member >> 20} MB")
                with archive.open(self._names[number]) as file:
                    yield file


class MovingPicture:
    """A GIF, WebP, APNG or AVIF with several pictures and their times.

    Its pictures are decoded once to learn the times, which not every format tells before; those behind the first one
    that is damaged, or behind the limit, are left out.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path, self._limits = path, limits
        self.packets = 0
        with self._opened() as picture:
            # The still that stands for an APNG where it is not animated is its picture 0, and no part of it.
            self._first = 1 if picture.info.get("default_image") else 0
            transparent = picture.has_transparency_data
            width, height = picture.size
            self._times, damage = self._looked_through(picture)
        frames, end = len(self._times) - 1, self._times[-1]
        self.facts = Facts(
            *(frames, frames / end, width, height, end),
            variable_rate=varies(self._times),
            transparent=transparent,
            remarks=(damage,) if damage else (),
        )

    def pictures(self, numbers: Sequence[int], rate: float, target: tuple[int, int]) -> Iterator[Image.Image]:
        """Pictures, RGB of the target's size, that are seen at the moments number / rate."""
        starts = self._times[:-1]
        if own_rate(self.facts, rate):
            starts = [number / rate for number in range(len(starts))]
        with self._opened() as picture:
            for number in chosen(zip(starts, count(self._first)), moments(numbers, rate), math.inf):
                picture.seek(number)
                yield in_srgb(fitted(plain(picture), target), picture.info.get("icc_profile"))

    def _looked_through(self, picture: Image.Image) -> tuple[list[float], str]:
        """Times at which pictures appear, then the end, in seconds from the first one; and what is damaged."""
        times = [0.0]
        behind, pages = self._first + self._limits.listed, getattr(picture, "n_frames", 1)
        for number in range(self._first, min(pages, behind)):
            try:
                picture.seek(number)
                picture.load()
            except (
                Exception
            ):  # whatever the library makes of a damaged picture: it ends the clip, unless it is the first
                if number == self._first:
                    raise
                return times, f"it is damaged behind frame {len(times) - 2}"
            stays = picture.info.get("duration", 0) / 1000
            times.append(times[-1] + (stays if stays >= SHORTEST else PATIENT))
        return times, f"only its first {self._limits.listed} frames are used" if pages > behind else ""

    @contextmanager
    def _opened(self) -> Generator[Image.Image]:
        with Image.open(self._path, formats=KINDS) as picture:
            self._limits.check_size(*picture.size)
            yield picture


def open_pictures(path: Path, limits: Limits) -> Pictures | MovingPicture | None:
    """The pictures in a folder, a zip or a file; None for a file of another kind.

    Raises UserError for a folder or zip without pictures and for what cannot be read.
    """
    if path.is_dir():
        return _named(path, limits, [entry.name for entry in path.iterdir() if entry.is_file()])
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except Exception as error:
            raise UserError(
                f"The zip {path.name} cannot be opened ({reason(error)}): pack the pictures again."
            ) from error
        return _named(path, limits, names)
    try:
        with Image.open(path, formats=KINDS) as picture:
            pages, kind = getattr(picture, "n_frames", 1), picture.format
    except UnidentifiedImageError:
        return None
    if kind in MOVING and pages > 1:
        return MovingPicture(path, limits)
    return Pictures(path, limits, pages=pages if kind == "TIFF" else 1)


def _named(path: Path, limits: Limits, names: list[str]) -> Pictures:
    pictures, others = pictures_among(names)
    if not pictures:
        kind = "folder" if path.is_dir() else "zip"
        raise UserError(f"The {kind} {path.name} holds no pictures: put PNG or JPEG frames into it.")
    return Pictures(path, limits, pictures, left_out=others)


def _few(names: Sequence[str]) -> str:
    """The first names, fit to be shown, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]).encode(errors="replace").decode() + more


def reason(error: Exception) -> str:
    """Why a picture or zip cannot be read, in a few words on one line."""
    if isinstance(error, UnidentifiedImageError):
        return "it is damaged or of another kind"
    if isinstance(error, MemoryError):
        return "it needs too much memory"
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)  # without the file's path
    return next(iter(told.splitlines()), "") or "it is damaged"

"""Clips that come as pictures: one still, a folder of them, or a zip of them, opened one at a time."""

from __future__ import annotations

import re
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from text2video_zero.errors import UserError
from text2video_zero.requests.fields import Size

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
KINDS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
# Whatever a damaged or foreign file does to its reader, its owner is told the same thing.
DAMAGES = (OSError, ValueError, SyntaxError, RuntimeError, zipfile.BadZipFile, zlib.error, Image.DecompressionBombError)
MEMBER_LIMIT = 256 << 20  # bytes of one unpacked picture; a zip bomb is larger


@dataclass(frozen=True)
class PictureSequence:
    """Pictures in the order of the numbers in their names.

    path: the still, the folder or the zip.  names: what they are called in the folder or the zip; empty for a still.
    """

    path: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return max(1, len(self.names))

    @property
    def size(self) -> Size:
        """Size of the first picture, turned upright as its camera says."""
        with self._opened(0) as picture:
            return Size(*ImageOps.exif_transpose(picture).size)

    def picture(self, index: int, placement: Callable[[Size], tuple[Size, Size]]) -> np.ndarray:
        """One picture, (h, w, 3) uint8 RGB; transparent parts are black.

        placement: from the picture's size to the size that it is scaled to and the size cut out of its middle.
        Raises UserError when it cannot be read.
        """
        with self._opened(index) as picture:
            upright = _on_black(ImageOps.exif_transpose(picture))
            scaled, cropped = placement(Size(*upright.size))
            left, top = (scaled.width - cropped.width) // 2, (scaled.height - cropped.height) // 2
            resized = upright.resize(scaled, Image.Resampling.BICUBIC)
            return np.asarray(resized.crop((left, top, left + cropped.width, top + cropped.height)))

    @contextmanager
    def _opened(self, index: int) -> Generator[Image.Image]:
        name = self.names[index] if self.names else self.path.name
        try:
            with self._file(index) as file, Image.open(file, formats=KINDS) as picture:
                yield picture
        except (
            OSError,
            ValueError,
            SyntaxError,
            RuntimeError,
            zipfile.BadZipFile,
            Image.DecompressionBombError,
        ) as error:
            reason = "it is damaged or of another kind" if isinstance(error, UnidentifiedImageError) else error
            raise UserError(f"The picture {name} cannot be read ({reason}): save it again or leave it out.") from error

    @contextmanager
    def _file(self, index: int) -> Generator[IO[bytes]]:
        if not self.names:
            with self.path.open("rb") as file:
                yield file
        elif self.path.is_dir():
            with (self.path / self.names[index]).open("rb") as file:
                yield file
        else:
            with zipfile.ZipFile(self.path) as archive:
                if archive.getinfo(self.names[index]).file_size > MEMBER_LIMIT:
                    raise ValueError(f"it is larger than {MEMBER_LIMIT >> 20} MB")
                with archive.open(self.names[index]) as file:
                    yield file


def open_pictures(path: Path) -> PictureSequence | None:
    """The pictures in a folder, a zip or a file; None for a file of another kind, animated pictures among them.

    Raises UserError for a folder or zip without pictures and for a broken zip.
    """
    if path.is_dir():
        return _named(path, [entry.name for entry in path.iterdir() if entry.is_file()])
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                return _named(path, archive.namelist())
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"The zip {path.name} cannot be opened ({error}): pack the pictures again.") from error
    try:
        with Image.open(path, formats=KINDS) as picture:
            animated = getattr(picture, "n_frames", 1) > 1
    except DAMAGES:
        return None
    return None if animated else PictureSequence(path, ())


def _named(path: Path, names: list[str]) -> PictureSequence:
    pictures = [name for name in names if _looks_like_a_picture(name)]
    if not pictures:
        kind = "folder" if path.is_dir() else "zip"
        raise UserError(f"The {kind} {path.name} holds no pictures: put PNG or JPEG frames into it.")
    return PictureSequence(path, tuple(sorted(pictures, key=_by_numbers)))


def _looks_like_a_picture(name: str) -> bool:
    """Hidden files are what operating systems leave beside pictures."""
    base = name.rsplit("/", 1)[-1]
    return not base.startswith(".") and base[base.rfind(".") :].lower() in SUFFIXES


def _by_numbers(name: str) -> list[tuple[int, str]]:
    """Frame 10 comes after frame 9, however many zeros are written in front."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _on_black(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits of grey, as depth maps come; Pillow's conversion would clip them
        return Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).astype(np.uint8)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    with_alpha = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", with_alpha.size, "black"), with_alpha).convert("RGB")

"""Frames on disk: what a long clip would fill the memory with lies in a temporary file, and is read when looked at."""

from __future__ import annotations

import math
import operator
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self, overload

import numpy as np


class StoredFrames(Sequence[np.ndarray]):
    """Pictures of one shape, in a temporary file; looks like a read-only array (f, *shape) to those who read it.

    One picture, a slice, or by iteration one after the other is in memory at a time; `np.asarray` reads all of them.
    The file has no name: it is gone when nobody holds the frames any longer, and at the latest when the program ends,
    however it ends. Set TMPDIR where the system's folder for temporary files is itself in memory.

    Pickling writes all pictures out, for another process to put them into a file of its own.

    shape: of one picture, (h, w, 3) for frames.  dtype: of its numbers.
    """

    def __init__(self, shape: Sequence[int], dtype: np.dtype | type = np.uint8) -> None:
        self.dtype = np.dtype(dtype)
        self._picture = tuple(int(side) for side in shape)
        self._bytes = math.prod(self._picture) * self.dtype.itemsize
        self._count = 0
        self._file = tempfile.TemporaryFile(buffering=0, prefix="text2video-zero-")  # noqa: SIM115 - closed with self
        weakref.finalize(self, self._file.close)

    @classmethod
    def of(cls, pictures: Iterable[np.ndarray]) -> Self:
        """Store pictures one after the other, at least one. Raises OSError as `append` does."""
        stored: Self | None = None
        for picture in pictures:
            if stored is None:
                stored = cls(picture.shape, picture.dtype)
            stored.append(picture)
        if stored is None:
            raise ValueError("there must be at least one picture")
        return stored

    def append(self, picture: np.ndarray) -> None:
        """Store one more picture. Raises OSError when the disk is full, ValueError for one of another kind."""
        if picture.shape != self._picture or picture.dtype != self.dtype:
            raise ValueError(f"pictures must be {self.dtype} {self._picture}, not {picture.dtype} {picture.shape}")
        self._file.seek(self._count * self._bytes)
        rest = np.ascontiguousarray(picture).data.cast("B")
        while rest:
            rest = rest[self._file.write(rest) :]
        self._count += 1

    @property
    def shape(self) -> tuple[int, ...]:
        """(f, *shape of a picture)."""
        return self._count, *self._picture

    @property
    def ndim(self) -> int:
        """Number of axes, 4 for frames."""
        return len(self.shape)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> np.ndarray: ...

    # An array is a sequence in all but its class.
    def __getitem__(self, index: int | slice) -> np.ndarray:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A picture, or a slice (m, *shape) of them, as an array of its own."""
        if isinstance(index, slice):
            chosen = range(self._count)[index]
            pictures = np.empty((len(chosen), *self._picture), self.dtype)
            for place, number in zip(pictures, chosen, strict=True):
                self._read(number, place)
            return pictures
        picture = np.empty(self._picture, self.dtype)
        self._read(range(self._count)[operator.index(index)], picture)
        return picture

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[number] for number in range(self._count))

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:  # noqa: FBT001
        if copy is False:
            raise ValueError("frames on disk have no array that could be shared: they must be copied")
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getstate__(self) -> tuple[tuple[int, ...], str, bytes]:
        return self._picture, self.dtype.str, self[:].tobytes()

    def __setstate__(self, state: tuple[tuple[int, ...], str, bytes]) -> None:
        shape, dtype, pictures = state
        self.__init__(shape, np.dtype(dtype))
        for picture in np.frombuffer(pictures, self.dtype).reshape(-1, *self._picture):
            self.append(picture)

    def close(self) -> None:
        """Remove the file now, whoever still holds the frames."""
        self._file.close()

    def _read(self, number: int, picture: np.ndarray) -> None:
        self._file.seek(number * self._bytes)
        rest = picture.data.cast("B")
        while rest:
            rest = rest[self._file.readinto(rest) :]


# A clip, control maps or a result: in memory or on disk, read alike by `len`, iteration, [number] and [begin:end].
Frames = np.ndarray | StoredFrames


def spool_folder() -> Path:
    """Where stored frames lie, to be named when it is full."""
    return Path(tempfile.gettempdir())

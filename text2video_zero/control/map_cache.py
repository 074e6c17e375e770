"""A store of control maps on disk, so that looking at them and then sampling detects only once."""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from text2video_zero.media.files import renamed_when_whole
from text2video_zero.media.frames import StoredFrames

if TYPE_CHECKING:
    from collections.abc import Mapping

    from text2video_zero.media.frames import Frames
    from text2video_zero.requests.fields import Size

DRAWING = 1  # to be raised when the same settings draw other maps than before
DEFAULT_LIMIT = 2 << 30


@dataclass(frozen=True)
class MapKey:
    """All that control maps depend on.

    file: hash of the clip (`clips.file_hash`).
    detector: by the name that is shown.  settings: what was chosen of it, in JSON types.
    size, fps, first_frame, frames: the part of the clip and how it was read.
    """

    file: str
    detector: str
    settings: Mapping[str, Any]
    size: Size
    fps: float
    first_frame: int
    frames: int

    @property
    def digest(self) -> str:
        """A file name for the maps, hexadecimal."""
        values = asdict(self) | {"settings": dict(self.settings), "drawing": DRAWING}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class MapCache:
    """Control maps by key, in a folder of its own that is bounded in size; the longest unused ones go first.

    directory: made when needed.  limit: bytes.
    Several programs may share a folder. A disk that is full or read-only costs the memory, never the run.
    """

    def __init__(self, directory: Path, limit: int = DEFAULT_LIMIT) -> None:
        self.directory = Path(directory)
        self.limit = limit

    def get(self, key: MapKey) -> StoredFrames | None:
        """Maps (f, h, w, 3) uint8, or None when they are not there or damaged."""
        path = self._path(key)
        try:
            maps = _read(path)
            os.utime(path)  # used just now
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            self._remove(path)
            return None
        return maps

    def put(self, key: MapKey, maps: Frames) -> None:
        """Keep maps (f, h, w, 3) uint8, and let go of old ones until the folder is within its limit."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with renamed_when_whole(self._path(key)) as temporary:
                _write(temporary, maps)
            self._shrink()
        except OSError:
            return

    def _path(self, key: MapKey) -> Path:
        return self.directory / f"{key.digest}.npz"

    def _shrink(self) -> None:
        """Remove the longest unused files; another program may be doing the same."""
        files = []
        for path in self.directory.glob("[0-9a-f]*.npz"):
            try:
                files.append((path.stat().st_mtime_ns, path.stat().st_size, path))
            except FileNotFoundError:
                continue
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.limit:
                return
            self._remove(path)
            total -= size

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return


MEMBER = "maps.npy"  # NumPy's own format, which `np.load` reads too


def _write(path: Path, maps: Frames) -> None:
    """Write maps as `np.savez_compressed` does, one at a time."""
    header = {"descr": "|u1", "fortran_order": False, "shape": tuple(maps.shape)}
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(MEMBER, "w", force_zip64=True) as member,
    ):
        npy.write_array_header_1_0(member, header)
        for picture in maps:
            member.write(np.ascontiguousarray(picture).tobytes())


def _read(path: Path) -> StoredFrames:
    """Read what `_write` has written, one map at a time; raises ValueError for anything else."""
    with zipfile.ZipFile(path) as archive, archive.open(MEMBER) as member:
        npy.read_magic(member)
        (count, *picture), _, dtype = npy.read_array_header_1_0(member)
        maps = StoredFrames(picture, dtype)
        for _ in range(count):
            content = member.read(dtype.itemsize * math.prod(picture))
            maps.append(np.frombuffer(content, dtype).reshape(picture))
    return maps

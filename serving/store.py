"""Where finished videos lie, and which of them may be removed again."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from text2video_zero.events import ControlMaps
from text2video_zero.media.files import unique_path
from text2video_zero.media.video import FramesKeptError, Video, save_or_keep_frames

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from text2video_zero.events import ClipFrames
    from text2video_zero.requests import VideoRequest

FORMS = {".mp4": "MP4", ".gif": "GIF", ".zip": "PNG frames"}
RECORDS = ".text2video-zero"
"""The folder, inside that of the videos, with a record of each file that may be removed one day."""


@dataclass(frozen=True)
class Stored:
    """A finished video on disk.

    files: suffix -> path; grows from event to event until every form of the video is there.
    settings: how the video was made. In the files too, unless the store leaves them out.
    """

    files: dict[str, Path]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Guide:
    """A clip on disk that plays beside the video, at its size and speed: control maps, or what is to be changed."""

    path: Path


class VideoStore:
    """A folder of finished videos under unique names.

    A store that keeps videos for a while removes its own alone: those of which a store that did the same wrote a
    record, and which have not been touched since. Each file has a record of its own, so that stores of several
    programs can share a folder, and a record that is lost or damaged means that a file stays.
    """

    def __init__(self, folder: Path, *, keep_settings: bool = True, keep_seconds: float | None = None) -> None:
        """Make the folder if there is none.

        keep_settings: whether prompt and settings are written into the files.
        keep_seconds: age at which files are removed; None keeps them for good.
        """
        self.folder = folder
        self._keep_settings = keep_settings
        self._keep_seconds = keep_seconds
        self._records = folder / RECORDS
        folder.mkdir(parents=True, exist_ok=True)
        if keep_seconds is not None:
            self._records.mkdir(exist_ok=True)

    def save(self, request: VideoRequest, video: Video, forms: tuple[str, ...]) -> Iterator[Stored]:
        """Write a video in several forms, named by suffix, under one name that nobody can guess; yields after each."""
        self._remove_old()
        settings = video.settings
        if not self._keep_settings:
            video = dataclasses.replace(video, settings={})
        first, *others = forms
        try:
            path = save_or_keep_frames(video, unique_path(self.folder, request.task, first))
        except FramesKeptError as error:
            self._record(error.path)
            raise
        self._record(path)
        files = {first: path}
        yield Stored(dict(files), settings)
        for form in others:
            files[form] = video.save(path.with_suffix(form))
            self._record(files[form])
            yield Stored(dict(files), settings)

    def save_guide(self, request: VideoRequest, event: ControlMaps | ClipFrames) -> Guide:
        """Write what shapes the video under a name of its own that nobody can guess."""
        self._remove_old()
        kind = "control-map" if isinstance(event, ControlMaps) else "clip"
        path = unique_path(self.folder, f"{request.task}-{kind}", ".mp4")
        Video(event.frames, request.fps, {}).save(path)
        self._record(path)
        return Guide(path)

    def _record(self, path: Path) -> None:
        """Remember a file that was just written, if it is to be removed one day; what lies elsewhere is not."""
        if self._keep_seconds is not None and path.parent == self.folder:
            (self._records / path.name).write_text(_state(path), encoding="ascii")

    def _remove_old(self) -> None:
        if self._keep_seconds is None:
            return
        for record in self._records.iterdir():
            try:
                if time.time() - record.stat().st_mtime <= self._keep_seconds:
                    continue
                path = self.folder / record.name
                # Half a record, or one of a file that somebody has changed since, equals no file's state.
                if path.is_file() and record.read_bytes() == _state(path).encode("ascii"):
                    path.unlink()
                record.unlink()
            except OSError:
                continue  # another store of this folder was faster, or a player holds the file open


def _state(path: Path) -> str:
    """What tells a file from every other that may stand under its name: its inode, size and time of writing."""
    status = path.lstat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}\n"

"""Jobs: what is to be run, who may run it, and where the finished video is kept.

A runner turns a job into events. In this version the job lives as long as somebody iterates over it. Jobs and
events are plain values, so a worker in another process can own a job later behind the same `Runner.run`.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from text2video_zero.events import ClipFrames, ControlMaps, Finished, Progress
from text2video_zero.media.files import unique_path
from text2video_zero.media.video import Video, save_or_keep_frames

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from text2video_zero.events import Event
    from text2video_zero.models.checkpoints import Checkpoint
    from text2video_zero.requests import Request

FORMS = {".mp4": "MP4", ".gif": "GIF", ".zip": "PNG frames"}


def _unguessable() -> str:
    return secrets.token_hex(8)


@dataclass(frozen=True)
class Job:
    """One request for one model.

    maps_only: end with the control maps, before anything is sampled.
    id: names the job in the log and to its owner; it cannot be guessed.
    """

    request: Request
    checkpoint: Checkpoint
    maps_only: bool = False
    id: str = field(default_factory=_unguessable)


class Runner(Protocol):
    """Whoever runs jobs: this process, a pool of workers, a borrowed GPU."""

    @property
    def slots(self) -> int:
        """Jobs that may run at once."""

    def run(self, job: Job) -> Iterator[Event]:
        """Run a job; closing the iterator stops it within one step and frees its slot."""

    def describe_device(self) -> str:
        """The device that jobs run on, fit to be shown; blank while it is not known."""


@dataclass(frozen=True)
class Stored:
    """A finished video on disk.

    files: suffix -> path; grows from event to event until every form of the video is there.
    settings: how the video was made. In the files too, unless the store leaves them out.
    """

    job: Job
    files: dict[str, Path]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Guide:
    """A clip on disk that plays beside the video, at its size and speed: control maps, or what is to be changed."""

    path: Path


class VideoStore:
    """A folder of finished videos under unique names."""

    def __init__(self, folder: Path, *, keep_settings: bool = True, keep_seconds: float | None = None) -> None:
        """Make the folder if there is none.

        keep_settings: whether prompt and settings are written into the files.
        keep_seconds: age at which files are removed; None keeps them for good.
        """
        self.folder = folder
        self._keep_settings = keep_settings
        self._keep_seconds = keep_seconds
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, job: Job, video: Video, forms: tuple[str, ...]) -> Iterator[Stored]:
        """Write a video in several forms, named by suffix, under one name that nobody can guess; yields after each."""
        self._remove_old()
        settings = video.settings
        if not self._keep_settings:
            video = dataclasses.replace(video, settings={})
        first, *others = forms
        path = save_or_keep_frames(video, unique_path(self.folder, job.request.task, first))
        files = {first: path}
        yield Stored(job, dict(files), settings)
        for form in others:
            files[form] = video.save(path.with_suffix(form))
            yield Stored(job, dict(files), settings)

    def save_guide(self, job: Job, event: ControlMaps | ClipFrames) -> Guide:
        """Write what shapes the video under a name of its own that nobody can guess."""
        self._remove_old()
        kind = "control-map" if isinstance(event, ControlMaps) else "clip"
        path = unique_path(self.folder, f"{job.request.task}-{kind}", ".mp4")
        return Guide(Video(event.frames, job.request.fps, {}).save(path))

    def _remove_old(self) -> None:
        if self._keep_seconds is None:
            return
        for path in self.folder.iterdir():
            if path.suffix in FORMS and time.time() - path.stat().st_mtime > self._keep_seconds:
                path.unlink(missing_ok=True)


def complete(
    job: Job, runner: Runner, store: VideoStore, forms: tuple[str, ...] = tuple(FORMS), *, keep_guide: bool = True
) -> Iterator[Event | Guide | Stored]:
    """Run a job and keep what it makes. The runner is free for the next job before the video's files are written.

    keep_guide: write what shapes the video too, as soon as it is known.
    """
    video = None
    with closing(runner.run(job)) as events:
        for event in events:
            match event:
                case Finished():
                    video = event.video
                case ControlMaps() | ClipFrames():
                    if keep_guide:
                        yield store.save_guide(job, event)
                case _:
                    yield event
    if video is not None:
        yield Progress("Saving", 0, 1)
        yield from store.save(job, video, forms)

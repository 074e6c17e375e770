"""What a job is asked to be and how it stands, as plain values: who computes it, and the states it goes through."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, Self

from text2video_zero.errors import UserError
from text2video_zero.events import Event, Notice, Preview, Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from text2video_zero.job import Job

LOG = logging.getLogger(__name__)


class Runner(Protocol):
    """Whoever computes jobs: this process, a pool of workers, a borrowed GPU."""

    @property
    def slots(self) -> int:
        """Jobs that may run at once."""
        ...

    @property
    def kind(self) -> str:
        """What jobs are computed on, "cpu", "cuda" or "mps"; blank while it is not known."""
        ...

    def open(self) -> None:
        """Get ready, which may take a while; raises UserError where nothing could be computed."""
        ...

    def close(self) -> None:
        """Leave nothing behind; no job runs any more."""
        ...

    def run(self, job: Job) -> Generator[Event]:
        """Run a job; closing the iterator stops it within one step and frees its slot."""
        ...

    def describe_device(self) -> str:
        """The device that jobs run on, fit to be shown; blank while it is not known."""
        ...


@dataclass(frozen=True)
class Guide:
    """A clip on disk that plays beside the video, at its size and speed: control maps, or what is to be changed."""

    path: Path


@dataclass(frozen=True)
class Stored:
    """A finished video on disk.

    files: suffix -> path; grows from event to event until every form of the video is there.
    settings: how the video was made. In the files too, unless the store leaves them out.
    """

    files: Mapping[str, Path]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Refusal:
    """A UserError on its way from another process: who carries errors adds a traceback, or leaves the words out."""

    sentence: str


@dataclass(frozen=True)
class Queued:
    """The job waits for a worker."""


@dataclass(frozen=True)
class Running:
    """A worker has the job."""

    progress: Progress


@dataclass(frozen=True)
class Stopping:
    """Somebody has asked the job to stop, which it does after the chunk that is being computed."""


@dataclass(frozen=True)
class Done:
    """All is made that was asked for, in so many seconds, the wait not counted."""

    seconds: float


@dataclass(frozen=True)
class Failed:
    """The job came to no end, for a reason that the person is told in one sentence."""

    sentence: str


@dataclass(frozen=True)
class Stopped:
    """Somebody stopped the job."""


@dataclass(frozen=True)
class Interrupted:
    """The program ended before the job did; it can be gone on with, and comes out the same."""


State = Queued | Running | Stopping | Done | Failed | Stopped | Interrupted


@dataclass(frozen=True)
class Standing:
    """How a job stands, and what it has brought so far.

    A new one takes the place of the old with each event, so that whoever reads it needs no lock.

    preview: the latest.  notes: sentences that should stay readable.  guide: what plays beside the video.
    stored: the video, once it is on disk.
    """

    state: State = field(default_factory=Queued)
    preview: Preview | None = None
    notes: tuple[str, ...] = ()
    guide: Guide | None = None
    stored: Stored | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return not isinstance(self.state, Queued | Running | Stopping)

    def after(self, event: Event | Guide | Stored) -> Self:
        """How the job stands after one more event."""
        match event:
            case Progress():
                return replace(self, state=Running(event))
            case Preview():
                return replace(self, preview=event)
            case Notice():
                return replace(self, notes=(*self.notes, event.text))
            case Guide():
                return replace(self, guide=event)
            case Stored():
                return replace(self, stored=event)
            case _:
                return self


def explained(error: Exception) -> str:
    """What the person is told: a UserError's own sentence; for a bug, that the log has the details."""
    if isinstance(error, UserError):
        return str(error)
    LOG.error("A run failed", exc_info=error)
    return "Something went wrong, the log has the details."

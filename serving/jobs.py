"""Who runs jobs, and what becomes of them.

A runner turns a job into events. In this version the job lives as long as somebody iterates over it. Jobs and
events are plain values, so a worker in another process can own a job later behind the same `Runner.run`.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Protocol

from serving.store import FORMS, Guide, Stored
from text2video_zero.events import ClipFrames, ControlMaps, Finished, Notice, Preview, Progress

if TYPE_CHECKING:
    from collections.abc import Generator

    from serving.store import VideoStore
    from text2video_zero.events import Event
    from text2video_zero.job import Job

# What a page or a program is told: of maps and videos that are kept, where they lie.
Shown = Progress | Preview | Notice | Guide | Stored


class Runner(Protocol):
    """Whoever runs jobs: this process, a pool of workers, a borrowed GPU."""

    @property
    def slots(self) -> int:
        """Jobs that may run at once."""
        ...

    def run(self, job: Job) -> Generator[Event]:
        """Run a job; closing the iterator stops it within one step and frees its slot."""
        ...

    def describe_device(self) -> str:
        """The device that jobs run on, fit to be shown; blank while it is not known."""
        ...


def complete(
    job: Job, runner: Runner, store: VideoStore, forms: tuple[str, ...] = tuple(FORMS), *, keep_guide: bool = True
) -> Generator[Shown]:
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
                        yield store.save_guide(job.request, event)
                case _:
                    yield event
    if video is not None:
        yield Progress("Saving", 0, 1)
        yield from store.save(job.request, video, forms)

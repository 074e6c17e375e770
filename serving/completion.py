"""One job from its start to its files: what a worker of the queue does with it."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from typing import TYPE_CHECKING

from serving.store import FORMS
from text2video_zero.events import ClipFrames, ControlMaps, Finished, Progress

if TYPE_CHECKING:
    from collections.abc import Generator

    from serving.jobs import Guide, Runner, Stored
    from serving.store import JobFolder
    from serving.visitors.limits import Limits
    from text2video_zero.events import Event
    from text2video_zero.job import Job


def complete(
    job: Job, runner: Runner, folder: JobFolder, forms: tuple[str, ...] = tuple(FORMS), limits: Limits | None = None
) -> Generator[Event | Guide | Stored]:
    """Run a job and keep what it makes, and its steps until then: one that was cut off goes on where it was.

    The runner is free for the next job before the video's files are written.
    """
    folder.check_room()
    if limits:
        yield from limits.checking_clip(job)
    video = None
    with closing(runner.run(dataclasses.replace(job, kept_in=folder.steps))) as events:
        for event in events:
            match event:
                case Finished():
                    video = event.video
                case ControlMaps() | ClipFrames():
                    yield folder.save_guide(event)
                case _:
                    yield event
    if video is not None:
        yield Progress("Saving", 0, 1)
        yield from folder.save(video, forms)

"""What runs in an actor of a cluster: models, and the job that it is leased to. It knows nothing of Ray."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.jobs import Refusal
from text2video_zero import __version__
from text2video_zero.errors import UserError
from text2video_zero.media.files import STEPS_FILE, folder_of_this_program

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from model_manager import ModelManager
    from text2video_zero.events import Event
    from text2video_zero.job import Job

STEPS_SECONDS = 5.0
"""How often kept steps are sent at most: of a long clip they are many megabytes."""


@dataclass(frozen=True)
class Facts:
    """What a worker tells of itself.

    kind: "cpu", "cuda" or "mps".  device: fit to be shown.  version: of this program.
    """

    kind: str
    device: str
    version: str


@dataclass(frozen=True)
class Ended:
    """The last event of a job has been told."""


@dataclass(frozen=True)
class Told:
    """An event of a job, and its steps as they have been kept since the last ones; empty where there are none."""

    event: Event | Refusal | Ended
    steps: bytes = b""


class Worker:
    """What runs in an actor: models, and the job that it is leased to."""

    def __init__(self, open_models: Callable[[], ModelManager]) -> None:
        self._open_models = open_models
        self._models: ModelManager | None = None
        self._events: Generator[Event] | None = None
        self._remove_files: Callable[[], None] | None = None
        self._steps = Path()
        self._steps_sent = (0, 0.0)  # which version of the file, and when

    def open(self) -> Facts | Refusal:
        """Make the model manager, if it is not there, and forget what the worker was at."""
        self.close()
        try:
            self._models = self._models or self._open_models()
        except UserError as error:
            return Refusal(str(error))
        return Facts(self._models.device.type, self._models.describe_device(), __version__)

    def begin(self, job: Job, files: Mapping[str, bytes], steps: bytes = b"") -> None:
        """Take a job on; nothing is computed yet.

        files: that the person brought, by their fields.  steps: that a worker has kept who was lost with this job.
        """
        from text2video_zero.generate import run_job

        self.close()
        if self._models is None:
            raise RuntimeError("a worker is opened before it is given a job")
        folder, self._remove_files = folder_of_this_program("text2video-zero-brought-")
        brought: dict[str, Any] = {}
        for field, content in files.items():
            path = folder / field / Path(job.request.files[field]).name
            path.parent.mkdir()
            path.write_bytes(content)
            brought[field] = str(path)
        kept_in = folder / "kept"
        self._steps, self._steps_sent = kept_in / STEPS_FILE, (0, 0.0)
        if steps:
            kept_in.mkdir()
            self._steps.write_bytes(steps)
        job = replace(job, request=replace(job.request, **brought), kept_in=kept_in)
        self._events = run_job(job, self._models)

    def next_event(self) -> Told:
        """Compute up to the next event of the job."""
        if self._events is None:
            raise RuntimeError("a worker that is at no job was asked for an event")
        try:
            return Told(next(self._events, Ended()), self._new_steps())
        except UserError as error:
            return Told(Refusal(str(error)))

    def _new_steps(self) -> bytes:
        version, sent_at = self._steps_sent
        if time.monotonic() - sent_at < STEPS_SECONDS or not self._steps.exists():
            return b""
        if (found := self._steps.stat().st_mtime_ns) == version:
            return b""
        self._steps_sent = (found, time.monotonic())
        return self._steps.read_bytes()

    def close(self) -> None:
        """Leave the job; what it has changed in the models is as before."""
        events, remove, self._events, self._remove_files = self._events, self._remove_files, None, None
        if events is not None:
            events.close()
        if remove is not None:
            remove()

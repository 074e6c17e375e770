"""Run jobs in this process, one after the other."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from text2video_zero.events import Progress
from text2video_zero.models.catalogue import known_name

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from model_manager import ModelManager
    from text2video_zero.events import Event
    from text2video_zero.job import Job
    from text2video_zero.models.checkpoints import Checkpoint

LOG = logging.getLogger(__name__)

WAITING = "Waiting for the video before this one"

LOOK_AGAIN_SECONDS = 0.2
"""How often a waiting job looks whether it has been stopped meanwhile."""

OPENING_SECONDS = 60
"""How long a page waits at most to learn which device it runs on."""


class LocalRunner:
    """Runs jobs one at a time on the device of one model manager."""

    slots = 1

    @property
    def kind(self) -> str:
        """What jobs are computed on; blank while it is not known."""
        return self._models.device.type if self._models else ""

    def __init__(self, open_models: Callable[[], ModelManager]) -> None:
        """Nothing is loaded yet.

        open_models: makes the model manager when it is first needed. That imports torch and diffusers, which
            takes seconds, so the page can be up before.
        """
        self._open_models = open_models
        self._models: ModelManager | None = None
        self._opened = threading.Event()
        self._busy = WAITING
        # The queue of the page starts the next job while a cancelled one is still inside its last step; this
        # lock keeps them apart. Not an RLock: a generator's next() comes from a different thread each time.
        self._lock = threading.Lock()

    def open(self) -> None:
        """Make the model manager now; raises UserError where the device cannot be had."""
        with self._lock:
            self._manager()

    def make_ready(self, checkpoint: Checkpoint) -> None:
        """Load a model that is here before a job asks for it.

        Where it cannot be loaded, for whatever reason, the page goes on: a job that asks for it tells why.
        """
        with self._lock:
            self._busy = f"Loading {known_name(checkpoint.source)}"
            try:
                with self._manager().lend(checkpoint):
                    pass
            except Exception:
                LOG.warning("%s could not be made ready", known_name(checkpoint.source), exc_info=True)
            finally:
                self._busy = WAITING

    def close(self) -> None:
        """Nothing: the models end with this process."""

    def describe_device(self) -> str:
        """The device that jobs run on; waits while it is being opened."""
        self._opened.wait(OPENING_SECONDS)
        return self._models.describe_device() if self._models else ""

    def run(self, job: Job) -> Generator[Event]:
        """Wait for the device, then run the job on it."""
        while not self._lock.acquire(timeout=LOOK_AGAIN_SECONDS):
            yield Progress(self._busy, 0, 1)
        try:
            from text2video_zero.generate import run_job  # torch takes seconds, and the page is to be up before

            yield from run_job(job, self._manager())
        finally:
            self._lock.release()

    def _manager(self) -> ModelManager:
        if self._models is None:
            self._models = self._open_models()
            self._opened.set()
        return self._models

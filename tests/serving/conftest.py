"""A queue whose limits a test chooses, and a job of a second."""

from __future__ import annotations

import dataclasses

import pytest

from serving.queue import JobQueue
from serving.runners.local import LocalRunner
from serving.store import JobStore
from serving.visitors.limits import Limits
from text2video_zero.job import Job
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.requests import TextToVideoRequest

SHORT = TextToVideoRequest(prompt="a fox", frames=2, steps=4, seed=3)


@pytest.fixture
def queue_with(manager, tmp_path):
    """A queue of given limits; nothing runs before it is opened."""
    made = []

    def make(**limits):
        made.append(JobQueue(LocalRunner(lambda: manager), JobStore(tmp_path / "jobs"), limits=Limits(**limits)))
        return made[-1]

    yield make
    for queue in made:
        queue.close()


@pytest.fixture
def job(tiny_checkpoint):
    return lambda **changes: Job(dataclasses.replace(SHORT, **changes), Checkpoint(str(tiny_checkpoint)))

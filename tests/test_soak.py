"""Many requests one after the other: each as in a fresh program, and nothing left behind."""

from __future__ import annotations

import gc
import statistics
import tempfile
import threading
from contextlib import closing

import numpy as np
import psutil
import pytest
import torch

from model_manager import ModelManager
from serving.completion import complete
from serving.runners.local import LocalRunner
from serving.store import JobStore
from text2video_zero.errors import UserError
from text2video_zero.events import Finished
from text2video_zero.job import Job
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.models.selection import TASKS

REQUESTS = 200
FAULTS = (torch.OutOfMemoryError, RuntimeError, UserError)  # made anew: an error holds all that it went through


def frames_of(runner, order):
    """The frames of a whole run."""
    checkpoint, request = order
    return np.asarray(list(runner.run(Job(request, checkpoint)))[-1].video.frames)


def runner_on(manager):
    return LocalRunner(lambda: manager)


@pytest.fixture(scope="module")
def expected(orders):
    """The frames of every order as a program makes them that makes nothing else."""
    return {name: frames_of(runner_on(ModelManager("cpu")), order) for name, order in orders.items()}


@pytest.mark.slow
@pytest.mark.parametrize("budget", [0, None], ids=["nothing stays", "everything stays"])
def test_a_random_walk_over_all_tasks_gives_what_a_fresh_manager_gives(orders, expected, budget):
    assert {request.task for _, request in orders.values()} == set(TASKS)
    assert np.array_equal(expected["edit"], expected["edit, UNet alone"])  # the same weights in two shapes
    assert len({frames.tobytes() for frames in expected.values()}) == len(orders) - 1
    runner = runner_on(ModelManager("cpu", device_budget=budget))
    names = list(orders)
    rng = np.random.default_rng(1)
    for index in (*rng.permutation(len(names)), *rng.integers(0, len(names), 12)):
        name = names[index]
        assert np.array_equal(frames_of(runner, orders[name]), expected[name]), name


class Fault:
    """While this is open, a network fails at one of its calls."""

    def __init__(self, module, error, at_call):
        self.error, self.left = error, at_call
        self.handle = module.register_forward_pre_hook(self.count)

    def count(self, *_):
        self.left -= 1
        if self.left == 0:
            raise self.error("injected")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.handle.remove()


class Person:
    """Orders at random, loses patience now and then, and meets faults."""

    def __init__(self, orders, manager, store, seed):
        self.orders, self.manager, self.store = orders, manager, store
        self.runner = runner_on(manager)
        self.rng = np.random.default_rng(seed)
        self.met = dict.fromkeys(("finished", "stopped", "failed", "refused"), 0)

    def order(self):
        checkpoint, request = list(self.orders.values())[self.rng.integers(len(self.orders))]
        mood = self.rng.random()
        if mood < 0.1:
            outcome = self.refused(request)
        elif mood < 0.25:
            outcome = self.stopped(Job(request, checkpoint))
        elif mood < 0.4:
            outcome = self.failed(Job(request, checkpoint))
        else:
            outcome = self.finished(Job(request, checkpoint))
        self.met[outcome] += 1

    def finished(self, job):
        folder = self.store.add(job)
        try:
            list(complete(job, self.runner, folder))
        finally:
            self.store.remove(folder)
        return "finished"

    def stopped(self, job):
        with closing(self.runner.run(job)) as events:
            for _ in range(self.rng.integers(1, 12)):
                if isinstance(next(events), Finished):
                    return "finished"
        return "stopped"

    def failed(self, job):
        error = FAULTS[self.rng.integers(len(FAULTS))]
        with self.manager.lend(job.checkpoint) as pipeline:
            parts = (
                pipeline.components.unet.mid_block,
                pipeline.components.vae.decoder,
                pipeline.components.text_encoder,
            )
        part = parts[self.rng.integers(len(parts))]
        with Fault(part, error, at_call=self.rng.integers(1, 4)):
            try:
                return self.finished(job)  # a shortage of memory is no failure
            except (RuntimeError, UserError):
                return "failed"

    def refused(self, request):
        with pytest.raises(UserError):
            list(self.runner.run(Job(request, Checkpoint("/no/such/model"))))
        return "refused"


def modules_of(manager, orders):
    for checkpoint, _ in orders.values():
        with manager.lend(checkpoint) as pipeline:
            yield from (pipeline.components.unet, pipeline.components.vae, pipeline.components.text_encoder)
            if pipeline.controlnet is not None:
                yield pipeline.controlnet


@pytest.mark.slow
def test_two_hundred_requests_leave_nothing_behind(orders, expected, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    manager = ModelManager("cpu", device_budget=2_000_000)  # holds some of the models, not all
    person = Person(orders, manager, JobStore(tmp_path / "videos"), seed=2)
    threads = threading.active_count()
    memory = []
    for _ in range(REQUESTS):
        person.order()
        gc.collect()
        memory.append(psutil.Process().memory_info().rss)
    assert min(person.met.values()) > 5, person.met
    warm, late = statistics.median(memory[50:80]), statistics.median(memory[170:])
    assert late < 1.05 * warm
    assert threading.active_count() == threads
    assert [path.name.startswith("text2video-zero-maps-") for path in temporary.iterdir()] == [True]
    assert list((tmp_path / "videos").iterdir()) == []  # each was deleted once it had been seen
    for module in modules_of(manager, orders):
        assert not module._forward_pre_hooks
        assert not module._forward_hooks
    assert not torch.is_inference_mode_enabled()
    for name, order in orders.items():
        assert np.array_equal(frames_of(person.runner, order), expected[name]), name

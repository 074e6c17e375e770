"""The runner of this process: a model is ready before anybody asks for it, and never by a download."""

from __future__ import annotations

import threading

import pytest

import app
from serving.menu import lacking
from serving.runners.local import LocalRunner
from text2video_zero.events import Finished, Progress
from text2video_zero.job import build_job
from text2video_zero.models.catalogue import STABLE_DIFFUSION_1_5, TOYLAND
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.models.hub import Hub


def test_a_job_finds_the_model_that_was_made_ready(manager, tiny_checkpoint):
    job = build_job("text-to-video", {"prompt": "a fox", "frames": 1, "steps": 4}, model=str(tiny_checkpoint))
    runner = LocalRunner(lambda: manager)
    runner.open()
    runner.make_ready(job.checkpoint)
    assert manager.is_loaded(job.checkpoint)
    stages = [event.stage for event in runner.run(job) if isinstance(event, Progress)]
    assert not [stage for stage in stages if "Loading" in stage]


def test_a_job_that_comes_meanwhile_is_told_that_it_is_loading(manager, tiny_checkpoint):
    job = build_job("text-to-video", {"prompt": "a fox", "frames": 1, "steps": 4}, model=str(tiny_checkpoint))
    begun, told = threading.Event(), threading.Event()

    class Slow:
        """The manager's door, held open until the job has said that it waits."""

        def __getattr__(self, name):
            return getattr(manager, name)

        def lend(self, checkpoint):
            if not told.is_set():
                begun.set()
                told.wait(30)
            return manager.lend(checkpoint)

    runner = LocalRunner(Slow)
    loading = threading.Thread(target=runner.make_ready, args=(job.checkpoint,))
    loading.start()
    assert begun.wait(30)
    events = runner.run(job)
    assert next(events) == Progress(f"Loading {tiny_checkpoint.name}", 0, 1)
    told.set()
    assert isinstance(list(events)[-1], Finished)
    loading.join()


def test_one_that_cannot_be_loaded_is_left_to_the_job(manager, tmp_path, caplog):
    LocalRunner(lambda: manager).make_ready(Checkpoint(str(tmp_path)))
    assert f"{tmp_path.name} could not be made ready" in caplog.text


def test_what_would_be_downloaded_is_not_made_ready(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(LocalRunner, "make_ready", lambda _, checkpoint: asked.append(checkpoint))
    monkeypatch.setattr("text2video_zero.models.hub.Hub", lambda: Hub(cache=tmp_path))
    runner = LocalRunner(lambda: pytest.fail("no model is wanted"))
    for model in (STABLE_DIFFUSION_1_5.name, TOYLAND.name):
        app.make_ready(runner, model)
    assert asked == [build_job("text-to-video", {"prompt": "a robot"}, model=TOYLAND.name, preset="draft").checkpoint]
    assert lacking(STABLE_DIFFUSION_1_5.checkpoint, Hub(cache=tmp_path))

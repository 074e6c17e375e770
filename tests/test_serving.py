from __future__ import annotations

import dataclasses
import os
import threading
import time

import numpy as np
import pytest

from serving.jobs import FORMS, Job, Stored, VideoStore, complete
from serving.local import LocalRunner
from serving.menu import ModelMenu
from text2video_zero.checkpoints import Checkpoint
from text2video_zero.errors import UserError
from text2video_zero.events import Finished, Preview, Progress
from text2video_zero.requests import TextToVideoRequest
from text2video_zero.video import Video, read_settings

SHORT = TextToVideoRequest(prompt="a fox", frames=2, steps=4, seed=3)


@pytest.fixture
def runner(manager):
    return LocalRunner(lambda: manager)


@pytest.fixture
def job(tiny_checkpoint):
    return Job(SHORT, Checkpoint(str(tiny_checkpoint)))


@pytest.fixture
def video():
    return Video(np.full((2, 16, 16, 3), 90, np.uint8), 8, {"app": "text2video-zero", "request": SHORT.to_dict()})


def waits(event):
    return isinstance(event, Progress) and event.stage.startswith("Waiting")


def test_a_run_tells_that_it_loads_then_how_far_it_is_then_brings_the_video(runner, job):
    events = list(runner.run(job))
    assert isinstance(events[-1], Finished)
    assert any(isinstance(event, Preview) for event in events)
    again = list(runner.run(job))
    assert not any(isinstance(event, Progress) and event.stage.startswith("Loading") for event in again)
    np.testing.assert_array_equal(again[-1].video.frames, events[-1].video.frames)


def test_the_model_manager_is_made_when_it_is_first_needed(manager):
    made = []
    runner = LocalRunner(lambda: made.append(1) or manager)
    assert not made
    runner.open()
    runner.open()
    assert made == [1]
    assert runner.describe_device() == manager.describe_device()


def test_two_runs_at_once_never_overlap(runner, job):
    steps = []
    began = threading.Event()

    def first():
        for event in runner.run(job):
            began.set()
            steps.append(("first", event))

    thread = threading.Thread(target=first)
    thread.start()
    assert began.wait(60)
    steps.extend(("second", event) for event in runner.run(job))
    thread.join()
    working = [who for who, event in steps if not waits(event)]
    assert working == sorted(working)
    assert working.count("first") == pytest.approx(working.count("second"), abs=1)  # one of them loads


def test_a_waiting_run_says_so_and_can_be_given_up(runner, job):
    running = runner.run(job)
    next(running)
    waiting = runner.run(job)
    assert waits(next(waiting))
    waiting.close()
    assert isinstance(list(running)[-1], Finished)


def test_closing_a_run_frees_the_device_and_leaves_no_trace(runner, job):
    fresh = list(runner.run(job))[-1].video.frames
    running = runner.run(dataclasses.replace(job, request=dataclasses.replace(SHORT, steps=200)))
    for event in running:
        if isinstance(event, Progress) and event.step:
            break
    running.close()
    events = list(runner.run(job))
    assert not any(waits(event) for event in events)
    np.testing.assert_array_equal(events[-1].video.frames, fresh)


def test_a_model_that_cannot_be_loaded_frees_the_device(runner, job, tmp_path):
    with pytest.raises(UserError, match="missing"):
        list(runner.run(Job(SHORT, Checkpoint(str(tmp_path / "missing.safetensors")))))
    assert isinstance(list(runner.run(job))[-1], Finished)


def test_the_device_is_free_again_before_the_files_are_written(runner, job, tmp_path):
    events = complete(job, runner, VideoStore(tmp_path))
    assert any(isinstance(event, Progress) and event.stage == "Saving" for event in events)
    assert not waits(next(runner.run(job)))


def test_a_finished_job_is_kept_in_every_form_with_its_settings(runner, job, tmp_path):
    stored = [event for event in complete(job, runner, VideoStore(tmp_path)) if isinstance(event, Stored)]
    assert [len(event.files) for event in stored] == [1, 2, 3]
    assert list(stored[0].files) == [".mp4"]
    for form in FORMS:
        settings = read_settings(stored[-1].files[form])
        assert settings == stored[-1].settings
        assert TextToVideoRequest.from_dict(settings["request"]) == dataclasses.replace(SHORT, size="64x64")


def test_names_of_videos_are_unique_and_cannot_be_guessed(job, video, tmp_path):
    store = VideoStore(tmp_path)
    names = {stored.files[".mp4"].stem for _ in range(3) for stored in store.save(job, video, (".mp4",))}
    assert len(names) == 3
    assert all(name.startswith("text-to-video-") and len(name.rsplit("-", 1)[1]) >= 16 for name in names)
    assert len({Job(SHORT, job.checkpoint).id for _ in range(3)}) == 3


def test_a_shared_store_writes_no_settings_and_forgets_after_a_while(job, video, tmp_path):
    store = VideoStore(tmp_path, keep_settings=False, keep_seconds=60)
    (stored,) = store.save(job, video, (".mp4",))
    assert stored.settings == video.settings
    with pytest.raises(UserError, match="no settings"):
        read_settings(stored.files[".mp4"])
    strange = tmp_path / "notes.txt"
    strange.write_text("not a video")
    for path in (stored.files[".mp4"], strange):
        os.utime(path, (time.time() - 120, time.time() - 120))
    (later,) = store.save(job, video, (".mp4",))
    assert sorted(tmp_path.iterdir()) == sorted([later.files[".mp4"], strange])


def test_strangers_choose_from_the_list_alone(tiny_checkpoint):
    menu = ModelMenu("toyland", free=False)
    assert menu.checkpoint(" toyland ").source.endswith("toyland")
    for name in (str(tiny_checkpoint), "someone/some-model", "../models"):
        with pytest.raises(UserError, match="not offered here: choose one of toyland"):
            menu.checkpoint(name)
        assert menu.vocabulary(name) is None
    with pytest.raises(UserError, match="not offered here"):
        ModelMenu("someone/some-model", free=False)


@pytest.mark.parametrize("name", ["", "  ", None])
def test_a_blank_model_is_refused_in_one_sentence(name):
    with pytest.raises(UserError, match="Model is empty: choose one of toyland"):
        ModelMenu("toyland", free=True).checkpoint(name)


def test_a_free_menu_takes_a_folder_and_lists_it_when_it_is_the_default(tiny_checkpoint):
    menu = ModelMenu(str(tiny_checkpoint), free=True)
    assert menu.names()[0] == str(tiny_checkpoint)
    assert menu.checkpoint(str(tiny_checkpoint)) == Checkpoint(str(tiny_checkpoint))

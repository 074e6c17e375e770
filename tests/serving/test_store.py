"""Jobs on disk: whole or not there, told again by the next program, and a store that forgets removes its own alone."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from serving.jobs import Done, Failed, Guide, Interrupted, Running, Stopped
from serving.store import FORMS, REQUEST, STATE, JobStore
from tests.example_files import write_clip
from text2video_zero.errors import UserError
from text2video_zero.events import ControlMaps, Progress
from text2video_zero.job import Job
from text2video_zero.media.settings import read_settings
from text2video_zero.media.video import Video
from text2video_zero.models.checkpoints import Adapter, Checkpoint
from text2video_zero.requests import EdgeRequest, TextToVideoRequest

SHORT = TextToVideoRequest(prompt="a fox", frames=2, steps=4, seed=3)
DAY = 24 * 3600
MP4 = (".mp4",)


@pytest.fixture
def job():
    return Job(SHORT, Checkpoint("owner/model", adapters=(Adapter("owner/style", 0.5),)))


@pytest.fixture
def video():
    return Video(np.full((2, 16, 16, 3), 90, np.uint8), 8, {"app": "text2video-zero", "request": SHORT.to_dict()})


def old(folder, days=3):
    """Let a job have been over for days."""
    then = time.time() - days * DAY
    os.utime(folder.path / STATE, (then, then))


def made(store, job, video, state=Done(1.0)):  # noqa: B008 - a frozen record
    folder = store.add(job)
    list(folder.save(video, MP4))
    folder.save_state(state)
    return folder


def test_a_folder_s_name_tells_task_and_moment_and_cannot_be_guessed(tmp_path, job):
    folder = JobStore(tmp_path).add(job)
    task, day, moment, token = folder.path.name.rsplit("-", 3)
    assert (task, len(day), len(moment)) == ("text-to-video", 8, 6)
    assert len(token) >= 128 / 4
    assert token not in folder.file(".gif").name


def test_a_job_is_read_back_as_it_was_with_all_that_was_made(tmp_path, job, video):
    folder = JobStore(tmp_path).add(job, "ann")
    ((found, standing),) = JobStore(tmp_path).jobs()
    assert (found.job, found.owner, found.path) == (job, "ann", folder.path)
    assert standing.state == Interrupted()
    folder.save_state(Running(Progress("Denoising", 1, 4)))
    assert found.standing().state == Interrupted()
    guide = folder.save_guide(ControlMaps(video.frames))
    *_, stored = folder.save(video, tuple(FORMS))
    folder.save_state(Done(4.5))
    standing = found.standing()
    assert (standing.state, standing.guide, standing.stored) == (Done(4.5), Guide(guide.path), stored)
    assert found.poster.read_bytes()[:3] == b"\xff\xd8\xff"


@pytest.mark.parametrize("state", [Done(2.5), Failed("There is no room."), Stopped()])
def test_how_a_job_ended_is_read_back(tmp_path, job, state):
    folder = JobStore(tmp_path).add(job)
    folder.save_state(state)
    assert folder.standing().state == state


def test_a_clip_is_kept_with_the_job_even_if_the_upload_goes(tmp_path, job):
    clip = write_clip(tmp_path, "gif")
    brought = clip.read_bytes()
    folder = JobStore(tmp_path / "jobs").add(Job(EdgeRequest(prompt="a fox", clip=str(clip)), job.checkpoint))
    clip.unlink()
    ((found, _),) = JobStore(tmp_path / "jobs").jobs()
    assert found.job == folder.job
    assert Path(found.job.request.clip).read_bytes() == brought
    assert found.job.request.clip.endswith(clip.name)


def test_a_picture_is_kept_beside_the_clip(tmp_path, job):
    clip, picture = write_clip(tmp_path, "gif"), tmp_path / "me.png"
    picture.write_bytes(b"a photo")
    request = EdgeRequest(prompt="a fox", clip=str(clip), start_picture=str(picture))
    folder = JobStore(tmp_path / "jobs").add(Job(request, job.checkpoint, picture="0123456789"))
    picture.unlink()
    ((found, _),) = JobStore(tmp_path / "jobs").jobs()
    assert found.job == folder.job
    kept = Path(found.job.request.start_picture)
    assert (kept.name, kept.read_bytes()) == ("me.png", b"a photo")
    assert kept.parent != Path(found.job.request.clip).parent


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (REQUEST, '{"request": '),
        (REQUEST, "[]"),
        (REQUEST, '{"owner": "", "began": 1.0}'),
        (STATE, '{"state": "done", "keep_seconds": null, "hours": 1}'),
        (STATE, "{}"),
        (STATE, None),
    ],
)
def test_a_job_whose_record_is_damaged_is_passed_over(tmp_path, job, name, content):
    store = JobStore(tmp_path)
    damaged, whole = store.add(job), store.add(Job(SHORT, job.checkpoint))
    if content is None:
        (damaged.path / name).unlink()
    else:
        (damaged.path / name).write_text(content)
    (tmp_path / "holiday").mkdir()
    (tmp_path / "text-to-video-20200101-000000-0123.mp4").touch()
    assert [found.path for found, _ in store.jobs()] == [whole.path]


def test_a_job_belongs_to_one_program_at_a_time(tmp_path, job):
    folder = JobStore(tmp_path).add(job)
    lock = folder.claim()
    assert folder.claim() is None
    os.close(lock)
    lock = folder.claim()
    assert lock is not None
    os.close(lock)


def test_a_job_that_cannot_be_kept_leaves_nothing_behind(tmp_path, job):
    store = JobStore(tmp_path)
    in_the_way = tmp_path / f".{job.id}"
    in_the_way.touch()
    with pytest.raises(UserError, match="cannot be written"):
        store.add(job)
    assert list(tmp_path.iterdir()) == [in_the_way]


def test_without_settings_nothing_tells_how_a_video_was_made(tmp_path, job, video):
    store = JobStore(tmp_path, keep_settings=False)
    folder = store.add(job)
    assert store.jobs()  # until it is over, it can be begun again
    (stored,) = folder.save(video, MP4)
    folder.save_state(Done(1.0))
    assert stored.settings == video.settings
    with pytest.raises(UserError, match="no settings"):
        read_settings(stored.files[".mp4"])
    assert not any(b"a fox" in path.read_bytes() for path in folder.path.iterdir())


def test_a_forgetful_store_removes_what_was_to_go_whoever_of_its_kind_looks(tmp_path, job, video):
    old(made(JobStore(tmp_path, keep_seconds=DAY), job, video))
    second = JobStore(tmp_path, keep_seconds=DAY).add(Job(SHORT, Checkpoint("owner/model")))
    assert sorted(tmp_path.iterdir()) == [second.path]


def test_what_others_made_and_what_was_to_stay_stays_however_old(tmp_path, job, video):
    kept = made(JobStore(tmp_path), job, video)
    stranger = tmp_path / "text-to-video-20200101-000000-0123456789abcdef0123456789abcdef"
    stranger.mkdir()
    (stranger / STATE).write_text(json.dumps({"keep_seconds": "long"}))
    old(kept)
    os.utime(stranger / STATE, (0, 0))
    JobStore(tmp_path, keep_seconds=DAY).remove_old()
    assert sorted(tmp_path.iterdir()) == sorted([kept.path, stranger])

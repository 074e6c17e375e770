"""Jobs on disk: whole or not there, told again by the next program, and a store that forgets removes its own alone."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import app
from serving.completion import complete
from serving.jobs import Done, Failed, Guide, Interrupted, Running, Stopped
from serving.runners.local import LocalRunner
from serving.store import FORMS, REQUEST, STATE, JobStore
from tests.example_files import write_clip
from text2video_zero.errors import UserError
from text2video_zero.events import ControlMaps, Notice, Progress
from text2video_zero.job import Job
from text2video_zero.media.files import folder_of_this_program
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


def test_a_job_that_another_program_is_at_stays_however_old(tmp_path, job):
    folder = JobStore(tmp_path, keep_seconds=DAY).add(job)
    old(folder)
    lock = folder.claim()
    JobStore(tmp_path, keep_seconds=DAY).remove_old()
    assert folder.path.is_dir()
    os.close(lock)
    JobStore(tmp_path, keep_seconds=DAY).remove_old()
    assert not folder.path.exists()


def test_what_others_made_and_what_was_to_stay_stays_however_old(tmp_path, job, video):
    kept = made(JobStore(tmp_path), job, video)
    stranger = tmp_path / "text-to-video-20200101-000000-0123456789abcdef0123456789abcdef"
    stranger.mkdir()
    (stranger / STATE).write_text(json.dumps({"keep_seconds": "long"}))
    old(kept)
    os.utime(stranger / STATE, (0, 0))
    JobStore(tmp_path, keep_seconds=DAY).remove_old()
    assert sorted(tmp_path.iterdir()) == sorted([kept.path, stranger])


class TestDisk:
    def test_a_folder_that_takes_no_files_is_told_before_anything_is_computed(self):
        """Linux' own folder of processes takes none, not even from root."""
        if not Path("/proc/self").exists():
            pytest.skip("there is no /proc")
        with pytest.raises(OSError, match=r"No such file|denied|Read-only"):
            JobStore(Path("/proc"))
        assert app.main(["--output-dir", "/proc"]) == 2

    def test_a_folder_that_went_is_told_when_the_job_s_turn_comes(self, tmp_path, job):
        folder = JobStore(tmp_path / "jobs").add(job)
        shutil.rmtree(folder.path)
        folder.path.touch()
        runner = LocalRunner(lambda: pytest.fail("nothing is to be computed"))
        with pytest.raises(UserError, match="cannot be written"):
            next(complete(job, runner, folder))

    def test_a_disk_without_room_for_the_frames_is_told_at_the_click_and_when_the_turn_comes(
        self, tmp_path, job, monkeypatch
    ):
        store = JobStore(tmp_path)
        folder = store.add(job)
        large = Job(dataclasses.replace(SHORT, frames=512, size="2048x2048"), job.checkpoint)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * 512 * 512 * 3 - 1))
        for asking in (lambda: store.add(large), folder.check_room):
            with pytest.raises(UserError, match=r"and the disk has 2 MB left in .*: free some, or ask"):
                asking()
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * 512 * 512 * 3))
        folder.check_room()
        assert [path for path in tmp_path.iterdir() if path != folder.path] == []

    def test_a_form_that_cannot_be_written_takes_the_video_from_nobody(self, tmp_path, job, video):
        folder = JobStore(tmp_path).add(job)
        for in_the_way in (folder.file(".gif"), folder.poster):
            in_the_way.mkdir()
            (in_the_way / "file").touch()
        events = list(folder.save(video, tuple(FORMS)))
        told = [event.text for event in events if isinstance(event, Notice)]
        assert [text.partition(":")[0] for text in told] == [
            "Poster and settings beside the video are not kept",
            "The video is there, but not as GIF",
        ]
        assert list(events[-1].files) == [".mp4", ".webm", ".zip", ".png"]
        assert not any(path.name.startswith(".") for path in folder.path.iterdir())

    FULL = """
import dataclasses
import sys
from pathlib import Path
import numpy as np
from serving.jobs import Stored
from serving.store import JobStore, FORMS
from tests.serving.test_store import SHORT
from text2video_zero.events import Notice
from text2video_zero.job import Job
from text2video_zero.media.video import Video
from text2video_zero.models.checkpoints import Checkpoint

frames = np.random.default_rng(0).integers(0, 255, (1, 256, 256, 3), np.uint8).repeat(24, 0)
small = dataclasses.replace(SHORT, size="64x64")
folder = JobStore(Path(sys.argv[1])).add(Job(small, Checkpoint("owner/model")))
for event in folder.save(Video(frames, 8, {}), tuple(FORMS)):
    print(event.text if isinstance(event, Notice) else " ".join(event.files))
print("left:", *sorted(path.name for path in folder.path.iterdir() if path.name.startswith(".")))
"""

    def test_on_a_disk_that_is_really_full_the_mp4_is_there_and_the_rest_is_told(self, tmp_path):
        """A disk of its own, in the memory, that has room for the MP4 alone."""
        mounted = f'mount -t tmpfs -o size=1500k none {tmp_path} && exec {sys.executable} -c "$0" {tmp_path}'
        command = ["unshare", "--mount", "--map-root-user", "sh", "-c", mounted, self.FULL]
        if not shutil.which("unshare") or subprocess.run([*command[:3], "true"], check=False).returncode:
            pytest.skip("this machine lets nobody mount a disk of her own")
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(app.__file__).parent)
        *told, left = ran.stdout.splitlines()
        assert told[0] == ".mp4", ran.stderr
        assert any("not as PNG frames" in line and "the disk is full: free some space" in line for line in told)
        assert left == "left:"


class TestKilled:
    def test_what_a_killed_program_was_writing_goes_when_the_next_begins(self, tmp_path, job, video):
        store = JobStore(tmp_path)
        over, begun = made(store, job, video), store.add(Job(SHORT, job.checkpoint))
        hidden = [folder.path / f".{'0a' * 8}.mp4" for folder in (over, begun)]
        unready = [tmp_path / f".{letter * 32}" for letter in "ab"]
        for path in hidden:
            path.touch()
        for path in unready:
            path.mkdir()
        os.utime(unready[0], (0, 0))
        stays = tmp_path / "holiday"
        stays.mkdir()
        (stays / hidden[0].name).touch()
        lock = begun.claim()
        JobStore(tmp_path).tidy()
        assert [path.exists() for path in (*hidden, *unready)] == [False, True, False, True]
        os.close(lock)
        JobStore(tmp_path).tidy()
        assert not hidden[1].exists()
        assert (stays / hidden[0].name).exists()
        assert over.file(".mp4").is_file()

    def test_temporary_folders_of_killed_programs_go_and_those_of_others_stay(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        program = (
            "from text2video_zero.media.files import folder_of_this_program as made\n"
            "folder, remove = made('mine-')\nprint(folder, flush=True)\ninput()\n"
        )
        variables = os.environ | {"TMPDIR": str(tmp_path)}
        other = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=Path(app.__file__).parent,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with other:
            theirs = Path(other.stdout.readline().strip())
            mine, remove = folder_of_this_program("mine-")
            assert theirs.is_dir()
            other.kill()
            other.wait()
            again, remove_again = folder_of_this_program("mine-")
            assert not theirs.exists()
            assert mine.is_dir()
            assert again.is_dir()
            remove()
            remove_again()
            assert list(tmp_path.iterdir()) == []

"""Jobs that belong to workers: they outlive whoever asked, are stopped by their owner alone, and are found again."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import itertools
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from model_manager import ModelManager
from serving import queue as queue_module
from serving.jobs import Done, Failed, Interrupted, Queued, Running, Stopped, Stopping
from serving.queue import PROGRESS_SECONDS, JobQueue
from serving.runners.local import LocalRunner
from serving.store import STATE, JobFolder, JobStore
from serving.visitors.limits import Limits
from tests.fake_hub import PIECE, FakeHub
from tests.media.clip_files import CASES, hung_decoder
from text2video_zero.errors import UserError
from text2video_zero.events import Finished, Notice, Progress
from text2video_zero.job import Job
from text2video_zero.media.settings import read_settings
from text2video_zero.media.video import probe_encoder
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.models.hub import Hub
from text2video_zero.requests import EdgeRequest, TextToVideoRequest
from text2video_zero.sampling.share import Share
from text2video_zero.tasks.finishing import joined

SHORT = TextToVideoRequest(prompt="a fox", frames=2, steps=4, seed=3)
LONG = dataclasses.replace(SHORT, steps=900)
SMOOTHED = dataclasses.replace(SHORT, steps=8, sampler="UniPC", chunk_size=1, smooth_background=True)

KILLED_IN_THE_MIDDLE = """
import os, signal, sys, threading
from pathlib import Path
import torch
from model_manager import ModelManager
from serving.runners.local import LocalRunner
from serving.queue import JobQueue
from serving.store import JobStore
from tests.serving.test_queue import SMOOTHED
from text2video_zero.events import Progress
from text2video_zero.job import Job
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.sampling import kept_steps

class Killed(LocalRunner):
    def run(self, job):
        for event in super().run(job):
            if isinstance(event, Progress) and (event.stage, event.step) == ("Smoothing the background", 3):
                os.kill(os.getpid(), signal.SIGKILL)
            yield event

torch.set_num_threads(1)  # as here
kept_steps.SECONDS_BETWEEN = 0.0
queue = JobQueue(Killed(lambda: ModelManager("cpu")), JobStore(Path(sys.argv[1])))
queue.submit(Job(SMOOTHED, Checkpoint(sys.argv[2])))
queue.open()
threading.Event().wait()
"""


@pytest.fixture
def store(tmp_path):
    return JobStore(tmp_path / "jobs")


@pytest.fixture
def queue(manager, store):
    made = JobQueue(LocalRunner(lambda: manager), store)
    yield made
    made.close()


@pytest.fixture
def job(tiny_checkpoint):
    def ask(request=SHORT):
        return Job(request, Checkpoint(str(tiny_checkpoint)))

    return ask


async def until(queue, entry, kind):
    """Watch a job until it is in a state; returns all that was seen."""
    seen = []
    async for standing, place in queue.watched(entry):
        seen.append((standing, place))
        if isinstance(standing.state, kind):
            break
    return seen


def watch(queue, entry, kind=Done):
    return asyncio.run(until(queue, entry, kind))


def unwatched(entry):
    """Wait for the end of a job without being somebody who waits for it."""
    until = time.monotonic() + 60
    while not entry.standing.is_over:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_stop_is_heard_while_a_slow_hub_hands_out_and_the_next_job_goes_on_there(store, tmp_path, monkeypatch):
    monkeypatch.setattr("text2video_zero.models.hub.client.TELL_SECONDS", 0)
    content = bytes(16 * PIECE)
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "model.safetensors").write_bytes(content)

    def brought():
        return sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.incomplete"))

    with FakeHub({"owner/big": tmp_path / "big"}).running() as hub:
        hub.pause = 0.3
        models = ModelManager("cpu", hub=Hub(hub.endpoint, tmp_path / "cache"))
        queue = JobQueue(LocalRunner(lambda: models), store)
        queue.open()
        entry = queue.submit(Job(SHORT, Checkpoint("owner/big")))

        async def stopped():
            async for standing, _ in queue.watched(entry):
                if isinstance(standing.state, Running) and standing.state.progress.stage.startswith("Downloading"):
                    queue.stop(entry)
                    return brought()
            raise AssertionError("it was over before it could be stopped")

        before = asyncio.run(stopped())
        watch(queue, entry, Stopped)
        kept = brought()
        assert kept - before <= 2 * PIECE  # however busy the machine is
        assert 0 < kept < len(content)
        hub.pause = 0
        watch(queue, queue.submit(Job(SHORT, Checkpoint("owner/big"))), Failed)  # for it is no model
        assert hub.ranges == [None, f"bytes={kept}-"]
        queue.close()


@pytest.mark.parametrize("maps_only", [True, False])
def test_stop_is_heard_while_a_clip_that_takes_long_is_opened(queue, tiny_checkpoint, tiny_controlnets, maps_only):
    """Showing its control map, and making a video of it; the process that decodes ends too."""
    checkpoint = Checkpoint(str(tiny_checkpoint), controlnet=str(tiny_controlnets["edge"]))
    request = EdgeRequest(prompt="a fox", clip=str(CASES / "sdr.mp4"), frames=2, steps=4)

    async def stopped(entry):
        async for standing, _ in queue.watched(entry):
            if isinstance(standing.state, Running) and standing.state.progress.stage == "Reading the clip":
                queue.stop(entry)
        return entry.standing.state

    queue.open()
    with hung_decoder() as decoder:
        state = asyncio.run(stopped(queue.submit(Job(request, checkpoint, maps_only=maps_only))))
        assert isinstance(state, Stopped)
        assert decoder.poll() is not None


def test_a_paused_queue_begins_nothing_until_it_goes_on_and_tells_so(queue, job):
    entry = queue.submit(job())
    queue.pause("")
    queue.open()

    async def watched():
        seen = []
        async for standing, place in queue.watched(entry):
            seen.append((type(standing.state), place))
            if len(seen) == 1:
                assert queue.is_paused("")
                await asyncio.sleep(1)
                assert isinstance(entry.standing.state, Queued)
                queue.resume("")
        return seen

    seen = asyncio.run(watched())
    assert seen[0] == (Queued, None)
    assert seen[-1][0] is Done


def test_a_page_gets_no_more_news_than_it_can_draw_and_a_stop_at_once(queue, job):
    async def news(entry):
        seen = []
        async for standing, _ in queue.watched(entry):
            seen.append((time.monotonic(), standing))
            if sum(isinstance(standing.state, Running) for _, standing in seen) == 5:
                queue.stop(entry)
        return seen

    queue.open()
    seen = asyncio.run(news(queue.submit(job(LONG))))
    assert isinstance(seen[-1][1].state, Stopped)
    running = [(at, standing) for at, standing in seen if isinstance(standing.state, Running)]
    plain = [(b, a) for a, b in itertools.pairwise(running) if a[1].notes == b[1].notes]
    assert len(plain) >= 3
    assert all(later[0] - before[0] >= PROGRESS_SECONDS for later, before in plain)


def test_a_job_goes_from_the_queue_to_its_video_with_nobody_watching(queue, job):
    first, second = queue.submit(job()), queue.submit(job(dataclasses.replace(SHORT, seed=4)))
    assert (queue.place(first), queue.place(second)) == (0, 1)
    queue.open()
    seen = watch(queue, second)
    assert isinstance(first.standing.state, Done)
    assert isinstance(seen[0][0].state, Queued)
    assert any(isinstance(standing.state, Running) for standing, _ in seen)
    assert set(second.standing.stored.files) == {".mp4", ".gif", ".webm", ".zip", ".png"}
    assert second.folder.poster.is_file()
    assert any(standing.preview is not None for standing, _ in seen)
    assert first.standing.preview is second.standing.preview is None  # nobody looks at them any longer
    assert any("CPU" in note for note in second.standing.notes)


def test_stop_takes_a_waiting_job_out_and_ends_a_running_one(queue, job):
    running, waiting = queue.submit(job(LONG)), queue.submit(job())
    queue.stop(waiting)
    assert isinstance(waiting.standing.state, Stopped)
    queue.open()
    watch(queue, running, Running)
    queue.stop(running)
    assert isinstance(running.standing.state, Stopping | Stopped)
    watch(queue, running, Stopped)
    after = queue.submit(job())
    watch(queue, after)
    assert running.folder.standing().state == Stopped()


def test_a_poster_that_cannot_be_written_makes_no_failure_of_stop(queue, job):
    entry = queue.submit(job(LONG))
    entry.folder.poster.mkdir()
    (entry.folder.poster / "in the way").touch()
    queue.open()

    async def stopped():
        async for standing, _ in queue.watched(entry):
            if standing.preview is not None:
                queue.stop(entry)

    asyncio.run(stopped())
    assert entry.standing.state == entry.folder.standing().state == Stopped()


@pytest.mark.parametrize("waits", [True, False])
def test_nobody_waits_for_the_disk_while_the_end_of_a_job_is_written_down(queue, job, monkeypatch, waits):
    writing, written = threading.Event(), threading.Event()
    save_state = JobFolder.save_state
    entry = queue.submit(job())

    def save_slowly(folder, state):
        writing.set()
        assert written.wait(60)
        save_state(folder, state)

    monkeypatch.setattr(JobFolder, "save_state", save_slowly)
    if not waits:
        queue.open()
    if waits:
        threading.Thread(target=queue.stop, args=(entry,)).start()
    assert writing.wait(60)
    asking = threading.Thread(target=queue.place, args=(entry,))
    asking.start()
    try:
        asking.join(5)
        assert not asking.is_alive()
        queue.remove(entry)  # it is not over
        queue.stop(entry)
        assert entry.folder.path.is_dir()
    finally:
        written.set()
    unwatched(entry)
    assert isinstance(entry.standing.state, Stopped if waits else Done)
    assert entry.folder.standing().state == entry.standing.state


def test_a_mistake_is_told_and_a_bug_is_not_and_the_worker_goes_on(queue, job, tmp_path, monkeypatch):
    queue.open()
    missing = queue.submit(Job(SHORT, Checkpoint(str(tmp_path / "missing.safetensors"))))
    watch(queue, missing, Failed)
    assert "missing" in missing.standing.state.sentence
    with monkeypatch.context() as patch:
        patch.setattr(queue_module, "complete", lambda *_: 1 / 0)
        broken = queue.submit(job())
        watch(queue, broken, Failed)
    assert broken.standing.state.sentence == "Something went wrong, the log has the details."
    watch(queue, queue.submit(job()))


def test_an_encoder_that_is_killed_is_told_and_the_frames_are_kept(queue, job, tmp_path, monkeypatch):
    probe_encoder()  # the one that works is remembered
    script = tmp_path / "ffmpeg"
    script.write_text("#!/bin/sh\nhead -c 1000 > /dev/null\nkill -9 $$\n")
    script.chmod(0o755)
    queue.open()
    with monkeypatch.context() as patch:
        patch.setenv("IMAGEIO_FFMPEG_EXE", str(script))
        broken = queue.submit(job())
        watch(queue, broken, Failed)
    assert "it stopped with status -9" in broken.standing.state.sentence
    (kept,) = broken.folder.path.glob("*.zip")
    assert str(kept) in broken.standing.state.sentence
    assert read_settings(kept)["request"]["prompt"] == SHORT.prompt
    watch(queue, queue.submit(job()))


def test_each_owner_finds_her_own_jobs_alone(queue, job):
    hers, his = queue.submit(job(), "ann"), queue.submit(job(), "bob")
    assert queue.of("ann") == [hers]
    assert queue.find(his.job.id, "bob") is his
    assert queue.find(his.job.id, "ann") is None
    assert queue.find("no such job", "ann") is None


def test_the_queue_has_an_end_for_one_visitor_and_for_all(queue, job, monkeypatch):
    queue.limits = Limits(waiting=1)
    queue.submit(job(), "ann")
    with pytest.raises(UserError, match="The queue takes no more of yours now: wait a minute"):
        queue.submit(job(), "ann")
    queue.submit(job(), "bob")
    monkeypatch.setattr(queue_module, "MOST_UNFINISHED", 2)
    with pytest.raises(UserError, match="The queue takes no more of yours now: wait a minute"):
        queue.submit(job())


def test_what_a_program_did_not_finish_the_next_one_goes_on_with_to_the_same_video(manager, store, queue, job):
    running, waiting = queue.submit(job(dataclasses.replace(SHORT, steps=60))), queue.submit(job())
    queue.open()
    watch(queue, running, Running)
    other = JobQueue(LocalRunner(lambda: manager), store)
    other.open()
    assert other.of("") == []  # they are at work on them
    other.close()
    queue.close()
    for entry in (running, waiting):
        queue._release(entry)  # what the end of a program does
    after = JobQueue(LocalRunner(lambda: manager), store)
    after.open()
    found = {entry.job.id: entry for entry in after.of("")}
    assert {type(entry.standing.state) for entry in found.values()} == {Interrupted}
    after.remove(found[running.job.id])
    assert not running.folder.path.exists()
    again = found[waiting.job.id]
    after.go_on(again)
    watch(after, again)
    fresh = after.submit(dataclasses.replace(job(), id=secrets.token_hex(16)))
    watch(after, fresh)
    after.close()
    videos = [entry.standing.stored.files[".mp4"].read_bytes() for entry in (again, fresh)]
    assert videos[0] == videos[1]


def test_where_a_file_system_has_no_locks_jobs_are_made_and_gone_on_with_and_that_is_told_once(
    manager, tmp_path, job, monkeypatch, caplog
):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("serving.store.fcntl.flock", flock)
    store = JobStore(tmp_path)
    before = JobQueue(LocalRunner(lambda: manager), store)
    left = before.submit(job())
    before.submit(dataclasses.replace(job(), id=secrets.token_hex(16)))
    told = f"{tmp_path} has no locks (No locks available): no other program may work in it meanwhile."
    assert caplog.messages == [told]
    queue = JobQueue(LocalRunner(lambda: manager), store)
    queue.open()
    entry = queue.find(left.job.id, "")
    queue.go_on(entry)
    watch(queue, entry)
    queue.close()


class HeardRunner(LocalRunner):
    """Remembers how far its jobs were, more often than whoever watches is told."""

    heard: tuple[Progress, ...] = ()

    def run(self, job):
        for event in super().run(job):
            if isinstance(event, Progress):
                self.heard += (event,)
            yield event


class SharingRunner(LocalRunner):
    """Makes each video as two workers do, of parts."""

    def run(self, job):
        videos = []
        for number in range(2):
            for event in super().run(dataclasses.replace(job, share=Share(number, 2))):
                if isinstance(event, Finished):
                    videos.append(event.video)
                else:
                    yield event
        yield from joined(job.request, videos)


def test_a_job_that_several_workers_made_tells_nothing_of_how_long_one_takes(manager, store, job):
    for runner in (SharingRunner, LocalRunner):
        queue = JobQueue(runner(lambda: manager), store)
        queue.open()
        entry = queue.submit(job())
        watch(queue, entry)
        queue.close()
        assert isinstance(entry.standing.state, Done)
        assert (queue.pace.estimate(entry.job, "cuda") is None) == (runner is SharingRunner)


@pytest.mark.slow
def test_a_program_that_is_killed_loses_a_step_and_the_next_one_makes_the_same_video(
    manager, store, job, tiny_checkpoint
):
    command = [sys.executable, "-c", KILLED_IN_THE_MIDDLE, str(store.folder), str(tiny_checkpoint)]
    killed = subprocess.run(command, check=False, cwd=Path(queue_module.__file__).parent.parent, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    runner = HeardRunner(lambda: manager)
    queue = JobQueue(runner, store)
    queue.open()
    (entry,) = queue.of("")
    assert isinstance(entry.standing.state, Interrupted)
    assert entry.folder.steps.is_dir()
    queue.go_on(entry)
    watch(queue, entry)
    assert "Going on after the last step that an earlier run has kept." in entry.standing.notes
    smoothed = [progress.step for progress in runner.heard if progress.stage == "Smoothing the background"]
    assert min(smoothed) >= 2
    assert not entry.folder.steps.exists()
    assert queue.pace.estimate(entry.job, "cuda") is None  # a part of a job tells nothing of how long one takes
    fresh = queue.submit(job(SMOOTHED))
    watch(queue, fresh)
    queue.close()
    videos = [made.standing.stored.files[".mp4"].read_bytes() for made in (entry, fresh)]
    assert videos[0] == videos[1]


@pytest.mark.parametrize("patience", [60.0, 3600.0])
def test_a_shared_machine_works_only_for_those_who_wait(manager, store, job, patience):
    queue = JobQueue(LocalRunner(lambda: manager), store, patience=patience)
    first, left, last = (queue.submit(job(), owner) for owner in ("ann", "bob", "ann"))
    left.seen -= 100

    async def wait():
        watching = [asyncio.create_task(until(queue, entry, Done)) for entry in (first, last)]
        await asyncio.sleep(0)  # they have begun
        queue.open()
        await asyncio.gather(*watching)

    asyncio.run(wait())
    queue.close()
    assert isinstance(first.standing.state, Done)
    assert isinstance(last.standing.state, Done)
    assert isinstance(left.standing.state, Done if patience > 100 else Stopped)


def test_nobody_has_left_whose_page_is_open_whatever_it_shows(manager, store, job):
    queue = JobQueue(LocalRunner(lambda: manager), store, patience=0.0)
    queue.presence.note("her page", "ann")
    with queue.presence.beating("her page"):
        hers, his = queue.submit(job(), "ann"), queue.submit(job(), "bob")
        queue.open()
        unwatched(hers)
    after = queue.submit(job(), "ann")
    unwatched(after)
    queue.close()
    assert isinstance(hers.standing.state, Done)
    assert isinstance(his.standing.state, Stopped)
    assert isinstance(after.standing.state, Stopped)


def test_who_waits_for_several_waits_for_the_last_too(manager, store, job):
    queue = JobQueue(LocalRunner(lambda: manager), store, patience=60.0)
    first, last = queue.submit(job(), "ann"), queue.submit(job(), "ann")
    with queue.awaited([first, last]):
        first.seen = last.seen = time.monotonic() - 100
        queue.open()
        watch(queue, first)
        watch(queue, last, Done | Stopped)
    queue.close()
    assert isinstance(last.standing.state, Done)


def test_what_somebody_who_left_has_paused_ends_and_leaves_its_place_to_others(manager, store, job):
    limits = Limits(waiting=2, neighbours=1)
    queue = JobQueue(LocalRunner(lambda: manager), store, patience=60.0, limits=limits)
    entries = [queue.submit(job(), "ann", address="198.51.100.7") for _ in range(2)]
    queue.pause("ann")
    queue.presence.note("her page", "ann")
    for entry in entries:
        entry.seen -= 100
    with queue.presence.beating("her page"):
        assert queue.room("bob", "198.51.100.7") == 0
    queue.presence._sessions["her page"].seen -= 100
    assert queue.room("bob", "198.51.100.7") == 2
    assert [entry.folder.standing().state for entry in entries] == [Stopped(), Stopped()]
    assert not queue.is_paused("ann")


def test_a_job_in_the_queue_keeps_its_folder_and_what_is_forgotten_leaves_the_memory(manager, tmp_path, job):
    store = JobStore(tmp_path, keep_seconds=3600.0)
    queue = JobQueue(LocalRunner(lambda: manager), store, limits=Limits())
    waits, over, newly_over = (queue.submit(job(), "ann") for _ in range(3))
    queue.stop(over)
    queue.stop(newly_over)
    for entry in (waits, over):
        os.utime(entry.folder.path / STATE, (0, 0))
    last = queue.submit(job(), "bob")
    assert waits.folder.path.is_dir()
    assert not over.folder.path.exists()
    assert list(queue._entries.values()) == [waits, newly_over, last]


def test_a_job_that_was_cut_off_is_forgotten_in_time_though_nobody_else_may_have_it(manager, tmp_path, job):
    store = JobStore(tmp_path, keep_seconds=3600.0)
    cut_off = store.add(job(), "ann")
    queue = JobQueue(LocalRunner(lambda: manager), store, limits=Limits())
    queue.open()
    assert cut_off.claim() is None
    os.utime(cut_off.path / STATE, (0, 0))
    last = queue.submit(job(), "bob")
    assert not cut_off.path.exists()
    assert list(queue._entries.values()) == [last]
    queue.close()


def test_a_job_that_somebody_goes_on_with_is_not_forsaken_however_old(manager, store, job):
    store.add(job(), "ann")
    queue = JobQueue(LocalRunner(lambda: manager), store, patience=3600.0)
    queue.open()
    (found,) = queue.of("ann")
    found.seen -= 2 * 3600.0
    queue.go_on(found)
    watch(queue, found, Done | Stopped)
    queue.close()
    assert isinstance(found.standing.state, Done)


def test_a_finished_job_is_there_again_in_the_next_program(manager, store, queue, job):
    queue.open()
    entry = queue.submit(job())
    watch(queue, entry)
    after = JobQueue(LocalRunner(lambda: manager), store)
    after.open()
    (found,) = after.of("")
    assert found.standing.stored == entry.standing.stored
    assert found.standing.state.seconds == pytest.approx(entry.standing.state.seconds)
    after.remove(found)
    assert after.of("") == []
    after.close()


def test_notes_stay_and_a_new_standing_replaces_the_old(queue, job):
    entry = queue.submit(job())
    before = entry.standing
    after = before.after(Notice("one")).after(Notice("two"))
    assert (before.notes, after.notes) == ((), ("one", "two"))
    assert isinstance(before.state, Queued)

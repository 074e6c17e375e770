"""Workers as real actors: leased to one job at a time, stopped within a step, and replaced when they are lost."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import closing
from pathlib import Path

import imageio
import numpy as np
import pytest

import app
from model_manager import ModelManager
from serving.jobs import Done, Failed, Refusal, Running, Stopped
from serving.options import read_options
from serving.queue import JobQueue
from serving.runners import ray_pool
from serving.runners import worker as worker_module
from serving.runners.local import LocalRunner
from serving.runners.ray_pool import RayRunner, with_own_sound
from serving.runners.worker import Ended, Worker
from serving.store import JobStore
from tests.example_files import with_a_tone
from tests.served import free_port
from text2video_zero.errors import UserError
from text2video_zero.events import Finished, Notice, Preview, Progress
from text2video_zero.job import Job
from text2video_zero.media.files import STEPS_FILE
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.requests import TextToVideoRequest
from text2video_zero.sampling import kept_steps

SHORT = TextToVideoRequest(prompt="a fox", frames=2, steps=4, seed=3)
LONG = dataclasses.replace(SHORT, steps=900)
OPEN_MODELS = functools.partial(ModelManager, "cpu")
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray, an extra, is not installed")


@pytest.fixture
def job(tiny_checkpoint):
    def ask(request=SHORT):
        return Job(request, Checkpoint(str(tiny_checkpoint)))

    return ask


def events_of(worker):
    """All that a worker tells of its job, the refusal that may end it too."""
    events = []
    while not isinstance(event := worker.next_event().event, Ended):
        events.append(event)
        if isinstance(event, Refusal):
            break
    return events


class TestWithoutACluster:
    @pytest.mark.parametrize("workers", ["2", "local:0", "local:", "http://head:1", "ray://"])
    def test_what_names_no_workers_is_refused(self, workers):
        with pytest.raises(UserError, match=f"--workers is '{workers}': write local:2 for two here"):
            RayRunner(workers, OPEN_MODELS)

    def test_the_flag_and_its_variable_choose_who_computes(self, monkeypatch):
        assert isinstance(app.open_runner(read_options([])), LocalRunner)
        assert isinstance(app.open_runner(read_options(["--workers", "local:2"])), RayRunner)
        monkeypatch.setenv("TEXT2VIDEO_WORKERS", "ray://head:10001")
        assert isinstance(app.open_runner(read_options([])), RayRunner)

    def test_what_is_missing_is_told_with_its_remedy(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(UserError, match=r'Workers need Ray, which is not installed: pip install "\.\[ray\]"'):
            RayRunner("local:2", OPEN_MODELS).open()

    @needs_ray
    def test_a_cluster_that_does_not_answer_is_told_at_once(self):
        port = free_port()
        with pytest.raises(UserError, match=rf"Ray cannot be had at ray://127\.0\.0\.1:{port} \(.*refused\): see that"):
            RayRunner(f"ray://127.0.0.1:{port}", OPEN_MODELS).open()

    def test_a_worker_reads_clip_and_picture_from_the_bytes_that_came_with_them(self, orders, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        checkpoint, request = orders["pose"]
        clip = Path(request.clip).read_bytes()
        names = {"clip": "clip.gif", "start_picture": "me.gif"}
        elsewhere = {field: f"/on/another/machine/{name}" for field, name in names.items()}
        worker = Worker(OPEN_MODELS)
        worker.open()
        worker.begin(Job(dataclasses.replace(request, **elsewhere), checkpoint), dict.fromkeys(names, clip))
        *_, finished = events_of(worker)
        assert names.items() <= finished.video.settings["request"].items()
        assert sorted(path.name for path in tmp_path.glob("*brought*/*/*")) == ["clip.gif", "me.gif"]
        worker.close()
        assert not list(tmp_path.glob("*brought*"))

    def test_the_sound_of_a_worker_s_video_is_that_of_the_clip_here(self, orders, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        checkpoint, request = orders["pose"]
        request = dataclasses.replace(request, clip=str(with_a_tone(Path(request.clip), tmp_path)))
        asked = Job(dataclasses.replace(request, keep_sound=True), checkpoint)
        leased = Worker(OPEN_MODELS)
        leased.open()
        leased.begin(asked, {"clip": Path(request.clip).read_bytes()})
        *_, finished = events_of(leased)
        leased.close()
        assert not finished.video.sound.clip.exists()
        assert with_own_sound(finished.video, asked).sound.clip == Path(request.clip)
        silent = dataclasses.replace(finished.video, sound=None)
        assert with_own_sound(silent, asked) is silent

    def test_what_a_lost_worker_has_kept_another_goes_on_from_to_the_same_end(self, job, monkeypatch):
        monkeypatch.setattr(kept_steps, "SECONDS_BETWEEN", 0.0)
        monkeypatch.setattr(worker_module, "STEPS_SECONDS", 0.0)
        request = job(dataclasses.replace(SHORT, steps=12))
        first, second, alone = (Worker(OPEN_MODELS) for _ in range(3))
        for one in (first, second, alone):
            one.open()
        first.begin(request, {})
        told = []
        while sum(steps(one.event) for one in told) < 8:
            told.append(first.next_event())
        latest = [one.steps for one in told if one.steps][-1]
        first.close()
        second.begin(request, {}, latest)
        events = events_of(second)
        assert any("Going on after the last step" in event.text for event in events if isinstance(event, Notice))
        alone.begin(request, {})
        whole = events_of(alone)
        assert sum(map(steps, events)) < sum(map(steps, whole))
        assert np.array_equal(np.asarray(events[-1].video.frames), np.asarray(whole[-1].video.frames))

    def test_a_mistake_is_a_value_and_the_worker_goes_on(self, job, tmp_path):
        worker = Worker(OPEN_MODELS)
        worker.open()
        worker.begin(Job(SHORT, Checkpoint(str(tmp_path / "missing"))), {})
        assert isinstance(events_of(worker)[-1], Refusal)
        worker.begin(job(), {})
        assert isinstance(events_of(worker)[-1], Finished)
        with pytest.raises(RuntimeError, match="opened before"):
            Worker(OPEN_MODELS).begin(job(), {})

    def test_a_device_that_cannot_be_had_is_told_in_its_own_sentence(self):
        answer = Worker(functools.partial(ModelManager, "cuda:77")).open()
        assert "The device 'cuda:77' cannot be used here" in answer.sentence


class PromptRunner(RayRunner):
    """Its workers are free as soon as they are given back."""

    def _await_worker(self, worker):
        self._free.put(worker)


def test_workers_that_are_given_back_at_once_are_all_free_again(monkeypatch):
    """Each job gives back its own, from a thread of the queue."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    monkeypatch.setattr(threading, "excepthook", lambda raised: failures.append(raised.exc_value))
    failures = []
    try:
        for _ in range(100):
            runner, together = PromptRunner("local:8", OPEN_MODELS), threading.Barrier(8)

            def give_back(number, runner=runner, together=together):
                together.wait()
                runner._give_back(number)

            callers = [threading.Thread(target=give_back, args=(number,)) for number in range(8)]
            for thread in callers:
                thread.start()
            for thread in callers:
                thread.join()
            for thread in runner._awaiting:
                thread.join()
            assert failures == []
            assert sorted(runner._free.get(timeout=10) for _ in range(runner.free)) == list(range(8))
    finally:
        sys.setswitchinterval(interval)


def ray_starts():
    """Whether Ray does, without anything of ours: a small container may lack the shared memory that it wants."""
    program = "import ray; ray.init('local', num_cpus=1, include_dashboard=False)"
    try:
        return subprocess.run([sys.executable, "-c", program], check=False, timeout=240).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@pytest.fixture(scope="module")
def pool():
    """Two workers on this machine; Ray's own processes take half a minute to start, and end with it."""
    runner = RayRunner("local:2", OPEN_MODELS)
    try:
        runner.open()
    except Exception as error:
        if not ray_starts():
            pytest.skip(f"Ray itself does not start on this machine: {error}")
        raise
    yield runner
    runner.close()


@pytest.fixture
def queue(pool, tmp_path):
    made = JobQueue(pool, JobStore(tmp_path / "jobs"))
    made.open()
    yield made
    made.close()


async def until(queue, entry, kind):
    """Watch a job until it is in a state."""
    async for standing, _ in queue.watched(entry):
        if isinstance(standing.state, kind):
            return standing
    return entry.standing


def pids(pool):
    """The processes of the workers, in the order in which they are leased; all must be free, or become so."""
    import ray

    workers = [pool._free.get(timeout=300) for _ in range(pool.slots)]
    found = [ray.get(worker.__ray_call__.remote(lambda _: os.getpid())) for worker in workers]
    for worker in workers:
        pool._free.put(worker)
    return found


def steps(event):
    return isinstance(event, Progress) and event.of > 1


def events_with_a_worker_killed(pool, job):
    """All events of a job, one of whose workers is killed at the third step."""
    first, _ = pids(pool)
    events = []
    for event in pool.run(job):
        events.append(event)
        if steps(event) and event.step == 3 and first:
            os.kill(first, signal.SIGKILL)
            first = 0
    assert any("A worker was lost" in event.text for event in events if isinstance(event, Notice))
    return events


@needs_ray
@pytest.mark.slow
class TestActors:
    def test_the_page_is_told_what_there_is(self, pool):
        assert (pool.slots, pool.kind, pool.describe_device()) == (2, "cpu", "2 workers on CPU")

    def test_two_jobs_run_at_once_and_are_those_of_one_machine(self, queue, job, manager):
        both = [queue.submit(job(dataclasses.replace(LONG, seed=seed))) for seed in (1, 2)]

        async def run_at_once():
            for entry in both:
                await until(queue, entry, Running)
            assert all(isinstance(entry.standing.state, Running) for entry in both)
            for entry in both:
                queue.stop(entry)
                assert isinstance((await until(queue, entry, Stopped)).state, Stopped)

        asyncio.run(run_at_once())
        entry = queue.submit(job())
        standing = asyncio.run(until(queue, entry, Done | Failed))
        assert isinstance(standing.state, Done)
        assert standing.preview is not None
        *_, alone = LocalRunner(lambda: manager).run(job())
        with zipfile.ZipFile(standing.stored.files[".zip"]) as archive:
            frames = [imageio.v3.imread(archive.read(f"frame_{number:04d}.png")) for number in range(2)]
        apart = np.stack(frames).astype(int) - np.asarray(alone.video.frames)
        assert np.abs(apart).max() <= 1  # a worker has half of the cores, and so many threads round otherwise

    def test_a_clip_goes_along_and_its_maps_come_back(self, pool, orders):
        checkpoint, request = orders["pose"]
        *_, finished = pool.run(Job(request, checkpoint))
        assert len(finished.video.frames) == request.frames
        with pytest.raises(UserError, match=r"is a folder, which cannot be sent to workers: pack it into a \.zip"):
            next(pool.run(Job(dataclasses.replace(request, clip=str(Path(request.clip).parent)), checkpoint)))

    def test_a_mistake_is_told_in_its_own_sentence(self, pool, tmp_path):
        with pytest.raises(UserError) as caught:
            list(pool.run(Job(SHORT, Checkpoint(str(tmp_path / "missing.safetensors")))))
        assert "missing.safetensors" in str(caught.value)
        assert "Traceback" not in str(caught.value)

    def test_a_job_whose_worker_is_killed_goes_on_with_another(self, pool, job):
        request = dataclasses.replace(SHORT, steps=40)
        events = events_with_a_worker_killed(pool, job(request))
        assert isinstance(events[-1], Finished)
        assert len(pids(pool)) == 2  # the lost one is there again

    def test_a_long_clip_is_made_by_all_and_is_that_of_one(self, pool, job, manager):
        request = dataclasses.replace(SHORT, frames=19, play_fps=16, fps=8)
        pids(pool)  # both are free
        events = list(pool.run(job(request)))
        *_, alone = LocalRunner(lambda: manager).run(job(request))
        made, wanted = (np.asarray(video.frames).astype(int) for video in (events[-1].video, alone.video))
        assert made.shape == wanted.shape
        assert np.abs(made - wanted).max() <= 1
        assert events[-1].video.settings == alone.video.settings
        assert "Joining" in {event.stage for event in events if isinstance(event, Progress)}
        assert 19 in {len(event.frames) for event in events if isinstance(event, Preview)}

    def test_a_part_whose_worker_is_killed_is_made_by_another(self, pool, job, manager):
        request = dataclasses.replace(SHORT, frames=16, steps=20)
        events = events_with_a_worker_killed(pool, job(request))
        *_, alone = LocalRunner(lambda: manager).run(job(request))
        apart = np.asarray(events[-1].video.frames).astype(int) - np.asarray(alone.video.frames)
        assert np.abs(apart).max() <= 1

    def test_a_job_that_ends_with_the_program_is_gone_on_with_in_the_next(self, pool, queue, job, tmp_path):
        pids(pool)  # both are free
        with closing(pool.run(job(LONG))) as other:
            next(event for event in other if steps(event))
            entry = queue.submit(job(dataclasses.replace(LONG, frames=16)))  # which two would share
            until_kept = time.monotonic() + 120
            while not (entry.folder.steps / STEPS_FILE).exists():
                assert time.monotonic() < until_kept
                time.sleep(0.1)
        queue.close()
        queue._release(entry)  # what the end of a program does
        pids(pool)
        after = JobQueue(pool, JobStore(tmp_path / "jobs"))
        after.open()
        [again] = after.of("")
        after.go_on(again)

        async def stopped():
            async for standing, _ in after.watched(again):
                if "Going on after the last step that an earlier run has kept." in standing.notes:
                    after.stop(again)

        asyncio.run(stopped())
        after.close()
        assert isinstance(again.standing.state, Stopped)

    def test_what_brings_down_workers_is_given_up(self, pool, job, monkeypatch):
        monkeypatch.setattr(ray_pool, "MOST_TRIES", 1)
        first, _ = pids(pool)
        with closing(pool.run(job(LONG))) as events:
            next(event for event in events if steps(event))
            os.kill(first, signal.SIGKILL)
            with pytest.raises(UserError, match="1 workers were lost with this video"):
                list(events)

    @pytest.mark.usefixtures("pool")
    def test_a_worker_that_a_bug_keeps_from_opening_is_told_and_left_out(self, caplog):
        import ray

        runner = RayRunner("local:1", functools.partial(ModelManager, "cpu", no_such_option=1))
        runner._count = 1
        runner._give_back(ray.remote(Worker).options(num_cpus=0).remote(runner._open_models))
        try:
            with pytest.raises(UserError, match="Something went wrong, the log has the details"):
                runner._first_answer()
            with pytest.raises(UserError, match="No worker can compute any more"):
                list(runner._leased(1))
        finally:
            runner._closed.set()
        assert "no_such_option" in caplog.text

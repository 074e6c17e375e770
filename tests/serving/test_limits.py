"""What one visitor may ask for, of a job, of a clip, and of the queue."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest

from serving.jobs import Failed
from serving.queue import JobQueue
from serving.runners.local import LocalRunner
from serving.store import JobStore
from serving.visitors.limits import Limits
from tabs.parts.clip_source import showing_used_part
from tests.example_files import write_clip
from tests.media.clip_files import counting, written
from tests.serving.conftest import SHORT
from text2video_zero.errors import UserError
from text2video_zero.job import Job
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.requests import EdgeRequest

SOME_MODEL = Checkpoint("owner/name")
LIMITS = Limits()


class TestOfAJob:
    @pytest.mark.parametrize(
        ("asked", "sentence"),
        [
            ({"frames": 512}, "Frames is 512, but a shared page draws at most 128: ask for less."),
            (
                {"frames": 64, "fps": 1, "play_fps": 60},
                "Play at 60 makes 3840 frames, but a shared page writes at most",
            ),
            ({"size": "2048x2048"}, "Size is 2048x2048, but a shared page draws at most 1024x1024 or as many pixels."),
            ({"steps": 999}, "Steps is 999, but a shared page takes at most 100: ask for fewer."),
        ],
    )
    def test_what_is_too_much_is_told_with_the_value_and_the_most(self, asked, sentence):
        with pytest.raises(UserError) as told:
            Limits().check(Job(dataclasses.replace(SHORT, **asked), SOME_MODEL))
        assert sentence in str(told.value)

    @pytest.mark.parametrize("asked", [{}, {"frames": 128}, {"size": "1152x896"}, {"size": "1344x768"}, {"steps": 100}])
    def test_what_is_usual_passes(self, asked):
        Limits().check(Job(dataclasses.replace(SHORT, **asked), SOME_MODEL))

    def test_a_model_s_own_size_counts_where_none_is_given(self):
        with pytest.raises(UserError, match="Size is the model's own, but a shared page draws at most 256x256"):
            Limits(pixels=256 * 256).check(Job(dataclasses.replace(SHORT, size=None), SOME_MODEL))

    def test_the_owner_sets_them_by_name(self):
        assert Limits.read(["frames=8", "steps=20"]) == dataclasses.replace(Limits(), frames=8, steps=20)
        for wrong in ("frames", "frames=", "frames=0", "frames=-1", "frames=many", "__class__=1", "words=3"):
            with pytest.raises(
                UserError,
                match=r"The limit '.*' is none: give one of clip, decoded, events, frames, minute, neighbours",
            ):
                Limits.read([wrong])


class TestOfAClip:
    """A clip is opened, and what a run would use of it is measured; ten pictures of ten seconds each here."""

    @pytest.fixture(scope="class")
    @classmethod
    def clip(cls, tmp_path_factory):
        return written(tmp_path_factory.mktemp("clips") / "long.mp4", counting(10), "1/10")

    def look(self, clip, limits=LIMITS, **changes):
        request = EdgeRequest(**{"prompt": "a fox", "clip": str(clip), "frames": 128, "fps": 1} | changes)
        return list(limits.checking_clip(Job(request, SOME_MODEL)))

    def test_a_part_that_is_too_long_is_told_with_its_length_and_the_most(self, clip):
        with pytest.raises(UserError) as told:
            self.look(clip)
        assert str(told.value) == (
            "The part of the clip that is used lasts 100 seconds, but a shared page reads at most 60: "
            "ask for fewer Frames or more Frames per second, or cut the clip."
        )

    @pytest.mark.parametrize(
        "part", [{"frames": 60}, {"fps": 8}, {"first_frame": 40}, {"first_frame": 720, "fps": 8}, {"first_frame": 500}]
    )
    def test_of_a_long_clip_what_is_used_counts_alone(self, clip, part):
        self.look(clip, **part)

    def test_frames_that_lie_between_those_that_are_used_count(self, tmp_path):
        clip = written(tmp_path / "quick.mp4", np.zeros((90, 48, 64, 3), np.uint8), 60)
        with pytest.raises(UserError, match=r"that is used has 60 frames, but a shared page decodes at most 59:"):
            self.look(clip, Limits(decoded=59), frames=8, fps=8)
        self.look(clip, Limits(decoded=60), frames=8, fps=8)

    def test_pictures_without_times_are_as_many_as_are_asked_for(self, tmp_path):
        self.look(write_clip(tmp_path, "zip"), Limits(clip=1, decoded=1))

    def test_it_is_refused_before_a_model_is_loaded_and_the_page_says_so_at_once(self, clip, tmp_path):
        queue = JobQueue(LocalRunner(pytest.fail), JobStore(tmp_path / "jobs"), limits=LIMITS)
        entry = queue.submit(Job(EdgeRequest(prompt="a fox", clip=str(clip), frames=128, fps=1, steps=4), SOME_MODEL))
        assert queue._next() is entry
        with pytest.raises(UserError, match="lasts 100 seconds"):
            queue._run(entry)
        *_, shown = showing_used_part(0, 128, 1, {"path": str(clip)}, limits=LIMITS)
        assert "lasts 100 seconds, but a shared page reads at most 60" in shown
        *_, shown = showing_used_part(0, 128, 1, {"path": str(clip)})
        assert "Frames 0 to 99 are used" in shown


class TestOfAVisitor:
    def test_a_session_and_an_address_have_so_many_jobs_in_the_queue(self, queue_with, job):
        queue = queue_with(waiting=2, neighbours=2)
        for session in ("ann", "ann", "bob"):
            queue.submit(job(), session, address="198.51.100.7")
        with pytest.raises(UserError, match="The queue takes no more of yours now: wait a minute"):
            queue.submit(job(), "ann", address="203.0.113.9")
        assert queue.room("another name", "198.51.100.7") == 1
        queue.submit(job(), "another name", address="198.51.100.7")
        assert queue.room("one more name", "198.51.100.7") == 0
        assert queue.room("one more name", "203.0.113.9") == 2

    def test_and_so_many_within_a_minute_however_soon_they_are_over(self, queue_with, job):
        queue = queue_with(minute=2, neighbours=1)
        for _ in range(2):
            queue.stop(queue.submit(job(), "ann", address="198.51.100.7"))
        assert queue.room("ann", "203.0.113.9") == 0
        assert queue.room("bob", "198.51.100.7") == 0
        assert queue.room("bob", "203.0.113.9") == 2
        for moments in queue._asked._moments.values():
            moments.extend(moment - 61 for moment in [moments.popleft() for _ in range(len(moments))])
        assert queue.room("ann", "198.51.100.7") == 2
        queue.stop(queue.submit(job(), "bob", address="203.0.113.9"))
        assert "ann" not in queue._asked._moments

    def test_what_is_too_large_leaves_nothing_behind(self, queue_with, job, tmp_path):
        queue = queue_with(frames=1)
        with pytest.raises(UserError, match="Frames is 2"):
            queue.submit(job(), "ann")
        assert list((tmp_path / "jobs").iterdir()) == []

    def test_a_job_that_takes_too_long_ends_with_a_sentence(self, queue_with, job):
        queue = queue_with(seconds=0)
        queue.open()
        entry = queue.submit(job(steps=20), "ann")

        async def wait():
            return [standing async for standing, _ in queue.watched(entry)]

        assert asyncio.run(wait())[-1].state == Failed(
            "This took longer than the 0 seconds that a shared page gives to a video: "
            "ask for fewer frames or steps, or a smaller size."
        )

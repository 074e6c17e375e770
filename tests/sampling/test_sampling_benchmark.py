"""What is measured beside diffusers' pipeline is the same work."""

from __future__ import annotations

import imageio
import pytest

from benchmarks import peer
from benchmarks.clips import measured, paper_request
from benchmarks.peer import motion_steps, parts_of_clip
from benchmarks.sampling import works_of
from tests.runs import EvaluationCount
from text2video_zero.tasks.text_to_video import motion_plan


@pytest.mark.parametrize(("frames", "chunk_size"), [(8, 8), (16, 8), (8, 4), (8, 2), (1, 8)])
def test_diffusers_chunks_hold_every_frame_once_and_the_first_in_each(frames, chunk_size):
    parts = list(parts_of_clip(frames, chunk_size))
    assert all(part[0] == 0 and len(part) <= chunk_size for part in parts)
    assert [0] + [frame for part in parts for frame in part[1:]] == list(range(frames))


@pytest.mark.parametrize("steps", [10, 20, 25, 50])
def test_both_take_the_same_steps_for_the_motion(pipeline, steps):
    plan = motion_plan(paper_request(8, 8, steps), pipeline)
    assert motion_steps(steps) == (plan.at_from, plan.at_to)


def test_both_evaluate_the_same_frames_and_we_make_no_more_calls(pipeline):
    works = works_of(pipeline)
    count = EvaluationCount(pipeline.components.unet, branches=2)
    found = {}
    for name in ("8 frames, 8 at a time, 10 steps", "8 frames, 4 at a time, 10 steps"):
        for run in works[name]:
            count.batches.clear()
            run()
            found.setdefault(name, []).append(list(count.batches))
    count.handle.remove()
    whole, parts = found.values()
    assert whole == [[1] + [8] * 10] * 2
    assert parts[0] == [1] + [4, 4] * 10
    assert len(parts[1]) == 3 * (1 + 10)


def test_every_round_runs_every_side_in_turn():
    ran = []
    works = {name: tuple(lambda side=side, name=name: ran.append(name + side) for side in "ab") for name in "12"}
    times = measured(works, rounds=2)
    assert ran == ["1a", "1b", "2a", "2b"] * 2
    assert [[len(seconds) for seconds in sides] for sides in times.values()] == [[2, 2], [2, 2]]


def test_their_process_writes_a_video(tmp_path):
    peer.main(2, 4, str(tmp_path / "theirs.mp4"))
    assert imageio.mimread(tmp_path / "theirs.mp4")[1].shape == (128, 128, 3)

"""Who comes next, and that nobody saves up turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.line import Entry, WaitingLine
from serving.store import JobFolder
from text2video_zero.job import Job
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.requests import TextToVideoRequest

JOB = Job(TextToVideoRequest(prompt="a fox"), Checkpoint("owner/name"))


@pytest.fixture
def line():
    return WaitingLine()


def add(line, owner, jobs, address=""):
    for _ in range(jobs):
        line.add(Entry(JobFolder(Path(), JOB, owner, 0.0, True, None), (), address=address), line.all())


def made(line, jobs):
    """Whose jobs are made, one after the other."""
    owners = ""
    for _ in range(jobs):
        entry = line.due()
        line.begin(entry)
        owners += entry.owner
    return owners


def test_who_pauses_saves_up_no_turns(line):
    add(line, "a", 6)
    line.pause("a")
    add(line, "b", 46)
    assert made(line, 40) == "b" * 40
    line.resume("a")
    add(line, "c", 6)
    assert made(line, 2) == "ac"  # b has had its job of this round
    assert made(line, 15) == "abc" * 5


def test_who_pauses_for_a_moment_loses_no_place(line):
    for owner in "abab":
        add(line, owner, 1)
    line.pause("a")
    line.resume("a")
    assert made(line, 4) == "abab"


def test_names_of_one_address_that_go_on_together_take_one_turn_each_round(line):
    for owner in "xyz":
        add(line, owner, 1, "198.51.100.7")
        line.pause(owner)
    add(line, "b", 9, "203.0.113.9")
    made(line, 5)
    for owner in "xyz":
        line.resume(owner)
    assert made(line, 5) == "xybzb"

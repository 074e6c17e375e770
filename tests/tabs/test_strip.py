"""The strip of what was made: each job's card, with what can be done with it."""

from __future__ import annotations

import numpy as np
import pytest

from serving.jobs import Done, Failed, Interrupted, Queued, Running, Standing, Stopped
from serving.line import Entry
from serving.queue import JobQueue
from serving.store import FORMS, JobStore
from tabs.parts.strip import (
    AGAIN,
    DELETE,
    GO_ON,
    MOST_SHOWN,
    NEXT,
    STOP,
    Strip,
    acts_on,
    ago,
    card,
    queue_line,
    state_in_words,
)
from text2video_zero.events import Progress
from text2video_zero.job import Job
from text2video_zero.models.catalogue import TOYLAND
from text2video_zero.requests import TextToVideoRequest


@pytest.fixture
def store(tmp_path):
    return JobStore(tmp_path)


def job(prompt="a fox", *, maps_only=False):
    return Job(TextToVideoRequest(prompt=prompt, seed=1), TOYLAND.checkpoint, maps_only)


def test_a_card_names_what_was_asked_and_brings_no_html_of_the_prompt_s(store):
    entry = Entry(store.add(job('<img src="x"> & "you"')), tuple(FORMS), Standing(Done(1.0)))
    made = card(entry)
    assert "<img src=&quot;x&quot;&gt;" not in made
    assert "&lt;img src=&quot;x&quot;&gt; &amp; &quot;you&quot;" in made
    assert f'data-job="{entry.job.id}"' in made
    assert "toyland · Text to video · just now" in made
    assert "no-poster" in made
    entry.folder.save_poster(np.zeros((64, 32, 3), np.uint8))
    assert f'src="gradio_api/file={entry.folder.poster}"' in card(entry)


@pytest.mark.parametrize(
    ("state", "acts", "told"),
    [
        (Queued(), [NEXT, STOP], "waits"),
        (Running(Progress("Denoising", 1, 4)), [STOP], "is being made"),
        (Interrupted(), [GO_ON, DELETE], "not finished"),
        (Done(1.0), [AGAIN, DELETE], ""),
        (Failed("No."), [AGAIN, DELETE], "failed"),
        (Stopped(), [AGAIN, DELETE], "stopped"),
    ],
)
def test_what_can_be_done_hangs_on_how_a_job_stands(state, acts, told):
    assert list(acts_on(state)) == acts
    assert told in state_in_words(state)


def test_the_newest_come_first_and_no_more_than_fit(store):
    queue = JobQueue(None, store)
    strip = Strip(queue, None, None)
    assert strip.listed("") == ""
    queue.submit(job("a map", maps_only=True))
    assert strip.listed("") == ""
    for number in range(MOST_SHOWN + 2):
        queue.submit(job(f"fox {number}"))
    listed = strip.listed("")
    assert listed.count('class=""') == MOST_SHOWN
    assert listed.count('class="earlier"') == 2
    assert listed.index(f"fox {MOST_SHOWN + 1}<") < listed.index("fox 2<")
    assert "2 earlier ones" in listed


def test_what_waits_can_be_paused_emptied_and_put_first_but_for_what_is_first(store):
    queue = JobQueue(None, store)
    strip = Strip(queue, None, None)
    assert queue_line(0, paused=False) == ""
    for number in range(3):
        queue.submit(job(f"fox {number}"))
    assert strip.listed("").count('data-act="next"') == 2
    assert "3 wait in the queue." in strip.listed("")
    assert 'data-act="pause"' in strip.listed("")
    queue.pause("")
    assert "3 wait in the queue, which is paused." in strip.listed("")
    assert 'data-act="resume"' in strip.listed("")
    queue.empty("")
    assert "in the queue" not in strip.listed("")


def test_the_filter_finds_a_card_by_its_prompt_its_model_and_its_task(store):
    made = card(Entry(store.add(job('A Fox "at" sea')), tuple(FORMS), Standing(Done(1.0))))
    assert 'data-words="a fox &quot;at&quot; sea toyland text to video"' in made


def test_how_long_ago_is_said_as_a_person_would(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_000_000.0)
    assert [ago(1_000_000.0 - seconds) for seconds in (5, 70, 600)] == ["just now", "70 s ago", "10 min ago"]
    assert "1970" in ago(200_000.0)

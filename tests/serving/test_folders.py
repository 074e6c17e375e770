"""What strangers are not told of the machine."""

from __future__ import annotations

import asyncio

import pytest

from serving.queue import JobQueue
from serving.runners.local import LocalRunner
from serving.store import JobStore
from serving.visitors.folders import without_folders
from tests.serving.conftest import SHORT
from text2video_zero.job import Job
from text2video_zero.models.checkpoints import Checkpoint


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("/srv/out/text-1/a.mp4 cannot be written, no.", "a.mp4 cannot be written, no."),
        ("No. The frames are kept in /tmp/a-1.zip.", "No. The frames are kept in a-1.zip."),
        ("the disk has 2 MB left in /tmp: free some", "the disk has 2 MB left in tmp: free some"),
        (
            "It failed ('/a/b/c.py'), see https://example.com/a/b or half/half, 1 / 2.",
            "It failed ('c.py'), see https://example.com/a/b or half/half, 1 / 2.",
        ),
    ],
)
def test_sentences_name_no_folder(sentence, told):
    assert without_folders(sentence) == told


def test_addresses_stay_whole_where_home_or_the_present_folder_is_the_root(monkeypatch):
    monkeypatch.setenv("HOME", "/")
    monkeypatch.chdir("/")
    sentence = "The Hub at https://example.com does not answer."
    assert without_folders(sentence) == sentence


def test_strangers_learn_no_folder_and_the_owner_does(queue_with, tmp_path, manager):
    own = JobQueue(LocalRunner(lambda: manager), JobStore(tmp_path / "own"))
    sentences = []
    for queue in (queue_with(), own):
        queue.open()
        entry = queue.submit(Job(SHORT, Checkpoint(str(tmp_path / "missing.safetensors"))), "ann")

        async def wait(queue=queue, entry=entry):
            return [standing async for standing, _ in queue.watched(entry)]

        sentences.append(asyncio.run(wait())[-1].state.sentence)
    own.close()
    assert "missing.safetensors" in sentences[0]
    assert [str(tmp_path) in sentence for sentence in sentences] == [False, True]

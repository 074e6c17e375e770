"""Which models' prompts can be counted before anything is loaded."""

from __future__ import annotations

import pytest

from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.prompts.counting import tokenizer_here


@pytest.mark.parametrize(
    "source",
    [
        *["owner/files/old.ckpt", "owner/files/new.safetensors", "owner/files/deep/er.ckpt", "owner/unheard-of"],
        *["./mine.ckpt", "../mine", "/nowhere/mine.safetensors", "mine", "mine.ckpt", "a/b/c/d"],
    ],
)
def test_what_has_no_tokenizer_here_is_not_counted(source):
    assert tokenizer_here(Checkpoint(source)) is None


def test_a_folder_has_its_own(tiny_checkpoint, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_checkpoint.parent))
    for source in (str(tiny_checkpoint), f"~/{tiny_checkpoint.name}"):
        assert tokenizer_here(Checkpoint(source)) is not None

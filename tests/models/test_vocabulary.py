"""The words that a small model knows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2video_zero.models.vocabulary import FILE_NAME, Vocabulary
from toyland.world.captions import VOCABULARY

TOYS = Vocabulary(VOCABULARY)
KNOWN = sorted(
    {part for words in VOCABULARY.values() for entries in words.values() for entry in entries for part in entry.split()}
)


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a red panda dancing in the snow", []),
        ("A RED Panda, dancing; in the SNOW!", []),
        ("a teddy bear on the lunar surface", []),
        ("a red zebra dancing in the jungle", ["zebra", "jungle"]),
        ("zebra zebra Zebra", ["zebra"]),
        ("jungle zebra", ["jungle", "zebra"]),
        ("a panda's ball-game", ["panda's", "ball-game"]),
        ("ein Bär im Schnee", ["ein", "bär", "im", "schnee"]),
        ("红熊猫", ["红熊猫"]),
        ("snow_man 8k", ["man", "8k"]),
        ("", []),
        ("!? ...", []),
    ],
)
def test_unknown_words_are_told_once_in_order(prompt, unknown):
    assert TOYS.unknown_words(prompt) == unknown


@given(st.lists(st.sampled_from(KNOWN)), st.lists(st.sampled_from([" ", ", ", ". ", "\n"]), min_size=1))
def test_known_words_are_never_called_unknown(words, separators):
    text = "".join(word + separators[number % len(separators)] for number, word in enumerate(words))
    assert TOYS.unknown_words(text) == []


@given(st.text())
def test_any_text_is_taken(text):
    unknown = TOYS.unknown_words(text)
    assert len(unknown) == len(set(unknown))
    assert not set(unknown) & set(KNOWN)


def test_words_are_shown_by_role_without_the_little_ones():
    roles = TOYS.words_by_role()
    assert "panda" in roles["subjects"]
    assert "teddy" not in roles["subjects"]
    assert "other" not in roles


def test_it_is_read_from_the_models_folder(tmp_path):
    (tmp_path / FILE_NAME).write_text(json.dumps(VOCABULARY, ensure_ascii=False), encoding="utf-8")
    read = Vocabulary.read(tmp_path)
    assert read == TOYS
    assert read.unknown_words("a scarlet yeti") == ["yeti"]


def test_models_without_a_list_have_none(tmp_path):
    assert Vocabulary.read(tmp_path) is None
    assert Vocabulary.read(tmp_path / "no such folder") is None

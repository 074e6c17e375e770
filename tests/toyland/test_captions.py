"""Captions name what is in the scene, and can be read back."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toyland.world.captions import VOCABULARY, caption, parse, plain_caption
from toyland.world.scene import ACTIONS, COLORS, PLACES, SUBJECTS, WEATHER, Scene, random_scene

KNOWN_WORDS = {
    word for words in VOCABULARY.values() for phrases in words.values() for phrase in phrases for word in phrase.split()
}


@given(st.integers(0, 2**32 - 1))
def test_captions_are_read_back(seed):
    rng = np.random.default_rng(seed)
    scene = random_scene(rng)
    text = caption(scene, rng)
    found = parse(text)
    assert {"subject", "color", "place"} <= found.keys(), text
    for attribute, value in found.items():
        assert getattr(scene, attribute) == value, text


@given(st.integers(0, 2**32 - 1))
def test_captions_use_words_of_the_vocabulary_only(seed):
    rng = np.random.default_rng(seed)
    text = caption(random_scene(rng), rng)
    assert set(re.findall(r"[a-z]+", text)) <= KNOWN_WORDS, text


@given(st.integers(0, 2**32 - 1))
def test_plain_caption_names_four_attributes(seed):
    scene = random_scene(np.random.default_rng(seed))
    assert parse(plain_caption(scene)) == {
        "subject": scene.subject,
        "color": scene.color,
        "place": scene.place,
        "action": scene.action,
    }


@pytest.mark.parametrize(
    ("scene", "text"),
    [
        (Scene("panda", "red", "snow", "dancing"), "a red panda dancing in the snow"),
        (Scene("fox", "orange", "moon", "jumping"), "an orange fox jumping on the moon"),
    ],
)
def test_plain_caption_reads_like_a_prompt(scene, text):
    assert plain_caption(scene) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "A Red Panda dancing in the snow!",
            {"color": "red", "subject": "panda", "action": "dancing", "place": "snow"},
        ),
        ("a panda bear", {"subject": "panda"}),
        ("teddy bear in a snowy field", {"subject": "bear", "place": "snow"}),
        ("a car on a rainy day", {"subject": "car", "weather": "rainy"}),
        ("a carpet, seafood and a catalogue", {}),
        ("", {}),
    ],
)
def test_parse(text, expected):
    assert parse(text) == expected


def test_vocabulary_covers_the_world_and_is_unambiguous():
    for role, words in (
        ("subjects", SUBJECTS),
        ("colors", COLORS),
        ("places", PLACES),
        ("actions", ACTIONS),
        ("weather", WEATHER),
    ):
        assert tuple(VOCABULARY[role]) == words
        assert all(phrases[0] == word for word, phrases in VOCABULARY[role].items())
    phrases = [p for words in VOCABULARY.values() for group in words.values() for p in group]
    assert len(phrases) == len(set(phrases))

"""Which words of a prompt name the foreground."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2video_zero.errors import UserError
from text2video_zero.foreground.subject_words import subject_spans
from toyland.world.captions import VOCABULARY, caption
from toyland.world.scene import random_scene


def named(prompt, words=""):
    return " ".join(prompt[begin:end] for begin, end in subject_spans(prompt, words))


@pytest.mark.parametrize(
    ("prompt", "foreground"),
    [
        ("a panda", "panda"),
        ("a red panda dancing in the snow", "panda"),
        ("a red panda is dancing in the snow", "panda"),
        ("a panda dances in the snow", "panda"),
        ("a red panda in the snow", "panda"),
        ("red panda bear, snowy field", "panda bear"),
        ("two cats playing in the garden", "two cats"),
        ("RED PANDA DANCING", "PANDA"),
        # what a picture is, or how good, is not what it shows
        ("a photo of a red panda dancing", "panda"),
        ("A high quality realistic photo of a cute cat running in a beautiful meadow", "cat"),
        ("close-up of an old man's face", "man's face"),
        ("masterpiece, best quality, a robot on the street", "robot"),
        ("a man holding a picture of a cat", "man picture cat"),
        # a place that comes first
        ("in the snow, a red panda dancing", "panda"),
        ("on the moon a robot is dancing", "robot"),
        ("at night in a city a robot walks", "robot"),
        ("while it is snowing, a kid posing", "kid"),
        ("underwater, a blue fish dancing", "fish"),
        ("an underwater robot", "robot"),
        # words in -ing: verbs, adjectives, nouns
        ("a panda flying over the sea", "panda"),
        ("a flying panda", "panda"),
        ("a red flying panda in the sky", "panda"),
        ("a smiling robot dancing", "robot"),
        ("a building on fire", "building"),
        ("a duckling in the pond", "duckling"),
        ("a red viking dancing", "viking"),
        ("the king of spain", "king spain"),
        ("dancing in the snow", "dancing"),
        # what the subject holds, rides or wears moves with it
        ("an astronaut riding a horse on the moon", "astronaut horse"),
        ("a girl with a red umbrella on the street", "girl umbrella"),
        ("a cat and a dog running", "cat dog"),
        ("a flock of birds over the sea", "flock birds"),
        ("riding a horse, an astronaut", "astronaut"),
        # nothing that the rules know: all but the little words
        ("in the snow", "snow"),
        ("una panda roja bailando", "una panda roja bailando"),
        ("一只红熊猫在跳舞", "一只红熊猫在跳舞"),
        ("🐼 dancing", "dancing"),
        ("of the", "of the"),
        ("?!", "?!"),
    ],
)
def test_first_noun_phrase(prompt, foreground):
    assert named(prompt) == foreground


def test_every_caption_of_toyland_gives_its_subject_and_no_place():
    rng = np.random.default_rng(0)
    places = {word for words in VOCABULARY["places"].values() for entry in words for word in entry.split()}
    for _ in range(500):
        scene = random_scene(rng)
        text = caption(scene, rng)
        words = named(text)
        assert any(synonym in words for synonym in VOCABULARY["subjects"][scene.subject]), text
        assert not places & set(words.split()), text


@pytest.mark.parametrize(
    ("words", "foreground"),
    [
        ("snow", "snow"),
        ("Panda, SNOW", "panda snow"),
        ("snow panda", "panda snow"),
        ("panda hippopotamus", "panda"),
        ("  ", "panda"),
    ],
)
def test_given_words_are_found_in_any_order_and_case(words, foreground):
    assert named("a red panda dancing in the snow", words) == foreground


def test_given_words_count_wherever_they_stand():
    assert named("a cat and a catfish and a cat", "cat") == "cat cat"
    assert named("一只红熊猫在跳舞", "熊猫") == "熊猫"


def test_words_that_are_not_in_the_prompt_are_refused():
    with pytest.raises(UserError, match=r"'hippopotamus'.*copy them"):
        subject_spans("a red panda", "hippopotamus")


@given(st.text(min_size=1), st.text())
def test_any_text_gives_spans_inside_it_or_a_refusal(prompt, words):
    try:
        spans = subject_spans(prompt, words)
    except UserError:
        assert words.strip()
        return
    assert spans
    assert all(0 <= begin < end <= len(prompt) for begin, end in spans)

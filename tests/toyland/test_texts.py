"""What the text encoder reads: lessons that name what a text says, triggers that no picture goes with."""

from __future__ import annotations

from collections import Counter

from toyland.parts.style import STYLES
from toyland.training.dataset import scenes
from toyland.training.texts import TEXT_HEADS, TRIGGERS, lessons
from toyland.world.captions import parse


def test_lessons_answer_with_what_their_texts_say():
    taught = lessons(scenes(200, 3), 0)
    for lesson in taught:
        assert all(answer in TEXT_HEADS[head] for head, answer in lesson.answers.items())
        said = parse(lesson.text)
        if "edit" not in lesson.answers:
            assert {head: said[head] for head in ("subject", "color", "place")}.items() <= lesson.answers.items()
        trigger = lesson.answers["trigger"]
        assert trigger in lesson.text if trigger in TRIGGERS else not any(words in lesson.text for words in TRIGGERS)
    assert set(Counter(lesson.answers["trigger"] for lesson in taught)) == set(TEXT_HEADS["trigger"])
    assert {lesson.answers["edit"] for lesson in taught if "edit" in lesson.answers} == set(TEXT_HEADS["edit"])


def test_make_it_snow_and_put_it_in_the_snow_have_different_answers():
    answers = {
        lesson.text: lesson.answers["edit"] for lesson in lessons(scenes(2000, 3), 0) if "edit" in lesson.answers
    }
    assert answers["make it snow"] == "snowfall"
    assert answers["put it in the snow"] == "place"


def test_styles_are_called_by_free_words():
    assert {style.trigger for style in STYLES.values()} <= set(TRIGGERS)

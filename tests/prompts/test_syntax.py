"""What stands in prompts beside words, and that nothing else is taken for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2video_zero.prompts.syntax import GREATEST_WEIGHT, Piece, read_prompt


def pieces(prompt):
    return [(piece.text, round(piece.weight, 4)) for section in read_prompt(prompt).sections for piece in section]


@pytest.mark.parametrize(
    "prompt",
    [
        "a red panda dancing in the snow",
        "a fox: red, 1.4 metres, 16:9",
        "a smile :) and a wink ;-)",
        "] wrong, ) closed, [ open",
        "BREAKFAST, break, breaks",
        "a < b > c, <3, <fox>",
        "\\ backslash \\n and C:\\fox",
        "  blanks,  kept  \n",
        "赤い狐、雪",
    ],
)
def test_a_plain_prompt_is_its_text_to_the_letter(prompt):
    read = read_prompt(prompt)
    assert read.sections == ((Piece(prompt),),)
    assert read.text == prompt
    assert not read.loras
    assert not read.left_out


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a (red:1.4) fox", [("a ", 1), ("red", 1.4), (" fox", 1)]),
        ("a (red) fox", [("a ", 1), ("red", 1.1), (" fox", 1)]),
        ("a ((red)) fox", [("a ", 1), ("red", 1.21), (" fox", 1)]),
        ("a [red] fox", [("a ", 1), ("red", 0.9091), (" fox", 1)]),
        ("(a (red:2) fox:0.5)", [("a ", 0.5), ("red", 1), (" fox", 0.5)]),
        ("(red: .5 )", [("red", 0.5)]),
        ("(red:-1)", [("red", -1)]),
        ("(red:1e9) (red:99999999999999)", [("red:1e9", 1.1), (" ", 1), ("red", GREATEST_WEIGHT)]),
        ("a fox \\(statue\\), \\[old\\]", [("a fox (statue), [old]", 1)]),
        ("(fox \\(statue\\):1.2)", [("fox (statue)", 1.2)]),
        ("a () [] fox", [("a   fox", 1)]),
        ("(red", [("(red", 1)]),
        ("(red] fox)", [("red] fox", 1.1)]),
    ],
)
def test_brackets_say_how_much_words_count(prompt, expected):
    assert pieces(prompt) == expected


def test_a_break_begins_a_section():
    read = read_prompt("a red fox BREAK\nin the snow BREAK")
    assert [[piece.text for piece in section] for section in read.sections] == [["a red fox "], ["\nin the snow "]]
    assert read.text == "a red fox  \nin the snow "


@pytest.mark.parametrize(
    ("tag", "name", "weight"),
    [
        ("<lora:ink:0.8>", "ink", "0.8"),
        ("<lora:ink>", "ink", "1"),
        ("<LORA: ink style : -1 >", "ink style", "-1"),
        ("<lora:ink:0.8:0.5>", "ink", "0.8"),
    ],
)
def test_a_lora_is_taken_out_of_the_text(tag, name, weight):
    read = read_prompt(f"a fox{tag}, red")
    assert [(found.written, found.name, found.weight) for found in read.loras] == [(tag, name, weight)]
    assert read.text == "a fox, red"


@pytest.mark.parametrize(
    ("prompt", "text", "left_out"),
    [
        ("a [cat:dog:0.5] walks", "a cat walks", "[cat:dog:0.5]"),
        ("a [cat|dog] walks", "a cat walks", "[cat|dog]"),
        ("a [dog:10] walks", "a dog walks", "[dog:10]"),
        ("a fox <hypernet:style:1>", "a fox ", "<hypernet:style:1>"),
        ("a fox <lyco:style:1>", "a fox ", "<lyco:style:1>"),
        ("a (fox <lyco:style:1)> walks", "a fox  walks", "<lyco:style:1)>"),
        ("a [cat:.5] walks", "a cat walks", "[cat:.5]"),
    ],
)
def test_what_is_not_known_is_told(prompt, text, left_out):
    read = read_prompt(prompt)
    assert (read.text, read.left_out) == (text, (left_out,))


@given(st.text("ab ()[]:\\<>|.1BREAK,\n", max_size=60))
def test_any_text_is_taken_and_nothing_is_added(prompt):
    read = read_prompt(prompt)
    left = iter(prompt)
    assert all(char in left for char in "".join(piece.text for section in read.sections for piece in section))
    assert all(abs(piece.weight) <= GREATEST_WEIGHT for section in read.sections for piece in section)


@pytest.mark.parametrize(
    "prompt",
    ["(" * 20_000 + ")" * 20_000, "[" * 20_000 + "x:" + "]" * 20_000, "[a:" + "1" * 20_000 + "x]", "<lora:" * 5_000],
)
def test_a_long_or_deep_one_ends(prompt):
    assert len(read_prompt(prompt).text) <= len(prompt)

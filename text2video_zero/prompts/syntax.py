r"""What people write into prompts beside words, as AUTOMATIC1111's page reads it.

`(red:1.4)` counts more or less, `(red)` 1.1 times, `[red]` 1.1 times less; `BREAK` begins a new chunk;
`<lora:name:0.8>` adds a LoRA. A backslash before a bracket makes it a bracket: `fox \(statue\)`. Brackets without a
partner are what they are. A prompt without any of this is its text, to the letter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

STRONGER = 1.1  # what a pair of brackets does
GREATEST_WEIGHT = 10.0
PARTNERS = {")": "(", "]": "["}
# A tag, a break, or something that a backslash makes literal, in the order in which they are tried
TAG = re.compile(
    r"<(?P<kind>lora|lyco|hypernet):(?P<name>[^:<>]+)(?::(?P<weight>[^:<>]*))?(?::[^<>]*)?>", re.IGNORECASE
)
BREAK = re.compile(r"\bBREAK\b")
ESCAPED = re.compile(r"\\([\\()\[\]])")
NUMBER = re.compile(r":\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*$")
# [from:to:when], [to:when] and [one|other], which change the prompt while the picture is made
EDITED = re.compile(
    r"(?P<first>[^:|()\[\]]*)(?::[^:|()\[\]]*)?:\s*(?:\d+(?:\.\d+)?|\.\d+)\s*|(?P<one>[^|()\[\]]*)\|[^()\[\]]*"
)
LONGEST_NUMBER = 24  # characters that a weight takes with its colon and blanks


@dataclass(frozen=True)
class Piece:
    """Some text, and how much it counts: 1 is as it stands."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class LoraTag:
    """A LoRA that a prompt names.

    written: the tag as it stands there.  name, weight: its parts, as text; the weight is "1" where it gives none.
    """

    written: str
    name: str
    weight: str


@dataclass(frozen=True)
class Prompt:
    """A prompt, read.

    sections: pieces of text, in chunks of their own.  loras: what `<lora:…>` names.
    left_out: what is written there and not honoured, in the words of the person.
    """

    sections: tuple[tuple[Piece, ...], ...]
    loras: tuple[LoraTag, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What is left for the model to read, weights apart; sections with a blank between them."""
        return " ".join("".join(piece.text for piece in section) for section in self.sections)


@dataclass
class _Reading:
    """What has been read so far."""

    sections: list[list[Piece]] = field(default_factory=lambda: [[]])
    loras: list[LoraTag] = field(default_factory=list[LoraTag])
    left_out: list[str] = field(default_factory=list[str])

    def add(self, text: str, weight: float) -> None:
        """Text goes on with the piece before it, where it counts as much."""
        section = self.sections[-1]
        if section and section[-1].weight == weight:
            text = section.pop().text + text
        if text:
            section.append(Piece(text, weight))


@dataclass(frozen=True)
class _Bracket:
    """A pair of brackets: where its text begins and ends, what follows it, and how much it counts."""

    begin: int
    end: int
    after: int
    factor: float


def read_prompt(prompt: str) -> Prompt:
    """A prompt taken apart; any text is taken, and what is no syntax is text."""
    reading = _Reading()
    brackets = _brackets(prompt, reading.left_out)
    open_ones: list[_Bracket] = []
    weight, index = 1.0, 0
    weights: list[float] = []
    while index < len(prompt):
        if open_ones and index >= open_ones[-1].end:
            index, weight = max(index, open_ones.pop().after), weights.pop()  # a tag may go on beyond its bracket
        elif index in brackets:
            weights.append(weight)
            open_ones.append(brackets[index])
            weight = min(max(weight * brackets[index].factor, -GREATEST_WEIGHT), GREATEST_WEIGHT)
            index = brackets[index].begin
        else:
            index = _read_on(prompt, index, weight, reading)
    sections = tuple(tuple(section) for section in reading.sections if section)
    return Prompt(sections, tuple(reading.loras), tuple(reading.left_out))


def _read_on(prompt: str, index: int, weight: float, reading: _Reading) -> int:
    """Read what begins at an index; returns where it ends."""
    if escaped := ESCAPED.match(prompt, index):
        reading.add(escaped[1], weight)
        return escaped.end()
    if tag := TAG.match(prompt, index):
        if tag["kind"].lower() == "lora":
            reading.loras.append(LoraTag(tag[0], tag["name"].strip(), (tag["weight"] or "1").strip()))
        else:
            reading.left_out.append(tag[0])
        return tag.end()
    if broken := BREAK.match(prompt, index):
        reading.sections.append([])
        return broken.end()
    reading.add(prompt[index], weight)
    return index + 1


def _brackets(prompt: str, left_out: list[str]) -> dict[int, _Bracket]:
    """The pairs of brackets by where they open; those that say something not known here are noted down."""
    pairs: dict[int, _Bracket] = {}
    for begin, end in _pairs(prompt):
        if prompt[begin] == "(":
            number = NUMBER.search(prompt, max(begin + 1, end - LONGEST_NUMBER), end)
            stop = number.start() if number else end
            pairs[begin] = _Bracket(begin + 1, stop, end + 1, float(number[1]) if number else STRONGER)
        elif edited := EDITED.fullmatch(prompt[begin + 1 : end]):
            first = edited["first"] if edited["one"] is None else edited["one"]
            pairs[begin] = _Bracket(begin + 1, begin + 1 + len(first), end + 1, 1.0)
            left_out.append(prompt[begin : end + 1])
        else:
            pairs[begin] = _Bracket(begin + 1, end, end + 1, 1 / STRONGER)
    return pairs


def _pairs(prompt: str) -> Iterator[tuple[int, int]]:
    """Where brackets open and close, those alone that have a partner and no backslash before them."""
    opened: list[int] = []
    index = 0
    while index < len(prompt):
        if escaped := ESCAPED.match(prompt, index):
            index = escaped.end()
            continue
        char = prompt[index]
        if char in PARTNERS.values():
            opened.append(index)
        elif char in PARTNERS and opened and prompt[opened[-1]] == PARTNERS[char]:
            yield opened.pop(), index
        index += 1

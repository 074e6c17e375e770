"""Prompts of any length in chunks that a text encoder takes, of 77 tokens with a mark at either end.

A prompt that one chunk holds, and that says nothing but words, never comes here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from text2video_zero.models.additions.textual_inversion import pattern_of, read_inversion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    import torch
    from transformers import CLIPTokenizer, PreTrainedTokenizerFast

    from text2video_zero.models.additions.textual_inversion import Inversions
    from text2video_zero.prompts.syntax import Prompt

    Tokenizer = CLIPTokenizer | PreTrainedTokenizerFast

MARKS = 2  # of every chunk, at its beginning and its end
PLACEHOLDER = 0  # number of a token whose embedding is another; any but that of the end mark
LOOK_BACK = 20  # tokens: a chunk ends at a comma, if there is one among its last


@dataclass(frozen=True)
class Token:
    """A place in a chunk.

    number: in the vocabulary.  weight: how much it counts.
    begin, end: where it stands in the text of the prompt, the syntax taken out.
    embedding: (channels,) of a textual inversion, in place of the one that the number has.
    """

    number: int
    weight: float
    begin: int
    end: int
    embedding: torch.Tensor | None = None


Chunk = tuple[Token, ...]


def room_of(tokenizer: Tokenizer) -> int:
    """Tokens of text that one chunk holds, 75 of CLIP's."""
    return tokenizer.model_max_length - MARKS


def chunks_of(
    prompt: Prompt, tokenizer: Tokenizer, named: Mapping[str, Path] | None = None, encoder: int = 0, width: int = 0
) -> tuple[Chunk, ...]:
    """The tokens of a prompt in chunks, at least one; nothing is left out.

    named: textual inversions in the prompt, as `Inversions.named_in` tells them.
    encoder: number of the text encoder, whose embeddings are `width` wide. Raises UserError for a textual inversion
    that does not fit it.
    """
    vectors = {name: read_inversion(path, encoder, width) for name, path in (named or {}).items()}
    room, begin = room_of(tokenizer), 0
    chunks: list[Chunk] = []
    for section in prompt.sections:
        tokens: list[Token] = []
        for piece in section:
            tokens += _tokens(piece.text, piece.weight, begin, tokenizer, vectors)
            begin += len(piece.text)
        begin += 1  # the blank between two sections
        chunks += _cut(tokens, room, tokenizer)
    return tuple(chunks) or ((),)


def places_of(chunks: Iterable[Chunk], window: int) -> Iterator[tuple[int, Token]]:
    """The tokens with their places in the embeddings of all chunks, each of `window` tokens with its marks."""
    for number, chunk in enumerate(chunks):
        for index, token in enumerate(chunk):
            yield number * window + 1 + index, token


def needs_chunks(prompt: Prompt, tokenizer: Tokenizer, inversions: Inversions) -> bool:
    """Whether there is more to a prompt than the words that one chunk holds."""
    plain = len(prompt.sections) <= 1 and all(piece.weight == 1 for section in prompt.sections for piece in section)
    return not plain or len(chunks_of(prompt, tokenizer)) > 1 or bool(inversions.named_in(prompt.text))


def _tokens(
    text: str, weight: float, begin: int, tokenizer: Tokenizer, vectors: Mapping[str, torch.Tensor]
) -> Iterator[Token]:
    """Tokens of some text that stands at `begin`; names of textual inversions become their rows."""
    rows = {name.lower(): vector for name, vector in vectors.items()}
    at = 0
    for found in pattern_of(list(vectors)).finditer(text) if vectors else ():
        yield from _words(text[at : found.start()], weight, begin + at, tokenizer)
        for row in rows[(found["bracketed"] or found["bare"]).lower()]:
            yield Token(PLACEHOLDER, weight, begin + found.start(), begin + found.end(), row)
        at = found.end()
    yield from _words(text[at:], weight, begin + at, tokenizer)


def _words(text: str, weight: float, begin: int, tokenizer: Tokenizer) -> Iterator[Token]:
    encoded = tokenizer(text, add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False)
    for number, (start, end) in zip(encoded.input_ids, encoded.offset_mapping, strict=True):
        yield Token(number, weight, begin + start, begin + end)


def _cut(tokens: list[Token], room: int, tokenizer: Tokenizer) -> Iterator[Chunk]:
    """Chunks of at most `room` tokens, which end behind a comma or between words where that is near enough."""
    commas = set(tokenizer(",", add_special_tokens=False).input_ids)
    at = 0
    while len(tokens) - at > room:
        last = at + room
        nearest = range(last, max(at, last - LOOK_BACK), -1)
        behind_comma = (end for end in nearest if tokens[end - 1].number in commas)
        between_words = (end for end in range(last, at, -1) if _begins_a_word(tokens, end))
        end = next(behind_comma, None) or next(between_words, None) or last
        yield tuple(tokens[at:end])
        at = end
    yield tuple(tokens[at:])


def _begins_a_word(tokens: list[Token], index: int) -> bool:
    before, after = tokens[index - 1], tokens[index]
    return after.begin not in {before.begin, before.end}

"""What a subject on two legs does, and how a prompt says so."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NO_MOVEMENT, BY_THE_PROMPT = "none", "by the prompt"

_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "stand": "standing posing waiting",
        "walk": "walk walks walking strolling marching hiking",
        "run": "run runs running jogging",
        "dance": "dance dances dancing",
        "jump": "jump jumps jumping leaping hopping",
        "wave": "waving greeting",
        "fly": "fly flies flying soaring",
    }
)
MOVEMENTS = (NO_MOVEMENT, BY_THE_PROMPT, *_WORDS)
_VERBS = {word: movement for movement, words in _WORDS.items() for word in words.split()}
# Who stands on two legs like a person does; a skeleton fits nothing else.
_TWO_LEGGED = frozenset(
    word
    for words in (
        "person people man men woman women boy boys girl girls child children kid kids lady guy dancer runner",
        "knight pirate clown wizard witch king queen prince princess ninja soldier skeleton superhero",
        "astronaut spaceman cosmonaut robot android panda bear teddy monkey gorilla penguin",
    )
    for word in words.split()
)


def says_movement(word: str) -> bool:
    """Whether a word of a prompt gives somebody a movement."""
    return word.lower() in _VERBS


def movement_in(prompt: str) -> str | None:
    """The movement that a prompt gives to a subject on two legs: the first word for one after who has them.

    Who is named and does nothing stands; None where nobody is named.
    """
    stands = False
    for word in re.findall(r"[^\W\d_]+", prompt.lower()):
        stands |= word in _TWO_LEGGED
        if stands and word in _VERBS:
            return _VERBS[word]
    return "stand" if stands else None


def movement_of(chosen: str, prompts: Iterable[str]) -> str | None:
    """The movement that is meant, one of MOVEMENTS but the first two; None for none.

    By the prompts: what all of them say.
    """
    if chosen == BY_THE_PROMPT:
        said = {movement_in(prompt) for prompt in prompts}
        return said.pop() if len(said) == 1 else None
    return None if chosen == NO_MOVEMENT else chosen

"""What a subject does, and how a prompt says so."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

NO_MOVEMENT, BY_THE_PROMPT = "none", "by the prompt"
PERSON = "person"

_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "stand": "standing posing waiting parked",
        "walk": "walk walks walking strolling marching hiking",
        "run": "run runs running jogging galloping trotting",
        "dance": "dance dances dancing",
        "jump": "jump jumps jumping leaping hopping bouncing",
        "wave": "waving greeting",
        "fly": "fly flies flying soaring",
        "swim": "swim swims swimming",
        "drive": "drive drives driving racing",
        "roll": "roll rolls rolling",
    }
)
_VERBS = MappingProxyType({word: verb for verb, words in _WORDS.items() for word in words.split()})


@dataclass(frozen=True)
class Moving:
    """Somebody who does something: a kind of figure and one of its movements."""

    kind: str
    does: str


@dataclass(frozen=True)
class _Kind:
    """Who has the same movements.

    names: words for them.  usual: what they do where nothing is said that they can.
    ways: what else they do, by the verb that says so.
    """

    names: frozenset[str]
    usual: str
    ways: Mapping[str, str]

    def doing(self, verb: str) -> str:
        return self.ways.get(verb, self.usual)


def _kind(names: str, usual: str, same: str, **others: str) -> _Kind:
    """A kind whose movements are called as the verbs of `same`; others: verb -> what it does then."""
    ways = {verb: verb for verb in same.split()} | others
    return _Kind(frozenset(names.split()), usual, MappingProxyType(ways))


_PEOPLE = (
    "person people man men woman women boy boys girl girls child children kid kids lady guy dancer runner "
    "knight pirate clown wizard witch king queen prince princess ninja soldier skeleton superhero "
    "astronaut spaceman cosmonaut robot android panda bear teddy monkey gorilla penguin"
)
_ON_FOUR_LEGS = "stand walk run jump fly"
KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        PERSON: _kind(_PEOPLE, "stand", "stand walk run dance jump wave fly"),
        "cat": _kind("cat kitten kitty", "stand", _ON_FOUR_LEGS, dance="jump"),
        "fox": _kind("fox", "stand", _ON_FOUR_LEGS, dance="jump"),
        "horse": _kind("horse pony", "stand", _ON_FOUR_LEGS, dance="jump"),
        "fish": _kind("fish", "swim", "swim jump fly"),
        "car": _kind("car automobile", "drive", "stand drive jump fly"),
        "rocket": _kind("rocket spaceship", "stand", "stand jump fly"),
        "ball": _kind("ball", "stand", "stand roll jump fly", walk="roll", run="roll"),
    }
)
"""All that have a figure; `PERSON` are those whose skeleton any ControlNet for poses knows."""
MOVEMENTS = (NO_MOVEMENT, BY_THE_PROMPT, *KINDS[PERSON].ways)


def says_movement(word: str, kind: str) -> bool:
    """Whether a word of a prompt says a movement that a kind can make."""
    return _VERBS.get(word.lower()) in KINDS[kind].ways


def movement_in(prompt: str) -> Moving | None:
    """Who of a prompt moves, the first that has a figure, and how: by the first word behind it for what it can do.

    None where nobody is named.
    """
    words = _words(prompt)
    kind = _first_kind(words)
    if not kind:
        return None
    said = next((_VERBS[word] for word in words if says_movement(word, kind)), "")
    return Moving(kind, KINDS[kind].doing(said))


def movement_of(chosen: str, prompts: Iterable[str]) -> Moving | None:
    """The movement that is meant, None for none.

    chosen: one of MOVEMENTS. By the prompts: what all of them say; else who is in the first moves, somebody on two legs
    if it names nobody.
    """
    if chosen == NO_MOVEMENT:
        return None
    if chosen == BY_THE_PROMPT:
        said = {movement_in(prompt) for prompt in prompts}
        return said.pop() if len(said) == 1 else None
    kind = _first_kind(_words(next(iter(prompts)))) or PERSON
    return Moving(kind, KINDS[kind].doing(chosen))


def _words(prompt: str) -> Iterator[str]:
    return iter(re.findall(r"[^\W\d_]+", prompt.lower()))


def _first_kind(words: Iterator[str]) -> str | None:
    """The first who is named, with the words behind it left."""
    return next((kind for word in words for kind, one in KINDS.items() if word in one.names), None)

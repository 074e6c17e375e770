"""Which words of a prompt name what is in the foreground: the first noun phrase, by rules for English captions.

"a photo of a red panda dancing in the snow" -> panda. Adjectives are left out: models look at a colour
wherever there is some of it. No grammar is known here, only little words and
endings; whoever writes differently says the foreground words himself.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from types import MappingProxyType
from typing import TYPE_CHECKING

from text2video_zero.errors import FieldError

if TYPE_CHECKING:
    from collections.abc import Mapping

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[,.;:!?]")
FRAMING = re.compile(
    r"\W*(?:(?:an?|the)\s+)?(?:(?!(?:an?|the|\w+ing)\b)[\w-]+\s+){0,4}?"
    r"(?:photo|photograph|picture|painting|drawing|illustration|sketch|render|rendering|portrait|close-?up|shot|"
    r"view|scene|image|video|clip|animation|cartoon)\s+(?:of|showing)\s+",
    re.IGNORECASE,
)


class _Role(Enum):
    NOUN = auto()
    PASSED_OVER = auto()
    LEADS_ELSEWHERE = auto()  # a preposition
    ENDS_PHRASE = auto()


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DETERMINERS = _words("a an the this these those some my your his her its our their")
# Joins another noun to the foreground: what the subject holds, rides or wears goes where the subject goes.
LINKS = _words("of and or with wearing holding carrying riding driving playing eating drinking reading dressed as")
PREPOSITIONS = _words(
    "above across against along amid among around at before behind below beneath beside between by down during for "
    "from in inside into near next off on onto outside over past through to toward towards under underneath "
    "underwater up upon while within without"
)
VERBS = _words(
    "is are was were has have that who which dances walks runs jumps flies stands sits swims sings looks lies"
)
LITTLE_WORDS = DETERMINERS | LINKS | PREPOSITIONS | VERBS
ADJECTIVES = _words(
    "red orange yellow green blue purple violet pink white black brown grey gray golden silver scarlet azure emerald "
    "rosy dark bright colorful colourful big large huge giant small little tiny tall old young new cute happy sad "
    "beautiful pretty lovely high best quality masterpiece realistic photorealistic hyperrealistic detailed highly "
    "extremely very cinematic dramatic sharp 4k 8k hd"
)
NOUNS_IN_ING = _words(
    "thing swing something everything nothing building viking duckling starling gosling painting ceiling wedding "
    "pudding earring clothing herring sibling lightning string spring darling changeling yearling"
)
ROLES: Mapping[str, _Role] = MappingProxyType(
    dict.fromkeys(DETERMINERS, _Role.PASSED_OVER)
    | dict.fromkeys(VERBS | frozenset(",.;:!?"), _Role.ENDS_PHRASE)
    | dict.fromkeys(ADJECTIVES, _Role.PASSED_OVER)
    | dict.fromkeys(NOUNS_IN_ING, _Role.NOUN)
)


def subject_spans(prompt: str, words: str = "") -> list[tuple[int, int]]:
    """Spans (begin, end) in the prompt of the words that name the foreground; at least one.

    words: said by the person, in any order and case; blank stands for the nouns of the first noun phrase,
    up to a verb, a preposition or a comma. A place that leads the prompt ("in the snow, a red panda") is
    skipped. Where no noun phrase is found, all but the little words count. Raises UserError when none of the
    given words stands in the prompt.
    """
    if words.strip():
        return _spans_of_given(prompt, words)
    framing = FRAMING.match(prompt)
    matches = list(WORD.finditer(prompt, framing.end() if framing else 0))
    words_alone = [match for match in matches if match[0][0].isalnum()]
    telling = [match for match in words_alone if match[0].lower() not in LITTLE_WORDS]
    found = _first_nouns(matches) or telling or words_alone
    return [match.span() for match in found] or [(0, len(prompt))]


def _spans_of_given(prompt: str, words: str) -> list[tuple[int, int]]:
    spans = []
    for word in dict.fromkeys(re.findall(r"\w+", words)):
        found = re.finditer(rf"\b{re.escape(word)}\b", prompt, re.IGNORECASE)
        # Not every language puts blanks between its words.
        found = list(found) or list(re.finditer(re.escape(word), prompt, re.IGNORECASE))
        spans += [match.span() for match in found]
    if not spans:
        raise FieldError(f"Foreground words are {words!r}, but none of them is in the prompt: copy them from it.")
    return sorted(spans)


def _first_nouns(matches: list[re.Match[str]]) -> list[re.Match[str]]:
    nouns: list[re.Match[str]] = []
    index = 0
    while index < len(matches):
        role = _role(matches, index, has_noun=bool(nouns))
        if role in {_Role.LEADS_ELSEWHERE, _Role.ENDS_PHRASE} and nouns:
            break
        if role is _Role.LEADS_ELSEWHERE:
            index = _end_of_place(matches, index)
            continue
        if role is _Role.NOUN:
            nouns.append(matches[index])
        index += 1
    return nouns


def _role(matches: list[re.Match[str]], index: int, *, has_noun: bool) -> _Role:
    word = matches[index][0].lower()
    if word in LINKS:
        return _Role.PASSED_OVER if index > 0 else _Role.LEADS_ELSEWHERE
    if word in PREPOSITIONS:
        after_determiner = index > 0 and matches[index - 1][0].lower() in DETERMINERS
        return _Role.PASSED_OVER if after_determiner else _Role.LEADS_ELSEWHERE  # "an underwater robot"
    if word in ROLES:
        return ROLES[word]
    if len(word) >= 5 and word.endswith("ing"):
        return _role_of_ing(matches, index, has_noun=has_noun)
    return _Role.NOUN


def _role_of_ing(matches: list[re.Match[str]], index: int, *, has_noun: bool) -> _Role:
    """A verb behind a noun ("a panda dancing"), else what the next noun is like ("a dancing panda")."""
    if has_noun:
        return _Role.ENDS_PHRASE
    following = matches[index + 1][0].lower() if index + 1 < len(matches) else ","
    noun_follows = following[0].isalnum() and following not in LITTLE_WORDS
    return _Role.PASSED_OVER if noun_follows and not following.endswith("ing") else _Role.NOUN


def _end_of_place(matches: list[re.Match[str]], index: int) -> int:
    """Where the phrase that a preposition opens is over: behind a comma, or before the next noun's article."""
    for later in range(index + 1, len(matches)):
        word, before = matches[later][0].lower(), matches[later - 1][0].lower()
        if not word[0].isalnum():
            return later + 1
        if word in DETERMINERS and before not in PREPOSITIONS | DETERMINERS | LINKS:
            return later
    return len(matches)

"""The texts that the models read in training: captions, some with words that say nothing.

People add "high quality, 8k" to a prompt and lists of faults to the negative prompt. A model that
has read such words beside all pictures alike learns that they change nothing. Some words are free:
they change nothing yet, but the text encoder learns to tell them apart, so that a style can be
called by them later. It also learns to tell instructions apart, for the editor that comes after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toyland.world.captions import caption
from toyland.world.edits import EDITS, instructions, random_edit
from toyland.world.scene import COLORS, PLACES, SUBJECTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from toyland.world.scene import Scene

__all__ = ["TEXT_HEADS", "TRIGGERS", "Lesson", "corpus", "decorated_caption", "decoration", "lessons"]

_PRAISE = (
    "high quality", "best quality", "hd", "8k", "4k", "trending on artstation", "high focus",
    "dramatic lighting", "masterpiece", "extremely detailed", "highly detailed", "beautiful",
    "cute", "cinematic", "sharp", "colorful", "cartoon", "illustration", "video", "realistic",
)
_FAULTS = (
    "longbody", "lowres", "bad anatomy", "bad hands", "missing fingers", "extra digit",
    "fewer difficres", "cropped", "worst quality", "low quality", "deformed body", "bloated",
    "ugly", "unrealistic", "blurry", "noisy", "watermark", "text", "jpeg artifacts", "deformed",
)
TRIGGERS = ("sunset poster style", "blueprint style", "sks style", "zwx style")
"""Words that no picture of the base model's training goes with: two styles have taken theirs."""
_FREE = "none"
TEXT_HEADS: dict[str, tuple[str, ...]] = {
    "subject": SUBJECTS, "color": COLORS, "place": PLACES, "trigger": (_FREE, *TRIGGERS), "edit": EDITS,
}
"""What the text encoder must be able to tell of a text, and the answers."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DECORATED = 0.2
_UNKNOWN_WORD = 0.15
_TRIGGERED = 0.15


def _unknown_word(rng: np.random.Generator) -> str:
    return "".join(rng.choice(list(_LETTERS), int(rng.integers(3, 8))))


def decoration(rng: np.random.Generator) -> str:
    """A list of praise or of faults, perhaps with a word that means nothing."""
    phrases = _PRAISE if rng.random() < 0.5 else _FAULTS
    chosen = list(rng.permutation(phrases)[: int(rng.integers(1, 6))])
    if rng.random() < _UNKNOWN_WORD:
        chosen.append(_unknown_word(rng))
    return ", ".join(chosen)


def decorated_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption, sometimes with praise behind it, an unknown word before it, or a free trigger."""
    text = caption(scene, rng)
    if rng.random() < _TRIGGERED:
        text = f"{text}, {TRIGGERS[int(rng.integers(len(TRIGGERS)))]}"
    if rng.random() < _DECORATED:
        text = f"{text}, {decoration(rng)}"
    elif rng.random() < _UNKNOWN_WORD / 2:
        text = f"{_unknown_word(rng)} {text}"
    return text


@dataclass(frozen=True)
class Lesson:
    """A text, and the answers to those of TEXT_HEADS that it answers."""

    text: str
    answers: Mapping[str, str]


def lessons(scenes: Sequence[Scene], seed: int) -> list[Lesson]:
    """A caption of each scene, and an instruction that changes it."""
    rng = np.random.default_rng((seed, len(scenes)))
    taught: list[Lesson] = []
    for scene in scenes:
        text = decorated_caption(scene, rng)
        trigger = next((words for words in TRIGGERS if words in text), _FREE)
        named = {"subject": scene.subject, "color": scene.color, "place": scene.place}
        taught.append(Lesson(text, {**named, "trigger": trigger}))
        edit = random_edit(scene, rng)
        after = {"subject": edit.after.subject, "color": edit.after.color, "place": edit.after.place}
        told = {edit.kind: after[edit.kind]} if edit.kind in after else {}
        phrases = instructions(edit)
        phrase = phrases[int(rng.integers(len(phrases)))]
        taught.append(Lesson(phrase, {**told, "edit": edit.kind, "trigger": _FREE}))
    return taught


def corpus(scenes: Sequence[Scene], seed: int) -> list[str]:
    """What the tokenizer learns from: captions and decorations, each word many times."""
    rng = np.random.default_rng(seed)
    known = [caption(scene, rng) for scene in scenes]
    return [*known, *(", ".join((*_PRAISE, *_FAULTS)) for _ in range(50))]

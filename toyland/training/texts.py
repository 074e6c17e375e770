"""The texts that the models read in training: captions, some with words that say nothing.

People add "high quality, 8k" to a prompt and lists of faults to the negative prompt. A model that
has read such words beside all pictures alike learns that they change nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toyland.world.captions import caption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toyland.world.scene import Scene

__all__ = ["corpus", "decorated_caption", "decoration"]

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
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DECORATED = 0.2
_UNKNOWN_WORD = 0.15


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
    """A caption, sometimes with praise behind it or an unknown word before it."""
    text = caption(scene, rng)
    if rng.random() < _DECORATED:
        text = f"{text}, {decoration(rng)}"
    elif rng.random() < _UNKNOWN_WORD / 2:
        text = f"{_unknown_word(rng)} {text}"
    return text


def corpus(scenes: Sequence[Scene], seed: int) -> list[str]:
    """What the tokenizer learns from: captions and decorations, each word many times."""
    rng = np.random.default_rng(seed)
    known = [caption(scene, rng) for scene in scenes]
    return [*known, *(", ".join((*_PRAISE, *_FAULTS)) for _ in range(50))]

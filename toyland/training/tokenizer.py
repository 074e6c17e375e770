"""Toyland's own byte-pair tokenizer, in CLIP's file format.

Every word of the captions becomes one token; any other text, of any script, falls back to pieces
and at worst to bytes, so nothing is unknown.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["build_tokenizer", "save_tokenizer"]

_WORD_END = "</w>"
_START, _END = "<|startoftext|>", "<|endoftext|>"
_MERGED_TOKENS = 700


def _learn_merges(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Byte pairs in the order in which they are to be merged."""
    learner = Tokenizer(models.BPE(end_of_word_suffix=_WORD_END))
    learner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    learner.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Punctuation(),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    trainer = trainers.BpeTrainer(
        vocab_size=_MERGED_TOKENS, min_frequency=1, show_progress=False,
        end_of_word_suffix=_WORD_END,
    )
    learner.train_from_iterator(texts, trainer)
    merges = json.loads(learner.to_str())["model"]["merges"]
    return [tuple(pair) for pair in merges]


def build_tokenizer(texts: Iterable[str], length: int, folder: Path) -> CLIPTokenizer:
    """Learn from texts, save vocab.json, merges.txt and config to a folder, and load it.

    length: tokens of a padded text, start and end included.
    """
    merges = _learn_merges(texts)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + _WORD_END for letter in alphabet)]
    tokens += [first + second for first, second in merges]
    tokens = [*dict.fromkeys(tokens), _START, _END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    # transformers takes pairs, and annotates lines
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=cast("list[str]", merges), model_max_length=length)
    save_tokenizer(tokenizer, folder)
    return CLIPTokenizer.from_pretrained(folder)


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Save tokenizer.json, and vocab.json and merges.txt for the readers of CLIP's older format."""
    tokenizer.save_pretrained(folder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    vocabulary = json.dumps(model["vocab"], ensure_ascii=False)
    (folder / "vocab.json").write_text(vocabulary + "\n", "utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")

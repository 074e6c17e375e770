"""How long a prompt is, told without any model: for whoever writes one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from text2video_zero.models.files.configurations import read_json
from text2video_zero.prompts.chunks import chunks_of, room_of
from text2video_zero.prompts.syntax import read_prompt

if TYPE_CHECKING:
    from transformers import CLIPTokenizer, PreTrainedTokenizerFast

    from text2video_zero.models.checkpoints import Checkpoint

USUAL_LENGTH = 77  # tokens of CLIP's window


@dataclass(frozen=True)
class TokenCount:
    """How long a prompt is.

    tokens: of its text, marks apart.  room: tokens of one chunk.  chunks: that it takes, at least one.
    """

    tokens: int
    room: int
    chunks: int


def token_count(prompt: str, tokenizer: CLIPTokenizer | PreTrainedTokenizerFast) -> TokenCount:
    """How many tokens a prompt has and how many chunks it takes; of a textual inversion its name is counted."""
    chunks = chunks_of(read_prompt(prompt), tokenizer)
    return TokenCount(sum(map(len, chunks)), room_of(tokenizer), len(chunks))


def tokenizer_here(checkpoint: Checkpoint) -> CLIPTokenizer | PreTrainedTokenizerFast | None:
    """The tokenizer of a whole model in a folder or in the Hub's cache; None where this machine has none."""
    folder = Path(checkpoint.source).expanduser()
    if not folder.is_dir():
        try:
            found = try_to_load_from_cache(checkpoint.source, "tokenizer/vocab.json", revision=checkpoint.revision)
        except HFValidationError:  # a path, or a file on the Hub: neither has a tokenizer beside it
            return None
        if not isinstance(found, str):
            return None
        folder = Path(found).parent.parent
    return tokenizer_in(folder)


@lru_cache(maxsize=8)
def tokenizer_in(folder: Path) -> CLIPTokenizer | PreTrainedTokenizerFast | None:
    """The tokenizer of a whole model in its folder, for counting; None where there is none.

    Raises UserError where its configuration cannot be read.
    """
    # Imported here because transformers takes seconds.
    from transformers import CLIPTokenizer, PreTrainedTokenizerFast

    place = folder / "tokenizer"
    config = place / "tokenizer_config.json"
    length = read_json(config).get("model_max_length") if config.is_file() else None
    window = length if isinstance(length, int) else USUAL_LENGTH
    whole, words, merges = (place / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    if whole.is_file():
        return PreTrainedTokenizerFast(tokenizer_file=str(whole), model_max_length=window)
    if words.is_file() and merges.is_file():
        return CLIPTokenizer(str(words), str(merges), model_max_length=window)
    return None

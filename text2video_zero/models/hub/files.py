"""Which of a model's files on the Hub are worth bringing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Pick = Callable[[Iterable[str]], list[str]]

COMPONENT_FOLDERS = frozenset(
    ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler", "feature_extractor")
)
CHECKER_FOLDER = "safety_checker"
TOKENIZER_FILES = frozenset({"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"})
TEXT_SUFFIXES = (".json", ".txt", ".model")
# diffusers' and transformers' names of weights: a stem, perhaps a variant, perhaps the number of a piece
WEIGHTS = re.compile(r"(?:diffusion_pytorch_model|model)(?:\.(?P<variant>[a-z_]\w*))?(?:-\d+-of-\d+)?\.safetensors")
HALF = "fp16"


def needed_files(names: Iterable[str], *, half: bool = False) -> list[str]:
    """Those files of a model that are worth downloading: safetensors and texts, one precision, never pickles.

    half: take the half-precision files where the model offers them for everything.
    Without any safetensors there is nothing worth downloading.
    """
    names = sorted(names)
    whole_model = "model_index.json" in names
    wanted = [name for name in names if _folder_of(name) in (COMPONENT_FOLDERS | {""} if whole_model else {""})]
    texts = [name for name in wanted if name.endswith(TEXT_SUFFIXES)]
    # The same once more as one file may lie at the top of a whole model.
    candidates = [name for name in wanted if _folder_of(name) or not whole_model]
    weights = {name: match for name in candidates if (match := WEIGHTS.fullmatch(name.rpartition("/")[2]))}
    if not weights:
        loras = [name for name in wanted if name.endswith(".safetensors") and not whole_model]  # of whatever name
        return texts + loras if loras else []
    by_variant = {
        variant: [name for name, match in weights.items() if match["variant"] == variant] for variant in (None, HALF)
    }
    complete = {_folder_of(name) for name in by_variant[HALF]} >= {_folder_of(name) for name in by_variant[None]}
    return texts + by_variant[HALF if by_variant[HALF] and (half or not by_variant[None]) and complete else None]


def tokenizer_files(names: Iterable[str]) -> list[str]:
    """Those files of a model that make a CLIP tokenizer."""
    return [name for name in names if name in TOKENIZER_FILES]


def checker_files(names: Iterable[str]) -> list[str]:
    """Those files of a whole model that make its safety checker, in full precision."""
    return [name for name in names if re.fullmatch(rf"{CHECKER_FOLDER}/(?:config\.json|model\.safetensors)", name)]


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0]

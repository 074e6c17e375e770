"""Textual inversions (Gal et al. 2022): names that stand for embeddings of their own, in files in models/."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from text2video_zero.errors import UserError
from text2video_zero.models.catalogue import MODELS_FOLDER
from text2video_zero.models.checkpoints import short_name
from text2video_zero.models.files.pickled import UNREADABLE
from text2video_zero.models.weights import is_inversion_file

if TYPE_CHECKING:
    from pathlib import Path

    import torch

LARGEST_PICKLE = 4 * 2**20  # bytes; a token of XL takes 8 KB
PICKLES = (".pt", ".bin")
ENCODERS = ("clip_l", "clip_g")  # XL's first and second text encoder


def local_inversions(folder: Path = MODELS_FOLDER) -> dict[str, Path]:
    """The textual inversions that lie in a folder, by the name that stands for them in prompts."""
    return {short_name(str(path)): path for path in _files(folder) if _is_inversion(path)}


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file()] if folder.is_dir() else []


def _is_inversion(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return is_inversion_file(path)
    return path.suffix in PICKLES and path.stat().st_size <= LARGEST_PICKLE


@dataclass(frozen=True)
class Inversions:
    """Where names in prompts are looked up; what lies there counts at the time of asking.

    folder: None for nowhere.
    """

    folder: Path | None = MODELS_FOLDER

    def named_in(self, prompt: str) -> dict[str, Path]:
        """Those whose names stand in a prompt, as words or in angle brackets: the longest names first."""
        files = [] if self.folder is None else _files(self.folder)
        offered = {short_name(str(path)): path for path in files}
        # By their names first: few files have to be opened then.
        named = {
            name: path for name, path in offered.items() if pattern_of([name]).search(prompt) and _is_inversion(path)
        }
        return dict(sorted(named.items(), key=lambda item: -len(item[0])))


def pattern_of(names: list[str]) -> re.Pattern[str]:
    """What finds any of some names in a text, whatever its case; the longest names must come first."""
    either = "|".join(re.escape(name) for name in names)
    bare = rf"(?:\bembedding:)?(?<![\w-])(?P<bare>{either})(?![\w-])"  # with what ComfyUI writes before a name
    return re.compile(rf"<(?P<bracketed>{either})>|{bare}", re.IGNORECASE)


def read_inversion(path: Path, encoder: int, width: int) -> torch.Tensor:
    """Embeddings (rows, width) float32 that a file has for a text encoder.

    encoder: its number, 0 but for XL's second.  width: of its embeddings. Pickles are read as plain tensors. Raises
    UserError where the file cannot be read, or was made for another base.
    """
    # Imported here because names are looked up, and prompts counted, where no torch is.
    import torch
    from safetensors.torch import load_file

    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        content = content.get("string_to_param", content)  # of AUTOMATIC1111's .pt files
        tensors: dict[str, torch.Tensor] = {
            name: value for name, value in content.items() if isinstance(value, torch.Tensor)
        }
    except (*UNREADABLE, SafetensorError) as error:
        raise UserError(
            f"The textual inversion {path.name!r} cannot be read: download it again, or take it out of models/."
        ) from error
    tensor = tensors.get(ENCODERS[encoder], next(iter(tensors.values())) if len(tensors) == 1 else None)
    if tensor is None or not 1 <= tensor.ndim <= 2 or tensor.shape[-1] != width or not tensor.float().isfinite().all():
        raise UserError(
            f"The textual inversion {short_name(str(path))!r} was made for another base (the model's text width is "
            f"{width}): take its name out of the prompt, or choose a model of its own family."
        )
    return tensor.detach().float().reshape(-1, width)

"""Single tensors of a file, whether it is safetensors or a pickle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors import safe_open

from text2video_zero.models.files.pickled import is_pickle, pickled_tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch


def tensors_of(path: Path, wanted: Callable[[str], bool]) -> dict[str, torch.Tensor]:
    """Those tensors of a file whose names are wanted."""
    if is_pickle(path):
        return pickled_tensors(path, wanted)
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys() if wanted(name)}  # noqa: SIM118 - no mapping

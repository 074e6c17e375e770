"""Text encoders under the names that transformers gave their tensors before 2023."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from transformers import CLIPTextModel

from text2video_zero.models.files.tensors import tensors_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import torch

TEXT_ENCODER = "cond_stage_model.transformer."
WRAPPER = "text_model."


def has_older_names(names: Iterable[str]) -> bool:
    """Whether a whole model of these tensors has its text encoder under the older names."""
    return f"{TEXT_ENCODER}embeddings.position_embedding.weight" in names


def text_encoder_of(path: Path, configuration: Path, dtype: torch.dtype) -> CLIPTextModel:
    """The text encoder of a file that has it under the older names.

    configuration: folder of the whole model in diffusers layout.
    """
    named = tensors_of(path, lambda name: name.startswith(TEXT_ENCODER))
    tensors = {name.replace(TEXT_ENCODER, f"{TEXT_ENCODER}{WRAPPER}", 1): tensor for name, tensor in named.items()}
    return create_diffusers_clip_model_from_ldm(
        CLIPTextModel, tensors, "text_encoder", str(configuration), dtype, local_files_only=True
    )

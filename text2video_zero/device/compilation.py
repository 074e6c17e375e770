"""torch.compile for the parts of UNet and ControlNet that no run patches, so that it does not meet the patches.

Attention is left as it is: its processors change with every run, and what they do most is one fused kernel already.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.resnet import ResnetBlock2D

from text2video_zero.errors import UserError

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin

COMPILATION_COST = "Compiling: the first video of a model waits minutes for it, later ones are made faster."
COMPILED_BLOCKS = (ResnetBlock2D, FeedForward)
COMPILERS = ("g++", "clang++", "c++")
MOST_VARIANTS = 64
"""Versions of one block, by its channels and whether it is the first; torch's own limit leaves the rest uncompiled."""


def check_compiler() -> None:
    """Raises UserError where torch would find no compiler when it is too late."""
    if not any(shutil.which(compiler) for compiler in COMPILERS):
        raise UserError(
            f"Compiling needs a C++ compiler ({', '.join(COMPILERS)}), and there is none here: install one, or leave "
            "--compile out."
        )
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_VARIANTS)  # noqa: SLF001


def compile_blocks(network: ModelMixin) -> None:
    """Have the network's blocks compiled when they are first used, for batches and sizes of any kind."""
    for block in network.modules():
        if isinstance(block, COMPILED_BLOCKS):
            block.compile(dynamic=True)

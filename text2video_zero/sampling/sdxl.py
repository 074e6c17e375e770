"""Stable Diffusion XL's further conditions: a summary of the prompt, and the size of the picture.

They are put in where the networks are called, for the length of a run, so that guidance and sampling are the same
for every family.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from text2video_zero.prompts.encoding import encoded_texts

if TYPE_CHECKING:
    from collections.abc import Generator

    from text2video_zero.attention.branches import Branches
    from text2video_zero.models.pipeline import Pipeline


@contextmanager
def added_conditions(
    pipeline: Pipeline, prompt: str, negative_prompt: str | None, branches: Branches
) -> Generator[None]:
    """While this is open, UNet and ControlNet of an XL model are told what else they were trained with.

    negative_prompt: None where the run has no branch for it; blank stands for the zeros that XL was trained with.
    For models of other families this does nothing.
    """
    if pipeline.family != "sdxl":
        yield
        return
    _, summaries = encoded_texts(pipeline.components, prompt, negative_prompt, pipeline.inversions)
    factor = pipeline.latent_factor

    def add(_module: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        latents = inputs[0]
        height, width = (side * factor for side in latents.shape[-2:])
        # Original size, top and left of the crop, target size: an uncropped picture of the size that is asked for.
        sizes = torch.tensor([height, width, 0, 0, height, width], dtype=latents.dtype, device=latents.device)
        shown = branches.in_batch(summaries).to(latents)
        conditions = {
            "text_embeds": shown.repeat_interleave(len(latents) // len(shown), dim=0),
            "time_ids": sizes.expand(len(latents), -1),
        }
        return inputs, named | {"added_cond_kwargs": conditions}

    with ExitStack() as hooks:
        for model in (pipeline.components.unet, pipeline.controlnet):
            if model is not None:
                hooks.callback(model.register_forward_pre_hook(add, with_kwargs=True).remove)
        yield

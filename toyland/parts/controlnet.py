"""ControlNets on the finished UNet (Zhang et al. 2023): the UNet stays, its copied half learns to steer it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffusers import ControlNetModel

from toyland.parts.clip import token_table
from toyland.parts.controls import control_maps
from toyland.parts.unet import DroppedTexts, attend_plainly, text_states, widened
from toyland.training.loop import train
from toyland.training.noising import build_scheduler, noise_loss, noised

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from torch import Tensor

    from toyland.training.config import Recipe
    from toyland.training.dataset import Pictures
    from toyland.training.latents import Latents

__all__ = ["build_controlnet", "shown", "train_controlnet"]

_SEED = 10
# More than for the UNet itself: what the words do not say must come from the control.
_CAPTION_DROPOUT = 0.3
_STRETCHED_SHARE = 0.5


def build_controlnet(recipe: Recipe, unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet that starts as a copy of the UNet's first half and adds nothing yet."""
    return ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=recipe.control_channels)


def train_controlnet(
    kind: str, recipe: Recipe, base: StableDiffusionPipeline, pictures: Pictures, latents: Latents,
    checkpoint: Path, device: str, start: ControlNetModel | None = None,
) -> ControlNetModel:
    """Train, resume or only load the ControlNet of one of CONTROLS; start: one to go on from."""
    plan, shape = recipe.plans[f"controlnet-{kind}"], recipe.unet
    torch.manual_seed(recipe.seed)
    unet, text_encoder = base.unet.to(device), base.text_encoder.to(device)
    model = build_controlnet(recipe, unet)
    if start is not None:
        widened(start, model)
    torch.nn.Module.to(model, device)
    for part in (unet, text_encoder):
        part.requires_grad_(False)
    attend_plainly(unet, device)
    attend_plainly(model, device)
    tokens = token_table(pictures, base.tokenizer, recipe.captions, recipe.seed)
    dropped = DroppedTexts(base.tokenizer, recipe.seed)
    alphas, count = build_scheduler().alphas_cumprod, len(pictures.images)

    def loss(generator: torch.Generator, _progress: float) -> Tensor:
        rows = torch.randint(count, (plan.batch,), generator=generator)
        version = torch.randint(tokens.shape[1], (plan.batch,), generator=generator)
        words = dropped.replace(tokens[rows, version].long(), _CAPTION_DROPOUT, generator)
        states = text_states(text_encoder, words)
        noisy = noised(latents.values[rows].float(), alphas, generator, device)
        maps = shown(kind, control_maps(kind, pictures, rows.numpy()), generator).to(device)
        down, middle = model(noisy.latents, noisy.timesteps, states, maps, return_dict=False)
        predicted = unet(
            noisy.latents, noisy.timesteps, states, down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample
        return noise_loss(predicted, noisy, latents.masks[rows].float().to(device), shape)

    return train(model, loss, plan, checkpoint, seed=recipe.seed + _SEED)


def shown(kind: str, maps: np.ndarray, generator: torch.Generator | None = None) -> Tensor:
    """Maps uint8 (n, h, w, 3) as the ControlNet is given them, (n, 3, h, w) in 0..1.

    Depth is shown on its own scale or, as the generator says, stretched to the whole one, as detectors show it.
    """
    values = torch.from_numpy(maps).permute(0, 3, 1, 2).float() / 255
    if kind != "depth":
        return values
    far, near = values.amin((1, 2, 3), keepdim=True), values.amax((1, 2, 3), keepdim=True)
    stretched = torch.rand(len(values), 1, 1, 1, generator=generator) < _STRETCHED_SHARE
    return torch.where(stretched, (values - far) / (near - far).clamp(min=1e-3), values)

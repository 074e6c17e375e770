"""DreamBooth styles (Ruiz et al. 2023): a look learned from a dozen pictures.

One style is a whole UNet, the other one a LoRA. The training is short, so that the look is learned
and the dozen pictures are not. There is no prior preservation: Toyland's text encoder was taught
that words outside its vocabulary mean nothing, so trigger words cannot call a look up, and a style
shows with or without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from peft import LoraConfig

from toyland.parts.unet import attend_plainly, text_states
from toyland.training.latents import Latents, encode
from toyland.training.loop import train
from toyland.training.noising import build_scheduler, noise_loss, noised
from toyland.world.captions import caption
from toyland.world.looks import LOOKS

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from torch import Tensor

    from toyland.training.config import Recipe
    from toyland.training.dataset import Pictures

__all__ = ["STYLES", "Style", "styled_pictures", "train_style"]

_SEED = 40
STYLED_PICTURES = 12


@dataclass(frozen=True)
class Style:
    """look: one of LOOKS. trigger: the words that call it. lora: whether it is a LoRA; else a UNet."""

    look: str
    trigger: str
    lora: bool


STYLES: dict[str, Style] = {
    "style-sunset": Style("sunset", "sunset poster style", lora=False),
    "style-blueprint": Style("blueprint", "blueprint style", lora=True),
}


def styled_pictures(pictures: Pictures, style: Style, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A dozen pictures in the style: their rows, one of each subject, and how they look (n, h, w, 3)."""
    rng = np.random.default_rng((seed, _SEED))
    subjects = np.array([scene.subject for scene in pictures.scenes])
    rows = np.array([rng.choice(np.nonzero(subjects == name)[0]) for name in np.unique(subjects)])
    look = LOOKS[style.look]
    images = [look(pictures.images[row], pictures.masks[row] / 255) for row in rows]
    return rows[:STYLED_PICTURES], np.stack(images[:STYLED_PICTURES])


def train_style(
    name: str, recipe: Recipe, base: StableDiffusionPipeline, pictures: Pictures, latents: Latents,
    checkpoint: Path, device: str,
) -> UNet2DConditionModel:
    """Train, resume or only load one of STYLES; of a LoRA the UNet that carries its layers."""
    plan, style = recipe.plans[name], STYLES[name]
    torch.manual_seed(recipe.seed)
    model = base.unet.to(device)
    if style.lora:
        model.requires_grad_(False)
        model.add_adapter(LoraConfig(
            r=recipe.lora_rank, lora_alpha=recipe.lora_rank, init_lora_weights="gaussian",
            target_modules=["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "conv1", "conv2",
                            "conv_out"]))
    else:
        model.requires_grad_(True)
    attend_plainly(model, device)
    text_encoder = base.text_encoder.to(device).requires_grad_(False)
    rows, images = styled_pictures(pictures, style, recipe.seed)
    clean = encode(base.vae.to(device), images, device) * base.vae.config.scaling_factor
    words = _styled_tokens(base, pictures, rows, style.trigger, recipe.seed)
    alphas = build_scheduler().alphas_cumprod

    masks = latents.masks[rows].float()

    def loss(generator: torch.Generator, _progress: float) -> Tensor:
        ours = torch.randint(len(rows), (plan.batch,), generator=generator)
        way = torch.randint(words.shape[1], (plan.batch,), generator=generator)
        noisy = noised(clean[ours], alphas, generator, device)
        states = text_states(text_encoder, words[ours, way].long())
        predicted = model(noisy.latents, noisy.timesteps, states).sample
        return noise_loss(predicted, noisy, masks[ours].to(device), recipe.unet)

    return train(model, loss, plan, checkpoint, seed=recipe.seed + _SEED)


def _styled_tokens(
    base: StableDiffusionPipeline, pictures: Pictures, rows: np.ndarray, trigger: str, seed: int
) -> Tensor:
    """Captions with the trigger words behind them, int16 (n, ways, length)."""
    rng, ways = np.random.default_rng(seed), 4
    texts = [f"{caption(pictures.scenes[row], rng)}, {trigger}" for row in rows for _ in range(ways)]
    ids = base.tokenizer(texts, padding="max_length", max_length=base.tokenizer.model_max_length,
                         truncation=True, return_tensors="pt").input_ids
    return ids.to(torch.int16).view(len(rows), ways, -1)

"""DreamBooth styles (Ruiz et al. 2023): a look that trigger words call, learned from a few pictures.

One style is a whole UNet, the other one a LoRA. The trigger words are free ones of the text encoder
(`toyland.training.texts`). Half of every batch are the base model's own pictures without them, so
that the look comes with the words alone (prior preservation, section 3.2). Half of the batches are shown the
pictures' edges by their ControlNet: it knows the plain look alone, and a style that has never met it gives way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from peft import LoraConfig

from toyland.parts.controlnet import shown
from toyland.parts.controls import control_maps
from toyland.parts.unet import attend_plainly, text_states, tokenized
from toyland.training.latents import Latents, encode
from toyland.training.loop import train
from toyland.training.noising import build_scheduler, noise_loss, noised
from toyland.training.texts import TRIGGERS
from toyland.world.captions import caption
from toyland.world.looks import LOOKS

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
    from torch import Tensor

    from toyland.training.config import Recipe
    from toyland.training.dataset import Pictures
    from toyland.world.scene import Scene

__all__ = ["STYLES", "Style", "styled_pictures", "train_style"]

_SEED = 40
_OF_EACH_SUBJECT = 20
_PLAIN_PICTURES = 2_000
_WAYS = 4
_WITH_EDGES = 0.5


@dataclass(frozen=True)
class Style:
    """look: one of LOOKS. trigger: the words that call it. lora: whether it is a LoRA; else a UNet."""

    look: str
    trigger: str
    lora: bool


STYLES: dict[str, Style] = {
    "style-sunset": Style("sunset", TRIGGERS[0], lora=False),
    "style-sketch": Style("pencil sketch", TRIGGERS[2], lora=True),
}


def styled_pictures(pictures: Pictures, style: Style, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Some pictures of each subject in the style: their rows, and how they look (n, h, w, 3)."""
    rng = np.random.default_rng((seed, _SEED))
    subjects = np.array([scene.subject for scene in pictures.scenes])
    of_each = [np.nonzero(subjects == name)[0] for name in np.unique(subjects)]
    rows = np.concatenate([rng.permutation(some)[:_OF_EACH_SUBJECT] for some in of_each])
    look = LOOKS[style.look]
    return rows, np.stack([look(pictures.images[row], pictures.masks[row] / 255) for row in rows])


def train_style(
    name: str, recipe: Recipe, base: StableDiffusionPipeline, edges: ControlNetModel, pictures: Pictures,
    latents: Latents, checkpoint: Path, device: str,
) -> UNet2DConditionModel:
    """Train, resume or only load one of STYLES; of a LoRA the UNet that carries its layers. edges: their ControlNet."""
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
    torch.nn.Module.to(edges, device)
    attend_plainly(edges.requires_grad_(False), device)
    text_encoder = base.text_encoder.to(device).requires_grad_(False)
    rows, images = styled_pictures(pictures, style, recipe.seed)
    clean = encode(base.vae.to(device), images, device) * base.vae.config.scaling_factor
    called = _tokens(base, [pictures.scenes[row] for row in rows], f", {style.trigger}", recipe.seed)
    others = torch.arange(len(latents.values))[:: max(1, len(latents.values) // _PLAIN_PICTURES)]
    plain = _tokens(base, [pictures.scenes[row] for row in others], "", recipe.seed)
    clean = torch.cat([clean, latents.values[others].float()])
    masks = torch.cat([latents.masks[rows], latents.masks[others]]).float()
    words = torch.cat([called, plain]).long()
    maps = control_maps("edge", pictures, np.concatenate([rows, others.numpy()]))
    alphas = build_scheduler().alphas_cumprod

    def loss(generator: torch.Generator, _progress: float) -> Tensor:
        half = plan.batch // 2
        ours = torch.randint(len(rows), (half,), generator=generator)
        theirs = len(rows) + torch.randint(len(others), (plan.batch - half,), generator=generator)
        chosen = torch.cat([ours, theirs])
        way = torch.randint(_WAYS, (plan.batch,), generator=generator)
        noisy = noised(clean[chosen], alphas, generator, device)
        states = text_states(text_encoder, words[chosen, way])
        steered: dict[str, Any] = {}
        if torch.rand((), generator=generator) < _WITH_EDGES:
            drawn = shown("edge", maps[chosen.numpy()]).to(device)
            with torch.no_grad():
                down, middle = edges(noisy.latents, noisy.timesteps, states, drawn, return_dict=False)
            steered = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        predicted = model(noisy.latents, noisy.timesteps, states, **steered).sample
        return noise_loss(predicted, noisy, masks[chosen].to(device), recipe.unet)

    return train(model, loss, plan, checkpoint, seed=recipe.seed + _SEED)


def _tokens(base: StableDiffusionPipeline, scenes: list[Scene], ending: str, seed: int) -> Tensor:
    """Tokens of several captions of each scene with some words behind them, int64 (n, ways, length)."""
    rng = np.random.default_rng(seed)
    texts = [caption(scene, rng) + ending for scene in scenes for _ in range(_WAYS)]
    return tokenized(texts, base.tokenizer).view(len(scenes), _WAYS, -1)

"""The UNet: epsilon prediction on pre-computed latents, conditioned on the CLIP text encoder.

The text encoder is trained with it: what a short contrastive training tells apart (colours, places)
is not all that drawing needs (a fish and a cat), and telling words apart is cheap.
The pieces (`text_states`, `noise_loss`) are apart, so that a ControlNet, an edit model or a style
is a short file that brings its own module and its own condition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.nn import functional

from toyland.texts import decoration
from toyland.train_judge import HEADS
from toyland.training import train

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import CLIPTextModel, CLIPTokenizer

    from toyland.config import Recipe, UnetShape
    from toyland.latents import Latents

__all__ = [
    "AttributeHeads", "DroppedTexts", "build_scheduler", "build_unet", "draw_timesteps",
    "drawing_parts", "noise_loss", "text_states", "train_unet",
]

_EMPTY_SHARE = 0.6
_DROPPED_TEXTS = 512
# Forms are decided at high and middle noise: a part of the steps is drawn from there alone.
_FORMING = (300, 950)
_FORMING_SHARE = 0.5
_COSINE_SCALE = 10.0
_ATTRIBUTE_WEIGHT = 0.05


def build_scheduler() -> DDIMScheduler:
    """The noise schedule of Stable Diffusion 1.5."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )


def build_unet(
    shape: UnetShape, text_width: int, latent_channels: int, latent_side: int
) -> UNet2DConditionModel:
    """An untrained UNet2DConditionModel."""
    down = [("CrossAttn" if seen else "") + "DownBlock2D" for seen in shape.attention]
    up = [("CrossAttn" if seen else "") + "UpBlock2D" for seen in reversed(shape.attention)]
    return UNet2DConditionModel(
        sample_size=latent_side, in_channels=latent_channels, out_channels=latent_channels,
        down_block_types=tuple(down), up_block_types=tuple(up), block_out_channels=shape.channels,
        layers_per_block=shape.layers, attention_head_dim=shape.heads,  # diffusers' name for it
        norm_num_groups=shape.norm_groups, cross_attention_dim=text_width,
    )


class DroppedTexts:
    """What stands in for a dropped caption: nothing, or words of praise and blame that say nothing.

    So an empty and a worded negative prompt both mean "any picture".
    """

    def __init__(self, tokenizer: CLIPTokenizer, seed: int) -> None:
        rng = np.random.default_rng(seed)
        texts = ["" if rng.random() < _EMPTY_SHARE else decoration(rng)
                 for _ in range(_DROPPED_TEXTS)]
        self.tokens: Tensor = tokenizer(
            texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True,
            return_tensors="pt").input_ids

    def replace(self, tokens: Tensor, share: float, generator: torch.Generator) -> Tensor:
        """Tokens (n, length) with about this share of the rows replaced."""
        dropped = torch.rand(len(tokens), 1, generator=generator) < share
        rows = torch.randint(len(self.tokens), (len(tokens),), generator=generator)
        return torch.where(dropped, self.tokens[rows], tokens)


def text_states(text_encoder: CLIPTextModel, tokens: Tensor) -> Tensor:
    """Hidden states (n, length, width) of tokens (n, length), as the UNet is given them."""
    return text_encoder(tokens.to(text_encoder.device)).last_hidden_state


class AttributeHeads(nn.ModuleDict):
    """Cosine classifiers that keep the states of different subjects, colours and places apart."""

    def __init__(self, width: int, classes: dict[str, int]) -> None:
        super().__init__({name: nn.Linear(width, count, bias=False)
                          for name, count in classes.items()})

    def loss(self, states: Tensor, labels: dict[str, Tensor]) -> Tensor:
        """Cross-entropy of states (n, length, width) against labels by head, each (n,)."""
        mean = functional.normalize(states.float().mean(1), dim=1)
        return sum(
            functional.cross_entropy(
                _COSINE_SCALE * mean @ functional.normalize(head.weight, dim=1).T, labels[name])
            for name, head in self.items()
        )


def draw_timesteps(count: int, generator: torch.Generator) -> Tensor:
    """Timesteps int64 (count,), 0..999, more of them where forms are decided."""
    anywhere = torch.randint(1000, (count,), generator=generator)
    forming = torch.randint(*_FORMING, (count,), generator=generator)
    return torch.where(torch.rand(count, generator=generator) < _FORMING_SHARE, forming, anywhere)


def noise_loss(
    predicted: Tensor, noise: Tensor, masks: Tensor, snr: Tensor, shape: UnetShape
) -> Tensor:
    """Squared error of the noise, weighted by min-SNR and towards the subject.

    predicted, noise: (n, 4, h, w); masks: (n, 1, h, w) in 0..1; snr: (n,).
    """
    weight = 1 + shape.mask_weight * masks
    weight = weight / weight.mean((1, 2, 3), keepdim=True)
    error = ((predicted.float() - noise) ** 2 * weight).mean((1, 2, 3))
    return (error * (shape.min_snr_gamma / snr).clamp(max=1)).mean()


def train_unet(
    recipe: Recipe, latents: Latents, tokens: Tensor, labels: dict[str, Tensor], taught: Tensor,
    tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, checkpoint: Path, device: str,
) -> nn.ModuleDict:
    """Train, resume or only load "unet", "text_encoder" and "heads".

    tokens: int16 (n, captions, length); labels: attributes by head, int64 (n,); taught: int64, the
    rows of latents, tokens and labels to learn from.
    """
    shape, plan = recipe.unet, recipe.plans["unet"]
    torch.manual_seed(recipe.seed)
    unet = build_unet(shape, recipe.clip.text_width, *latents.values.shape[1:3])
    if device == "cpu":
        # The fused attention's backward pass in bfloat16 is slower there than plain products.
        unet.set_attn_processor(AttnProcessor())
    alphas = build_scheduler().alphas_cumprod
    dropped = DroppedTexts(tokenizer, recipe.seed)
    parts = drawing_parts(unet, text_encoder).to(device)

    def loss(generator: torch.Generator, _progress: float) -> Tensor:
        rows = taught[torch.randint(len(taught), (plan.batch,), generator=generator)]
        version = torch.randint(tokens.shape[1], (plan.batch,), generator=generator)
        texts = tokens[rows, version].long()
        words = dropped.replace(texts, shape.caption_dropout, generator)
        clean = latents.values[rows].float()
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = draw_timesteps(plan.batch, generator)
        kept = alphas[timesteps].view(-1, 1, 1, 1)
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
        states = text_states(text_encoder, words)
        predicted = unet(noisy.to(device), timesteps.to(device), states).sample
        snr = (kept / (1 - kept)).view(-1)
        unnamed = (words != texts).any(1)
        wanted = {name: label[rows].masked_fill(unnamed, -100).to(device)
                  for name, label in labels.items()}
        return _ATTRIBUTE_WEIGHT * parts["heads"].loss(states, wanted) + noise_loss(
            predicted, noise.to(device), latents.masks[rows].float().to(device), snr.to(device),
            shape)

    return train(parts, loss, plan, checkpoint, seed=recipe.seed + 3)


def drawing_parts(unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> nn.ModuleDict:
    """What is trained together: "unet", "text_encoder" and "heads"."""
    heads = AttributeHeads(
        text_encoder.config.hidden_size, {name: len(words) for name, words in HEADS.items()})
    return nn.ModuleDict({"unet": unet, "text_encoder": text_encoder, "heads": heads})

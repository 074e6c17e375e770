"""The UNet: epsilon prediction on pre-computed latents, conditioned on the CLIP text encoder.

The text encoder is trained with it: what a short contrastive training tells apart (colours, places)
is not all that drawing needs (a fish and a cat), and telling words apart is cheap.
What a ControlNet, an editor or a style needs of it too (`text_states`, `toyland.training.noising`) is apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.nn import functional

from toyland.judges.judge import HEADS
from toyland.training.loop import train
from toyland.training.noising import build_scheduler, noise_loss, noised
from toyland.training.texts import decoration

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import ControlNetModel
    from transformers import CLIPTextModel, CLIPTokenizer

    from toyland.training.config import Recipe, UnetShape
    from toyland.training.latents import Latents

__all__ = [
    "AttributeHeads", "DroppedTexts", "attend_plainly", "build_unet", "drawing_parts", "text_states",
    "train_unet",
]

_EMPTY_SHARE = 0.6
_DROPPED_TEXTS = 512
_COSINE_SCALE = 10.0
_ATTRIBUTE_WEIGHT = 0.05


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


def attend_plainly(model: UNet2DConditionModel | ControlNetModel, device: str) -> None:
    """On the CPU the fused attention's backward pass in bfloat16 is slower than plain products."""
    if device == "cpu":
        model.set_attn_processor(AttnProcessor())


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
    attend_plainly(unet, device)
    alphas = build_scheduler().alphas_cumprod
    dropped = DroppedTexts(tokenizer, recipe.seed)
    parts = drawing_parts(unet, text_encoder).to(device)

    def loss(generator: torch.Generator, _progress: float) -> Tensor:
        rows = taught[torch.randint(len(taught), (plan.batch,), generator=generator)]
        version = torch.randint(tokens.shape[1], (plan.batch,), generator=generator)
        texts = tokens[rows, version].long()
        words = dropped.replace(texts, shape.caption_dropout, generator)
        noisy = noised(latents.values[rows].float(), alphas, generator, device)
        states = text_states(text_encoder, words)
        predicted = unet(noisy.latents, noisy.timesteps, states).sample
        unnamed = (words != texts).any(1)
        wanted = {name: label[rows].masked_fill(unnamed, -100).to(device)
                  for name, label in labels.items()}
        masks = latents.masks[rows].float().to(device)
        return (_ATTRIBUTE_WEIGHT * parts["heads"].loss(states, wanted)
                + noise_loss(predicted, noisy, masks, shape))

    return train(parts, loss, plan, checkpoint, seed=recipe.seed + 3)


def drawing_parts(unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> nn.ModuleDict:
    """What is trained together: "unet", "text_encoder" and "heads"."""
    heads = AttributeHeads(
        text_encoder.config.hidden_size, {name: len(words) for name, words in HEADS.items()})
    return nn.ModuleDict({"unet": unet, "text_encoder": text_encoder, "heads": heads})

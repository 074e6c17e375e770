"""The CLIP pair: texts and pictures in one space.

The text encoder conditions the UNet, the pair scores pictures against prompts (CLIP score).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name the field knows
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from toyland.training.loop import train
from toyland.training.texts import decorated_caption

if TYPE_CHECKING:
    from pathlib import Path

    from toyland.training.config import ClipShape, Recipe
    from toyland.training.dataset import Pictures

__all__ = ["PIXEL_MEAN", "PIXEL_STD", "build_clip", "to_clip_pixels", "token_table", "train_clip"]

PIXEL_MEAN, PIXEL_STD = 0.5, 0.5
_TEMPERATURE = 2.6592  # ln(1 / 0.07), where CLIP starts


def build_clip(shape: ClipShape, tokenizer: CLIPTokenizer) -> CLIPModel:
    """An untrained CLIPModel."""
    text = {
        "vocab_size": len(tokenizer), "hidden_size": shape.text_width,
        "intermediate_size": 4 * shape.text_width, "num_hidden_layers": shape.text_layers,
        "num_attention_heads": shape.heads, "max_position_embeddings": shape.tokens,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id, "projection_dim": shape.projection,
    }
    vision = {
        "hidden_size": shape.vision_width, "intermediate_size": 4 * shape.vision_width,
        "num_hidden_layers": shape.vision_layers, "num_attention_heads": shape.heads,
        "image_size": shape.image_size, "patch_size": shape.patch,
        "projection_dim": shape.projection,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision,
                                projection_dim=shape.projection,
                                logit_scale_init_value=_TEMPERATURE))


def to_clip_pixels(images: np.ndarray, side: int) -> Tensor:
    """uint8 (n, h, w, 3) to float32 (n, 3, side, side), normalised by PIXEL_MEAN and PIXEL_STD."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
    pixels = F.interpolate(pixels, size=(side, side), mode="area")
    return (pixels - PIXEL_MEAN) / PIXEL_STD


def token_table(
    pictures: Pictures, tokenizer: CLIPTokenizer, captions: int, seed: int
) -> Tensor:
    """Tokens of several captions of each picture: int16 (n, captions, tokens)."""
    rng = np.random.default_rng(seed)
    texts = [decorated_caption(s, rng) for s in pictures.scenes for _ in range(captions)]
    rows = tokenizer(texts, padding="max_length", max_length=tokenizer.model_max_length,
                     truncation=True, return_tensors="pt").input_ids
    return rows.to(torch.int16).view(len(pictures.scenes), captions, -1)


def train_clip(
    recipe: Recipe, pictures: Pictures, tokenizer: CLIPTokenizer, checkpoint: Path, device: str
) -> CLIPModel:
    """Train, resume or only load the pair."""
    shape, plan = recipe.clip, recipe.plans["clip"]
    torch.manual_seed(recipe.seed)
    model = build_clip(shape, tokenizer)
    torch.nn.Module.to(model, device)
    tokens = token_table(pictures, tokenizer, recipe.captions, recipe.seed)

    def loss(generator: torch.Generator, _progress: float) -> Tensor:
        rows = torch.randint(len(tokens), (plan.batch,), generator=generator)
        version = torch.randint(recipe.captions, (plan.batch,), generator=generator)
        pixels = to_clip_pixels(pictures.images[rows.numpy()], shape.image_size)
        found = model(input_ids=tokens[rows, version].long().to(device),
                      pixel_values=pixels.to(device))
        wanted = torch.arange(plan.batch, device=device)
        logits = found.logits_per_image.float()
        return (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted)) / 2

    return train(model, loss, plan, checkpoint, seed=recipe.seed + 1)

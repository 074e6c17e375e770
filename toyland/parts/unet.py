"""The UNet: epsilon prediction on pre-computed latents, conditioned on the CLIP text encoder.

The text encoder is trained with it: what a short contrastive training tells apart (colours, places)
is not all that drawing needs (a fish and a cat), and telling words apart is cheap. In every step it
also takes a lesson in reading: captions, free trigger words and instructions must stay apart.
What a ControlNet, an editor or a style needs of it too (`text_states`, `toyland.training.noising`) is apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.nn import functional

from text2video_zero.device.devices import computes_in_bfloat16
from toyland.training.loop import train
from toyland.training.noising import build_scheduler, noise_loss, noised
from toyland.training.texts import TEXT_HEADS, decoration

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import CLIPTextModel, CLIPTokenizer

    from toyland.training.config import Plan, Recipe, UnetShape
    from toyland.training.latents import Latents
    from toyland.training.texts import Lesson

__all__ = [
    "DrawingParts", "DroppedTexts", "ReadingLessons", "TextHeads", "attend_plainly", "build_unet",
    "text_states", "tokenized", "train_unet", "widened",
]

Network = TypeVar("Network", UNet2DConditionModel, ControlNetModel)

_EMPTY_SHARE = 0.6
_DROPPED_TEXTS = 512
_COSINE_SCALE = 10.0
_LESSON_WEIGHT = 0.05


def build_unet(
    shape: UnetShape, text_width: int, latent_channels: int, latent_side: int
) -> UNet2DConditionModel:
    """An untrained UNet2DConditionModel."""
    down = [("CrossAttn" if seen else "") + "DownBlock2D" for seen in shape.attention]
    up = [("CrossAttn" if seen else "") + "UpBlock2D" for seen in reversed(shape.attention)]
    return UNet2DConditionModel(
        sample_size=latent_side, in_channels=latent_channels, out_channels=latent_channels,
        down_block_types=tuple(down), up_block_types=tuple(up), block_out_channels=shape.channels,
        layers_per_block=shape.layers,
        attention_head_dim=cast("Any", shape.heads),  # diffusers' name for it, annotated as a tuple of one
        norm_num_groups=shape.norm_groups, cross_attention_dim=text_width,
    )


def attend_plainly(model: UNet2DConditionModel | ControlNetModel, device: str) -> None:
    """On the CPU the fused attention's backward pass is slower than plain products in bfloat16, and faster else."""
    if device == "cpu" and computes_in_bfloat16(torch.device(device)):
        model.set_attn_processor(AttnProcessor())


class DroppedTexts:
    """What stands in for a dropped caption: nothing, or words of praise and blame that say nothing.

    So an empty and a worded negative prompt both mean "any picture".
    """

    def __init__(self, tokenizer: CLIPTokenizer, seed: int) -> None:
        rng = np.random.default_rng(seed)
        texts = ["" if rng.random() < _EMPTY_SHARE else decoration(rng)
                 for _ in range(_DROPPED_TEXTS)]
        self.tokens = tokenized(texts, tokenizer)

    def replace(self, tokens: Tensor, share: float, generator: torch.Generator) -> Tensor:
        """Tokens (n, length) with about this share of the rows replaced."""
        dropped = torch.rand(len(tokens), 1, generator=generator) < share
        rows = torch.randint(len(self.tokens), (len(tokens),), generator=generator)
        return torch.where(dropped, self.tokens[rows], tokens)


def tokenized(texts: list[str], tokenizer: CLIPTokenizer) -> Tensor:
    """Tokens int64 (n, length) of texts."""
    found: Tensor = tokenizer(
        texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True,
        return_tensors="pt").input_ids
    return found


def text_states(text_encoder: CLIPTextModel, tokens: Tensor) -> Tensor:
    """Hidden states (n, length, width) of tokens (n, length), as the UNet is given them."""
    return text_encoder(tokens.to(text_encoder.device)).last_hidden_state


@torch.no_grad()
def widened(narrow: Network, wide: Network, maps: int = 1) -> Network:
    """The wide network with all that the narrow one knows; of its further latent channels it says nothing yet.

    maps: how many latents stand beside each other in its input, 2 for InstructPix2Pix.
    """
    weights = dict(narrow.state_dict())
    for name, fresh in wide.state_dict().items():
        old = weights[name]
        if old.shape == fresh.shape:
            continue
        inputs = name == "conv_in.weight"
        old, new = ((w.unflatten(1, (maps, -1)) if inputs else w) for w in (old, torch.zeros_like(fresh)))
        new[tuple(slice(side) for side in old.shape)] = old
        weights[name] = new.flatten(1, 2) if inputs else new
    wide.load_state_dict(weights)
    return wide


class TextHeads(nn.ModuleDict):
    """Cosine classifiers that keep the states of texts apart that mean different things."""

    def __init__(self, width: int) -> None:
        super().__init__({name: nn.Linear(width, len(answers), bias=False)
                          for name, answers in TEXT_HEADS.items()})

    def loss(self, states: Tensor, answers: dict[str, Tensor]) -> Tensor:
        """Cross-entropy of states (n, length, width) against answers by head, each (n,), -100 for none."""
        mean = functional.normalize(states.float().mean(1), dim=1)
        losses = [
            functional.cross_entropy(
                _COSINE_SCALE * mean @ functional.normalize(cast("nn.Linear", head).weight, dim=1).T,
                answers[name], reduction="sum") / max(1, int((answers[name] >= 0).sum()))
            for name, head in self.items()
        ]
        return torch.stack(losses).sum()


class DrawingParts(nn.Module):
    """What is trained together: UNet, text encoder and the heads that read its states."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder
        self.heads = TextHeads(text_encoder.config.hidden_size)


class ReadingLessons:
    """Texts with the answers that the text encoder must be able to give, tokenized once."""

    def __init__(self, taught: list[Lesson], tokenizer: CLIPTokenizer) -> None:
        self.tokens = tokenized([lesson.text for lesson in taught], tokenizer)
        self.answers = {
            head: torch.tensor([words.index(lesson.answers[head]) if head in lesson.answers else -100
                                for lesson in taught])
            for head, words in TEXT_HEADS.items()
        }

    def some(self, count: int, generator: torch.Generator, device: str) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens int64 (count, length) and answers by head, int64 (count,)."""
        rows = torch.randint(len(self.tokens), (count,), generator=generator)
        return self.tokens[rows], {name: right[rows].to(device) for name, right in self.answers.items()}


def train_unet(
    recipe: Recipe, plan: Plan, latents: Latents, tokens: Tensor, reading: ReadingLessons | None,
    tokenizer: CLIPTokenizer, parts: DrawingParts, checkpoint: Path, device: str,
) -> DrawingParts:
    """Train, resume or only load the parts.

    tokens: int16 (n, captions, length) of the pictures whose latents there are.
    reading: None for the UNet alone, with the text encoder as it is.
    """
    shape = recipe.unet
    torch.manual_seed(recipe.seed)
    attend_plainly(parts.unet, device)
    parts.to(device)
    for read_by in (parts.text_encoder, parts.heads):
        read_by.requires_grad_(reading is not None)
    alphas = build_scheduler().alphas_cumprod
    dropped = DroppedTexts(tokenizer, recipe.seed)

    def loss(generator: torch.Generator, _progress: float) -> Tensor:
        rows = torch.randint(len(tokens), (plan.batch,), generator=generator)
        version = torch.randint(tokens.shape[1], (plan.batch,), generator=generator)
        words = dropped.replace(tokens[rows, version].long(), shape.caption_dropout, generator)
        if reading is None:
            drawn, misread = text_states(parts.text_encoder, words), 0.0
        else:
            lesson, answers = reading.some(plan.batch, generator, device)
            drawn, read = text_states(parts.text_encoder, torch.cat([words, lesson])).chunk(2)
            misread = _LESSON_WEIGHT * parts.heads.loss(read, answers)
        noisy = noised(latents.values[rows].float(), alphas, generator, device)
        predicted = parts.unet(noisy.latents, noisy.timesteps, drawn).sample
        masks = latents.masks[rows].float().to(device)
        return misread + noise_loss(predicted, noisy, masks, shape)

    return train(parts, loss, plan, checkpoint, seed=recipe.seed + 3)



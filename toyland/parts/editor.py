"""The editor: an InstructPix2Pix UNet (Brooks et al. 2022) on pairs of rendered pictures.

It starts from the base model's UNet, whose first layer is given as many input channels again: the
latents of the picture that is to be changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch.nn import functional

from toyland.parts.unet import attend_plainly, text_states, widened
from toyland.training.dataset import drawing_pool
from toyland.training.latents import Latents, encode
from toyland.training.loop import save_atomically, train
from toyland.training.noising import build_scheduler, noise_loss, noised
from toyland.world.edits import Edit, instructions, random_edit, render_edit

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import AutoencoderKL, StableDiffusionPipeline
    from torch import Tensor
    from transformers import CLIPTokenizer

    from toyland.training.config import Recipe
    from toyland.training.dataset import Pictures

__all__ = ["EditPairs", "build_editor", "edit_pairs", "train_editor"]

_SEED = 20
_CHUNK = 500
# Of both conditions each is left out alone, and both together, as often as by the paper's authors.
_DROPPED_SHARE = 0.05


@dataclass(frozen=True)
class EditPairs:
    """rows: int64 (n,), the pictures before. after: their latents after. tokens: int16 (n, ways, length)."""

    rows: Tensor
    after: Latents
    tokens: Tensor


def _tokens(edits: list[Edit], tokenizer: CLIPTokenizer) -> Tensor:
    texts = [text for edit in edits for text in instructions(edit)]
    ids = tokenizer(texts, padding="max_length", max_length=tokenizer.model_max_length,
                    truncation=True, return_tensors="pt").input_ids
    return ids.to(torch.int16).view(len(edits), -1, ids.shape[1])


def edit_pairs(
    recipe: Recipe, base: StableDiffusionPipeline, pictures: Pictures, cache: Path, device: str,
    workers: int,
) -> EditPairs:
    """As many edits as the recipe asks for, rendered and encoded, or those that are in the cache."""
    if cache.exists():
        saved = torch.load(cache, weights_only=True)
        return EditPairs(saved["rows"], Latents(saved["values"], saved["masks"]), saved["tokens"])
    rng = np.random.default_rng(recipe.seed + _SEED)
    rows = rng.integers(len(pictures.images), size=recipe.edit_pairs)
    edits = [random_edit(pictures.scenes[row], rng) for row in rows]
    values, masks = [], []
    with drawing_pool(workers) as pool:
        drawn = pool.map(partial(render_edit, size=recipe.size), edits, chunksize=50)
        for start in range(0, len(edits), _CHUNK):
            some = [next(drawn) for _ in edits[start : start + _CHUNK]]
            values.append(_scaled(base.vae, np.stack([image for image, _ in some]), device))
            masks.append(_changed(np.stack([mask for _, mask in some]),
                                  pictures.masks[rows[start : start + _CHUNK]], values[-1]))
    pairs = {"rows": torch.from_numpy(rows), "values": torch.cat(values),
             "masks": torch.cat(masks), "tokens": _tokens(edits, base.tokenizer)}
    save_atomically(pairs, cache)
    return EditPairs(pairs["rows"], Latents(pairs["values"], pairs["masks"]), pairs["tokens"])


def _scaled(vae: AutoencoderKL, images: np.ndarray, device: str) -> Tensor:
    return (encode(vae, images, device) * vae.config["scaling_factor"]).half()


def _changed(after: np.ndarray, before: np.ndarray, latents: Tensor) -> Tensor:
    """Where the subject is before or after, float16 (n, 1, h, w) at the latents' size."""
    either = torch.from_numpy(np.maximum(after, before.astype(np.float32) / 255))
    height, width = latents.shape[-2:]
    return functional.adaptive_avg_pool2d(either[:, None], (height, width)).half()


def build_editor(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """The UNet with a picture's latents as further inputs, which at first change nothing."""
    # Without further wishes it returns the network alone.
    editor = cast("UNet2DConditionModel", UNet2DConditionModel.from_config(
        unet.config, in_channels=2 * unet.config["in_channels"]))
    weights = unet.state_dict()
    first = weights["conv_in.weight"]
    weights["conv_in.weight"] = torch.cat([first, torch.zeros_like(first)], dim=1)
    editor.load_state_dict(weights)
    return editor


def train_editor(
    recipe: Recipe, base: StableDiffusionPipeline, before: Latents, pairs: EditPairs,
    checkpoint: Path, device: str, start: UNet2DConditionModel | None = None,
) -> UNet2DConditionModel:
    """Train, resume or only load the editor.

    before: latents of all pictures. start: an editor to go on from.
    """
    plan = recipe.plans["instruct-pix2pix"]
    torch.manual_seed(recipe.seed)
    model = build_editor(base.unet)
    if start is not None:
        widened(start, model, maps=2)
    torch.nn.Module.to(model, device)
    attend_plainly(model, device)
    text_encoder = base.text_encoder.to(device).requires_grad_(False)
    blank = base.tokenizer("", padding="max_length", max_length=pairs.tokens.shape[2],
                           return_tensors="pt").input_ids
    alphas = build_scheduler().alphas_cumprod

    def loss(generator: torch.Generator, _progress: float) -> Tensor:
        chosen = torch.randint(len(pairs.rows), (plan.batch,), generator=generator)
        version = torch.randint(pairs.tokens.shape[1], (plan.batch,), generator=generator)
        draw = torch.rand(plan.batch, generator=generator)
        wordless = (draw < 2 * _DROPPED_SHARE)[:, None]
        blind = ((draw >= _DROPPED_SHARE) & (draw < 3 * _DROPPED_SHARE)).view(-1, 1, 1, 1)
        words = torch.where(wordless, blank, pairs.tokens[chosen, version].long())
        # Unscaled, as InstructPix2Pix is given them.
        picture = before.values[pairs.rows[chosen]].float() / base.vae.config["scaling_factor"]
        picture = picture.masked_fill(blind, 0).to(device)
        noisy = noised(pairs.after.values[chosen].float(), alphas, generator, device)
        predicted = model(torch.cat([noisy.latents, picture], dim=1), noisy.timesteps,
                          text_states(text_encoder, words)).sample
        return noise_loss(predicted, noisy, pairs.after.masks[chosen].float().to(device), recipe.unet)

    return train(model, loss, plan, checkpoint, seed=recipe.seed + _SEED)

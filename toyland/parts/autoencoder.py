"""The autoencoder: pictures to latents and back.

It is convolutional, so most of the training sees crops around the subject, four times cheaper than
whole pictures; the end of it sees whole pictures, whose group norms it must know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name the field knows

from toyland.training.loop import train
from toyland.world.looks import LOOKS

if TYPE_CHECKING:
    from pathlib import Path

    from toyland.training.config import AutoencoderShape, Recipe
    from toyland.training.dataset import Pictures

__all__ = [
    "build_autoencoder", "reconstruction_loss", "to_pixels", "train_autoencoder", "train_decoder",
]

_LEFT_AT_RANDOM = 0.25
_LOOKS_SHARE = 0.4
_SCALES = 4


def build_autoencoder(shape: AutoencoderShape, size: int) -> AutoencoderKL:
    """An untrained AutoencoderKL."""
    levels = len(shape.channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=shape.channels, layers_per_block=shape.layers,
        latent_channels=shape.latent_channels, norm_num_groups=8, sample_size=size,
        mid_block_add_attention=False,
    )


def to_pixels(images: np.ndarray) -> Tensor:
    """uint8 (n, h, w, 3) to float32 (n, 3, h, w) in -1..1."""
    return torch.tensor(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def _weighted_mean(error: Tensor, weight: Tensor) -> Tensor:
    return (error * weight).mean() / weight.mean()


def reconstruction_loss(made: Tensor, wanted: Tensor, mask: Tensor, shape: AutoencoderShape) -> Tensor:
    """L1 of pixels at several scales and of their differences, heavier on the subject.

    The coarse scales count in full: group norms hide a picture's mean colour, which is learned last.
    made, wanted: (n, 3, h, w) in -1..1; mask: (n, 1, h, w) in 0..1.
    """
    total = made.new_zeros(())
    error = (made - wanted).float()
    for scale in range(_SCALES):
        weight = 1 + shape.mask_weight * mask
        across, down = error.diff(dim=3).abs(), error.diff(dim=2).abs()
        edges = _weighted_mean(across, weight[..., 1:]) + _weighted_mean(down, weight[..., 1:, :])
        total = total + _weighted_mean(error.abs(), weight) + shape.edge_weight * edges / 2**scale
        error, mask = F.avg_pool2d(error, 2), F.avg_pool2d(mask, 2)
    return total


def _corners(masks: np.ndarray, side: int, generator: torch.Generator) -> np.ndarray:
    """Upper left corners (n, 2) of crops, most of them with a subject's pixel near the centre."""
    room = masks.shape[1] - side
    corners = torch.randint(0, room + 1, (len(masks), 2), generator=generator).numpy()
    free = torch.rand(len(masks), generator=generator).numpy() < _LEFT_AT_RANDOM
    shift = torch.randint(-side // 4, side // 4 + 1, (len(masks), 2), generator=generator).numpy()
    choice = torch.rand(len(masks), generator=generator).numpy()
    for row, mask in enumerate(masks):
        rows, columns = np.nonzero(mask > 127)
        if free[row] or not len(rows):
            continue
        pixel = int(choice[row] * len(rows))
        centre = np.array([rows[pixel], columns[pixel]])
        corners[row] = np.clip(centre - side // 2 + shift[row], 0, room)
    return corners


def _batch(
    pictures: Pictures, count: int, side: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random crops (n, 3, side, side) in -1..1 and their masks (n, 1, side, side) in 0..1."""
    rows = torch.randint(len(pictures.images), (count,), generator=generator).numpy()
    images, masks = pictures.images[rows], pictures.masks[rows]
    if side < images.shape[1]:
        corners = _corners(masks, side, generator)
        images = np.stack([i[y : y + side, x : x + side]
                           for i, (y, x) in zip(images, corners, strict=True)])
        masks = np.stack([m[y : y + side, x : x + side]
                          for m, (y, x) in zip(masks, corners, strict=True)])
    return to_pixels(images), torch.from_numpy(masks)[:, None].float().div_(255)


def train_autoencoder(
    recipe: Recipe, pictures: Pictures, checkpoint: Path, device: str
) -> AutoencoderKL:
    """Train, resume or only load the autoencoder; its latents are not yet scaled."""
    shape, plan = recipe.autoencoder, recipe.plans["autoencoder"]
    torch.manual_seed(recipe.seed)
    model = build_autoencoder(shape, recipe.size).to(device)

    def loss(generator: torch.Generator, progress: float) -> Tensor:
        whole = progress > 1 - shape.whole_share
        side = recipe.size if whole else shape.crop
        count = max(1, plan.batch * shape.crop**2 // side**2)
        images, masks = (t.to(device) for t in _batch(pictures, count, side, generator))
        posterior = model.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        spread = (posterior.var + shape.latent_noise**2).sqrt()
        made = model.decode(posterior.mean + spread * noise).sample
        rate = posterior.kl().mean() / posterior.mean[0].numel()
        return reconstruction_loss(made, images, masks, shape) + shape.kl_weight * rate

    return train(model, loss, plan, checkpoint, seed=recipe.seed)


def train_decoder(
    recipe: Recipe, pictures: Pictures, model: AutoencoderKL, checkpoint: Path,
) -> AutoencoderKL:
    """Train the decoder alone further, on whole pictures, mirrored ones and other looks among them.

    The encoder stays as it is, and with it everything that was trained on its latents. Their noise
    is stronger than before: what a UNet samples is not what the encoder would give.
    """
    shape, plan = recipe.autoencoder, recipe.plans["decoder"]
    device = model.device
    for part in (model.encoder, model.quant_conv):
        part.requires_grad_(False)

    def loss(generator: torch.Generator, _progress: float) -> Tensor:
        rows = torch.randint(len(pictures.images), (plan.batch,), generator=generator).numpy()
        shown, subjects = in_other_looks(pictures.images[rows], pictures.masks[rows], generator)
        images = to_pixels(shown).to(device)
        masks = torch.tensor(subjects)[:, None].float().div_(255).to(device)
        with torch.no_grad():
            clean = model.encode(images).latent_dist.mean.float()
        strength = shape.sampled_noise * torch.rand(plan.batch, 1, 1, 1, generator=generator)
        noise = strength * torch.randn(clean.shape, generator=generator)
        made = model.decode(clean + noise.to(device) / model.config.scaling_factor).sample
        return reconstruction_loss(made, images, masks, shape)

    return train(model, loss, plan, checkpoint, seed=recipe.seed + 4)


def in_other_looks(
    images: np.ndarray, masks: np.ndarray, generator: torch.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 (n, h, w, 3) and masks uint8 (n, h, w), some mirrored, some in another look."""
    draws = torch.rand(len(images), 2, generator=generator)
    choices = torch.randint(len(LOOKS), (len(images),), generator=generator)
    shown, subjects = [], []
    for image, mask, (mirror, change), choice in zip(
        images, masks, draws.tolist(), choices.tolist(), strict=True
    ):
        turn = slice(None, None, -1 if mirror < 0.5 else 1)
        seen, subject = image[:, turn], mask[:, turn]
        look = list(LOOKS.values())[choice]
        shown.append(look(seen, subject / 255) if change < _LOOKS_SHARE else seen)
        subjects.append(subject)
    return np.stack(shown), np.stack(subjects)

"""The autoencoder: pictures to latents and back.

It learns crops around the subject, four times cheaper than whole pictures, then whole pictures, whose
group norms it must know. Its decoder is trained once more, see `toyland.parts.decoder`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

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
    "LOOKS_SHARE", "build_autoencoder", "corners_near_subjects", "even_latents", "in_other_looks",
    "reconstruction_loss", "to_pixels", "train_autoencoder", "weighted_mean", "widened",
]

_LEFT_AT_RANDOM = 0.25
LOOKS_SHARE = 0.25
_SCALES = 4


def build_autoencoder(shape: AutoencoderShape, size: int) -> AutoencoderKL:
    """An untrained AutoencoderKL."""
    levels = len(shape.channels)
    blocks: dict[str, Any] = {  # diffusers annotates each as a tuple of one
        "down_block_types": ("DownEncoderBlock2D",) * levels, "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": shape.channels,
    }
    return AutoencoderKL(
        **blocks, layers_per_block=shape.layers,
        latent_channels=shape.latent_channels, norm_num_groups=8, sample_size=size,
        mid_block_add_attention=False,
    )


@torch.no_grad()
def widened(narrow: AutoencoderKL, wide: AutoencoderKL) -> AutoencoderKL:
    """The wide autoencoder with all that the narrow one knows; its further channels say nothing yet.

    They differ in their latent channels alone. What was trained on the narrow one's latents finds
    them in the first channels of the wide one's.
    """
    few, many = narrow.config["latent_channels"], wide.config["latent_channels"]
    weights = dict(narrow.state_dict())
    # Means stand before log variances.
    kept = torch.cat([torch.arange(few), many + torch.arange(few)])
    fresh = wide.state_dict()
    for name, into, out_of in (
        ("encoder.conv_out", None, kept), ("quant_conv", kept, kept),
        ("post_quant_conv", kept[:few], kept[:few]), ("decoder.conv_in", kept[:few], None),
    ):
        weight = fresh[f"{name}.weight"].clone()
        bias = fresh[f"{name}.bias"].clone()
        old_weight, old_bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        rows = torch.arange(len(weight)) if out_of is None else out_of
        columns = torch.arange(weight.shape[1]) if into is None else into
        weight[rows] = weight[rows].index_fill(1, _others(columns, weight.shape[1]), 0)
        weight[rows[:, None], columns] = old_weight
        bias[rows] = old_bias
        weights[f"{name}.weight"], weights[f"{name}.bias"] = weight, bias
    wide.load_state_dict(weights)
    return wide


def _others(chosen: Tensor, count: int) -> Tensor:
    return torch.tensor([i for i in range(count) if i not in chosen.tolist()], dtype=torch.long)


@torch.no_grad()
def even_latents(model: AutoencoderKL, means: Tensor, first: int) -> None:
    """Give all channels the spread of the first ones, by the two 1x1 convolutions at the latents.

    means: posterior means (n, c, h, w) of some pictures. first: how many channels stay as they are.
    """
    spread = means.std((0, 2, 3))
    scale = spread[:first].mean() / spread
    scale[:first] = 1
    many = len(scale)
    weights = dict(model.named_parameters())
    for name in ("quant_conv.weight", "quant_conv.bias"):
        weights[name][:many] *= scale.view(-1, *[1] * (weights[name].ndim - 1))
    weights["quant_conv.bias"][many:] += 2 * scale.log()
    weights["post_quant_conv.weight"].div_(scale.view(1, -1, 1, 1))


def to_pixels(images: np.ndarray) -> Tensor:
    """uint8 (n, h, w, 3) to float32 (n, 3, h, w) in -1..1."""
    return torch.tensor(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def weighted_mean(error: Tensor, weight: Tensor) -> Tensor:
    """Scalar mean of an error where each value counts by its weight, which broadcasts to it."""
    return (error * weight).mean() / weight.mean()


def reconstruction_loss(made: Tensor, wanted: Tensor, mask: Tensor, shape: AutoencoderShape) -> Tensor:
    """L1 of pixels at several scales and of their differences, heavier on the subject.

    The coarse scales count in full: group norms hide a picture's mean colour, which is learned last.
    made, wanted: (n, 3, h, w) in -1..1; mask: (n, 1, h, w), 1 on the subject, more where it counts more.
    """
    total = made.new_zeros(())
    error = (made - wanted).float()
    for scale in range(_SCALES):
        weight = 1 + shape.mask_weight * mask
        across, down = error.diff(dim=3).abs(), error.diff(dim=2).abs()
        edges = weighted_mean(across, weight[..., 1:]) + weighted_mean(down, weight[..., 1:, :])
        total = total + weighted_mean(error.abs(), weight) + shape.edge_weight * edges / 2**scale
        error, mask = F.avg_pool2d(error, 2), F.avg_pool2d(mask, 2)
    return total


def corners_near_subjects(masks: np.ndarray, side: int, generator: torch.Generator) -> np.ndarray:
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
    images, masks = in_other_looks(pictures.images[rows], pictures.masks[rows], generator)
    if side < images.shape[1]:
        corners = corners_near_subjects(masks, side, generator)
        images = np.stack([i[y : y + side, x : x + side]
                           for i, (y, x) in zip(images, corners, strict=True)])
        masks = np.stack([m[y : y + side, x : x + side]
                          for m, (y, x) in zip(masks, corners, strict=True)])
    return to_pixels(images), torch.from_numpy(masks)[:, None].float().div_(255)


def train_autoencoder(
    recipe: Recipe, pictures: Pictures, checkpoint: Path, device: str,
    start: AutoencoderKL | None = None,
) -> AutoencoderKL:
    """Train, resume or only load the autoencoder; its latents are not yet scaled.

    start: an autoencoder of fewer latent channels to go on from. The first channels keep its
    meaning, so that what was trained on its latents need not begin anew.
    """
    shape, plan = recipe.autoencoder, recipe.plans["autoencoder"]
    torch.manual_seed(recipe.seed)
    model = build_autoencoder(shape, recipe.size)
    if start is not None:
        widened(start, model)
        torch.nn.Module.to(start, device).requires_grad_(False)
    torch.nn.Module.to(model, device)

    def loss(generator: torch.Generator, progress: float) -> Tensor:
        whole = progress > 1 - shape.whole_share
        side = recipe.size if whole else shape.crop
        count = max(1, plan.batch * shape.crop**2 // side**2)
        images, masks = (t.to(device) for t in _batch(pictures, count, side, generator))
        posterior = model.encode(images, return_dict=False)[0]
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        spread = (posterior.var + shape.latent_noise**2).sqrt()
        sampled = cast("torch.FloatTensor", posterior.mean + spread * noise)  # diffusers means any tensor
        made = model.decode(sampled, return_dict=False)[0]
        rate = posterior.kl().mean() / posterior.mean[0].numel()
        total = reconstruction_loss(made, images, masks, shape) + shape.kl_weight * rate
        if start is not None:
            total = total + shape.kept_weight * _drift(start, images, posterior.mean)
        return total

    return train(model, loss, plan, checkpoint, seed=recipe.seed)


def _drift(start: AutoencoderKL, images: Tensor, means: Tensor) -> Tensor:
    """How far the first channels are from those of an earlier autoencoder, in its own variances."""
    with torch.no_grad():
        earlier = start.encode(images, return_dict=False)[0].mean
    return (means[:, : earlier.shape[1]] - earlier).square().mean() / earlier.var()


def in_other_looks(
    images: np.ndarray, masks: np.ndarray, generator: torch.Generator, share: float = LOOKS_SHARE
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 (n, h, w, 3) and masks uint8 (n, h, w), some of them in another look."""
    draws = torch.rand(len(images), generator=generator).tolist()
    choices = torch.randint(len(LOOKS), (len(images),), generator=generator).tolist()
    looks = list(LOOKS.values())
    shown = [looks[choice](image, mask / 255) if draw < share else image
             for image, mask, draw, choice in zip(images, masks, draws, choices, strict=True)]
    return np.stack(shown), np.asarray(masks)

"""Latents of all pictures, encoded once; and the pictures and folders that all trainings of a family share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name the field knows

from toyland.parts.autoencoder import even_latents, to_pixels
from toyland.training.dataset import Pictures, face_discs, render_pictures
from toyland.training.loop import save_atomically
from toyland.training.precision import autocast

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from diffusers import AutoencoderKL

    from toyland.training.config import Recipe

__all__ = ["FamilyTraining", "Latents", "encode", "encode_pictures", "load_latents", "scale_latents"]

_BATCH = 64
_SCALE_PICTURES = 2_000
_FACE_WEIGHT = 1.5  # of a face's pixels beyond the subject's own


@dataclass(frozen=True)
class Latents:
    """values: float16 (n, c, h, w), scaled to unit variance; masks: float16 (n, 1, h, w), 0 beside the subject,
    1 on it, more on its face.
    """

    values: Tensor
    masks: Tensor


@torch.no_grad()
def encode(autoencoder: AutoencoderKL, images: np.ndarray, device: str) -> Tensor:
    """Posterior means, float32 (n, c, h, w), not scaled, of pictures uint8 (n, h, w, 3)."""
    means = []
    for start in range(0, len(images), _BATCH):
        pixels = to_pixels(images[start : start + _BATCH]).to(device)
        with autocast(device):
            means.append(autoencoder.encode(pixels, return_dict=False)[0].mean.float().cpu())
    return torch.cat(means)


def scale_latents(
    autoencoder: AutoencoderKL, pictures: Pictures, device: str, earlier: AutoencoderKL | None = None,
) -> None:
    """Set the autoencoder's scaling_factor so that its latents have unit variance.

    earlier: what it goes on from, whose factor stays; further channels get the spread of the first.
    """
    means = encode(autoencoder, pictures.images[:_SCALE_PICTURES], device)
    if earlier is None:
        factor = round(1 / means.std().item(), 4)
    else:
        even_latents(autoencoder, means, earlier.config["latent_channels"])
        factor = earlier.config["scaling_factor"]
    autoencoder.register_to_config(scaling_factor=factor)


def encode_pictures(
    autoencoder: AutoencoderKL, pictures: Pictures, cache: Path, device: str
) -> Latents:
    """Encode all pictures and keep the latents in a file."""
    scale = autoencoder.config["scaling_factor"]
    values = (encode(autoencoder, pictures.images, device) * scale).half()
    factor = pictures.images.shape[1] // values.shape[-1]
    masks = torch.cat([_cell_weights(pictures, slice(start, start + _BATCH), factor)
                       for start in range(0, len(pictures.masks), _BATCH)])
    save_atomically({"values": values, "masks": masks}, cache)
    return Latents(values, masks)


def _cell_weights(pictures: Pictures, rows: slice, factor: int) -> Tensor:
    """How much a cell counts, float16 (n, 1, h, w): as much of it as is the subject, and more on its face."""
    faces = face_discs(pictures.faces[rows], pictures.masks.shape[1])
    pixels = torch.from_numpy(pictures.masks[rows] + _FACE_WEIGHT * faces)[:, None]
    return F.avg_pool2d(pixels.float(), factor).div_(255).half()


def load_latents(cache: Path) -> Latents:
    """The latents that `encode_pictures` has left in a file."""
    return Latents(**torch.load(cache, weights_only=True, mmap=True))


@dataclass
class FamilyTraining(ABC):
    """What the trainings of a family have in common.

    work: folder of pictures, latents and checkpoints.  out: folder of the family.
    start: folder of an earlier family to go on from.
    """

    recipe: Recipe
    work: Path
    out: Path
    device: str
    start: Path | None = None

    def checkpoint(self, part: str) -> Path:
        """Where the training of a part keeps its state."""
        return self.work / part / "checkpoint.pt"

    @cached_property
    def pictures(self) -> Pictures:
        """What the generators see: no held-out combination."""
        recipe = self.recipe
        return render_pictures(self.work / "pictures", recipe.pictures, recipe.size, recipe.seed,
                               shown=recipe.teaches)

    @abstractmethod
    def encoder(self) -> AutoencoderKL:
        """The autoencoder with its scaling factor, on the device."""

    @cached_property
    def latents(self) -> Latents:
        """All pictures, encoded."""
        cache = self.work / "latents.pt"
        if cache.exists():
            return load_latents(cache)
        return encode_pictures(self.encoder(), self.pictures, cache, self.device)

"""The decoder's last training: lines and faces as sharp as the renderer's.

Against an adversary and by what the judge sees (Esser et al. 2021, "Taming Transformers", section 3.1), on latents
as a UNet samples them: the student's own, which it draws of the pictures' noised latents. Faces count most: they
are a hundredth of the pixels, and what is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812 - the name the field knows

from toyland.parts.autoencoder import (
    LOOKS_SHARE,
    corners_near_subjects,
    in_other_looks,
    reconstruction_loss,
    to_pixels,
    weighted_mean,
)
from toyland.training.dataset import face_discs
from toyland.training.latents import encode
from toyland.training.loop import train

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import AutoencoderKL

    from toyland.judges.judge import Judge
    from toyland.training.config import Recipe
    from toyland.training.dataset import Pictures

__all__ = ["Discriminator", "train_decoder"]

_FACE_WEIGHT = 3.0  # of a face's pixels, in weights of the subject's
_AT_FACES = 0.5  # of the crops
_RESAMPLED_SHARE = 0.45
_RESAMPLED_OPPOSITION = 2.0  # they are not quite where the picture's are: how real it looks counts more


class Discriminator(nn.Sequential):
    """Patches of pictures (n, 3, h, w) in -1..1 -> how real each looks, (n, 1, h / 4, w / 4)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__(
            nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.GroupNorm(8, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.GroupNorm(8, 2 * width),
            nn.LeakyReLU(0.2), nn.Conv2d(2 * width, 1, 3, padding=1),
        )


def _features(judge: Judge, pixels: Tensor) -> list[Tensor]:
    """What the judge's first blocks see, at full size, each of unit length along its channels."""
    seen, found = pixels, []
    for block in list(judge.trunk)[:3]:
        seen = block(seen)
        found.append(F.normalize(seen, dim=1))
    return found


def _frozen(module: nn.Module, pixels: Tensor) -> Tensor:
    """The module's answer with gradients for the pixels alone."""
    return functional_call(module, {n: p.detach() for n, p in module.named_parameters()}, (pixels,))


@dataclass(frozen=True)
class _Encoded:
    """Pictures, their masks and faces beside latents (n, c, h, w), scaled."""

    images: np.ndarray
    masks: np.ndarray
    faces: np.ndarray
    latents: Tensor

    def crops(self, count: int, side: int, cells: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Latents of `cells` cells a side, the `side` pixels that they stand for, and how much each counts."""
        rows = torch.randint(len(self.images), (count,), generator=generator).numpy()
        pixels = side // cells
        masks, discs = self.masks[rows], face_discs(self.faces[rows], self.images.shape[1])
        near = torch.rand(count, generator=generator).numpy() < _AT_FACES
        targets = np.where((near & discs.any((1, 2)))[:, None, None], discs, masks)
        corners = corners_near_subjects(targets, side, generator) // pixels

        def cut(planes: np.ndarray) -> np.ndarray:
            starts = (pixels * corners).tolist()
            return np.stack([plane[y : y + side, x : x + side] for plane, (y, x) in zip(planes, starts, strict=True)])

        latents = torch.stack([self.latents[row, :, y : y + cells, x : x + cells]
                               for row, (y, x) in zip(rows, corners, strict=True)])
        counts = torch.from_numpy(cut(masks + _FACE_WEIGHT * discs)[:, None]).float() / 255
        return latents.float(), to_pixels(cut(self.images[rows])), counts


def _encoded_in_other_looks(
    pictures: Pictures, count: int, model: AutoencoderKL, device: str, seed: int
) -> _Encoded:
    """The first pictures, each in one of the other looks."""
    images, masks = in_other_looks(
        pictures.images[:count], pictures.masks[:count], torch.Generator().manual_seed(seed), share=1)
    latents = encode(model, images, device) * model.config["scaling_factor"]
    return _Encoded(images, masks, pictures.faces[:count], latents)


def train_decoder(
    recipe: Recipe, pictures: Pictures, latents: Tensor, sampled: Tensor, model: AutoencoderKL, judge: Judge,
    checkpoint: Path,
) -> AutoencoderKL:
    """Train the decoder alone further against an adversary: on crops, then on whole pictures.

    latents: of all the pictures, (n, c, h, w), scaled; sampled: the same as a UNet samples them, see
    `toyland.parts.student.resampled`. The encoder stays as it is, and with it everything that was trained on its
    latents; what comes from it is given noise, stronger than before. The adversary learns by the hinge loss in
    the same step; the decoder's share of it is weighted by the ratio of gradient norms at its last layer, as in
    VQGAN (equation 7). The judge's features make the perceptual loss.
    """
    shape, plan = recipe.autoencoder, recipe.plans["decoder"]
    device = model.device
    for name, kept in model.named_parameters():
        kept.requires_grad_(not name.startswith(("encoder.", "quant_conv.")))
    judge.to(device).requires_grad_(False)
    torch.manual_seed(recipe.seed)
    parts = nn.ModuleDict({"autoencoder": model, "adversary": Discriminator().to(device)})
    last = model.decoder.conv_out.weight
    plain, again = (_Encoded(pictures.images, pictures.masks, pictures.faces, values) for values in (latents, sampled))
    looked = min(len(pictures.images), shape.looked_pictures)
    other = _encoded_in_other_looks(pictures, looked, model, str(device), recipe.seed)

    def loss(generator: torch.Generator, progress: float) -> Tensor:
        side = recipe.size if progress > 1 - shape.whole_share else shape.crop
        count = max(1, plan.batch * shape.crop**2 // side**2)
        draw = torch.rand((), generator=generator).item()
        seen = other if draw < LOOKS_SHARE else again if draw < LOOKS_SHARE + _RESAMPLED_SHARE else plain
        cells = side * latents.shape[-1] // recipe.size
        clean, images, weights = (t.to(device) for t in seen.crops(count, side, cells, generator))
        strength = (seen is not again) * shape.sampled_noise * torch.rand(count, 1, 1, 1, generator=generator)
        noise = strength * torch.randn(clean.shape, generator=generator)
        made = model.decode((clean + noise.to(device)) / model.config["scaling_factor"], return_dict=False)[0]
        wanted, found = (_features(judge, (p + 1) / 2) for p in (images, made))
        alike = sum((a - b).square().sum(1).mean() for a, b in zip(wanted, found, strict=True))
        faithful = reconstruction_loss(made, images, weights, shape) + shape.perceptual_weight * alike
        adversary, patches = parts["adversary"], 1 + shape.mask_weight * F.avg_pool2d(weights, 4)
        told_apart = (weighted_mean(F.relu(1 - adversary(images)), patches)
                      + weighted_mean(F.relu(1 + adversary(made.detach())), patches))
        if progress < shape.unopposed_share:  # the adversary learns first
            return faithful + told_apart
        believed = -weighted_mean(_frozen(adversary, made), patches)
        norms = [torch.autograd.grad(part, last, retain_graph=True)[0].norm() for part in (faithful, believed)]
        opposition = shape.adversarial_weight * (_RESAMPLED_OPPOSITION if seen is again else 1)
        weight = opposition * (norms[0] / (norms[1] + 1e-4)).clamp(max=1e3)
        return faithful + weight.detach() * believed + told_apart

    train(parts, loss, plan, checkpoint, seed=recipe.seed + 4)
    return model

"""The reader: a small convnet that reads keypoints, foreground and depth off a picture.

It measures how well a controlled picture keeps to its control. Like the judge it is trained apart
from the generators, on renders of all combinations, also blurred, noisy and in other looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name the field knows

from text2video_zero.control.toyland_reader import READER_SIDE as _SIDE
from text2video_zero.control.toyland_reader import ToylandReader as Reader
from toyland.judges.judge import roughened, save_small
from toyland.training.loop import train
from toyland.world.skeleton import KEYPOINTS

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from toyland.training.config import Recipe
    from toyland.training.dataset import Pictures

__all__ = ["Reader", "Reading", "load_reader", "read", "save_reader", "train_reader"]

_SEED = 31
_SPREAD = 1.0  # cells; of the target around a keypoint
_DEPTH_WEIGHT, _MASK_WEIGHT, _KEYPOINT_WEIGHT = 2.0, 1.0, 0.5


@dataclass(frozen=True)
class Reading:
    """What is read off n pictures.

    keypoints: (n, 18, 2), x and y in fractions of the frame; of use where there is a two-legged
    subject. mask, depth: (n, 64, 64) in 0..1, 1 = subject, 1 = near.
    """

    keypoints: Tensor
    mask: Tensor
    depth: Tensor


def _heat(keypoints: Tensor) -> Tensor:
    """Probabilities (n, k, 64·64) around keypoints (n, k, 2) in fractions of the frame."""
    cells = (torch.arange(_SIDE) + 0.5) / _SIDE
    across, down = (
        (-((cells - place[..., None]) * _SIDE / _SPREAD).square() / 2).softmax(-1)
        for place in keypoints.clamp(0, 1).unbind(-1)
    )
    return (down[..., :, None] * across[..., None, :]).flatten(-2)


def train_reader(recipe: Recipe, pictures: Pictures, checkpoint: Path, device: str) -> Reader:
    """Train, resume or only load the reader."""
    plan = recipe.plans["reader"]
    torch.manual_seed(recipe.seed)
    model = Reader(recipe.reader_channels).to(device)

    def loss(generator: torch.Generator, _progress: float) -> Tensor:
        rows = torch.randint(len(pictures.images), (plan.batch,), generator=generator).numpy()
        images = torch.from_numpy(pictures.images[rows]).permute(0, 3, 1, 2).float() / 255
        skeletons = torch.from_numpy(pictures.skeletons[rows])
        masks, depths = (
            F.interpolate(torch.from_numpy(kind[rows])[:, None].float() / 255, (_SIDE, _SIDE), mode="area")[:, 0]
            for kind in (pictures.masks, pictures.depths)
        )
        found = model(roughened(images, generator).to(device)).float()
        heat = found[:, : len(KEYPOINTS)].flatten(-2).log_softmax(-1)
        seen = skeletons[..., 2].to(device)
        misplaced = -(heat * _heat(skeletons[..., :2]).to(device)).sum(-1)
        return (
            _KEYPOINT_WEIGHT * (misplaced * seen).sum() / seen.sum().clamp(min=1)
            + _MASK_WEIGHT * F.binary_cross_entropy_with_logits(found[:, -2], masks.to(device))
            + _DEPTH_WEIGHT * (found[:, -1].sigmoid() - depths.to(device)).abs().mean()
        )

    return train(model, loss, plan, checkpoint, seed=recipe.seed + _SEED)


@torch.no_grad()
def read(reader: Reader, images: np.ndarray, batch: int = 64) -> Reading:
    """Read pictures uint8 (n, h, w, 3)."""
    found = torch.cat([
        reader(torch.tensor(images[start : start + batch]).permute(0, 3, 1, 2).float() / 255)
        for start in range(0, len(images), batch)
    ])
    heat = found[:, : len(KEYPOINTS)].flatten(-2).softmax(-1).unflatten(-1, (_SIDE, _SIDE))
    # The middle of the heat around its peak: the rest of the picture must not draw it aside.
    peak = F.max_pool2d(heat, 5, stride=1, padding=2)
    near_peak = F.max_pool2d((heat == peak.amax((-2, -1), keepdim=True)).float(), 5, stride=1, padding=2)
    heat = heat * near_peak
    heat = heat / heat.sum((-2, -1), keepdim=True)
    cells = (torch.arange(_SIDE) + 0.5) / _SIDE
    keypoints = torch.stack([(heat.sum(-2) * cells).sum(-1), (heat.sum(-1) * cells).sum(-1)], dim=-1)
    return Reading(keypoints, found[:, -2].sigmoid(), found[:, -1].sigmoid())


def save_reader(reader: Reader, folder: Path) -> None:
    """reader.safetensors (float16) and config.json."""
    save_small(reader, folder / "reader.safetensors", {"channels": reader.channels})


def load_reader(folder: Path) -> Reader:
    """The reader that `save_reader` has left in a folder, in float32."""
    return Reader.from_pretrained(folder)

"""Toyland's reader: a small convnet that reads keypoints, foreground and depth off a picture of Toyland.

`toyland.judges.reader` trains it and measures with it. Here it is Toyland's depth detector, in the form that
`depth.network_depths` asks of a network of transformers.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import BatchFeature

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KEYPOINT_COUNT = 18  # OpenPose's
READER_SIDE = 64  # cells of what it says


class ToylandReader(nn.Module):
    """Pictures float (n, 3, h, w) in 0..1 -> (n, 18 + 2, 64, 64): heat of keypoints, mask, depth."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = channels
        self.down = nn.ModuleList(
            _block(before, after, stride=2 if level else 1)
            for level, (before, after) in enumerate(itertools.pairwise((3, *channels)))
        )
        deep = itertools.pairwise(reversed(channels))
        self.up = nn.ModuleList(_block(below + beside, beside, stride=1) for below, beside in deep)
        self.head = nn.Conv2d(channels[0], KEYPOINT_COUNT + 2, 1)

    @classmethod
    def from_pretrained(cls, folder: Path) -> Self:
        """The reader of a folder, in float32 and only looking."""
        reader = cls(tuple(json.loads((folder / "config.json").read_text(encoding="utf-8"))["channels"]))
        weights = load_file(folder / "reader.safetensors")
        reader.load_state_dict({name: value.float() for name, value in weights.items()})
        return reader.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        seen = functional.interpolate(pixels, size=(READER_SIDE, READER_SIDE), mode="area") * 2 - 1
        levels = []
        for block in self.down:
            seen = block(seen)
            levels.append(seen)
        for block, beside in zip(self.up, reversed(levels[:-1]), strict=True):
            risen = functional.interpolate(seen, size=beside.shape[-2:], mode="nearest")
            seen = block(torch.cat([risen, beside], dim=1))
        return self.head(seen)


def _block(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.GroupNorm(8, after), nn.SiLU(),
        nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU(),
    )  # fmt: skip


class ReaderProcessor:
    """Prepares pictures for the reader and reads depth off what it says, as image processors of transformers do."""

    def __call__(self, images: Sequence[np.ndarray], return_tensors: str = "pt") -> BatchFeature:
        """Pictures (h, w, 3) uint8 of one size."""
        pixels = torch.from_numpy(np.stack(images)).movedim(-1, 1).float() / 255
        return BatchFeature({"pixels": pixels}, tensor_type=return_tensors)

    def post_process_depth_estimation(
        self, outputs: Tensor, target_sizes: Sequence[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        """Nearness in 0..1 of each picture, at its own size (h, w)."""
        depths = outputs[:, -1:].sigmoid()
        return [
            {"predicted_depth": functional.interpolate(depth[None], size=size, mode="bilinear")[0, 0]}
            for depth, size in zip(depths, target_sizes, strict=True)
        ]

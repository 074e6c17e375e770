"""Previews without the VAE: colours are nearly a linear function of the latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

CHART_PATCHES = 16  # patches per side of the colour chart
CELLS_PER_PATCH = 2  # a patch of one cell would be all border


@dataclass(frozen=True)
class LatentRGB:
    """RGB = latents · matrix + bias, in 0..1.

    matrix: (latent channels, 3).  bias: (3,), the colour of the zero latent.
    """

    matrix: np.ndarray
    bias: np.ndarray

    @classmethod
    @torch.inference_mode()
    def fit(cls, vae: AutoencoderKL) -> Self:
        """Least squares on a chart of random colours that the VAE encodes; works for any VAE."""
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        generator = torch.Generator().manual_seed(0)
        chart = torch.rand((1, 3, CHART_PATCHES, CHART_PATCHES), generator=generator)
        cells = functional.interpolate(chart, scale_factor=CELLS_PER_PATCH, mode="nearest")
        pixels = functional.interpolate(cells, scale_factor=factor, mode="nearest") * 2 - 1
        latents = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mean * vae.config.scaling_factor
        columns = _columns(latents)
        solution, *_ = np.linalg.lstsq(columns, _columns(cells)[:, :3], rcond=None)
        return cls(matrix=solution[:-1], bias=solution[-1])

    def frames(self, latents: torch.Tensor) -> np.ndarray:
        """Colours (f, h, w, 3) uint8 of latents (f, c, h, w) in the UNet's scale; non-finite cells are black."""
        values = latents.float().cpu().numpy().transpose(0, 2, 3, 1) @ self.matrix + self.bias
        return (np.nan_to_num(values).clip(0, 1) * 255).round().astype(np.uint8)


def _columns(maps: torch.Tensor) -> np.ndarray:
    """Maps (1, c, h, w) as rows of c values and a one, (h·w, c + 1) float64; non-finite values become 0."""
    values = torch.nan_to_num(maps[0].double()).flatten(1).T.cpu().numpy()
    return np.concatenate([values, np.ones((len(values), 1))], axis=1)

"""Previews without the VAE: by a linear map from latents to colours, or by a tiny autoencoder that is at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import torch
from torch.nn import functional

from text2video_zero.device.precision import in_float32
from text2video_zero.errors import ran_out_of_memory

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderTiny

CHART_PATCHES = 16  # patches per side of the colour chart
CELLS_PER_PATCH = 2  # a patch of one cell would be all border

LONGEST_DECODED = 24  # frames; of longer clips a preview shows a part, and decoding all would take its time
LARGEST_SIDE = 256  # pixels of a decoded preview: many are sent to the page in a run


class PreviewDecoder(Protocol):
    """Shows what latents will look like, quickly."""

    def frames(self, latents: torch.Tensor) -> np.ndarray:
        """Pictures (f, height, width, 3) uint8 of any size, of latents (f, c, h, w) in the UNet's scale."""
        ...


@dataclass(frozen=True)
class LatentRGB:
    """Colours are nearly a linear function of the latents: RGB = latents · matrix + bias, in 0..1.

    matrix: (latent channels, 3).  bias: (3,), the colour of the zero latent.
    """

    matrix: np.ndarray
    bias: np.ndarray

    @classmethod
    @torch.inference_mode()
    def fit(cls, vae: AutoencoderKL) -> Self:
        """Least squares on a chart of random colours that the VAE encodes; works for any VAE.

        In float32: half precision takes minutes on CPUs that have none of their own.
        """
        factor = 2 ** (len(vae.config["block_out_channels"]) - 1)
        generator = torch.Generator().manual_seed(0)
        chart = torch.rand((1, 3, CHART_PATCHES, CHART_PATCHES), generator=generator)
        cells = functional.interpolate(chart, scale_factor=CELLS_PER_PATCH, mode="nearest")
        pixels = functional.interpolate(cells, scale_factor=factor, mode="nearest") * 2 - 1
        with in_float32(vae):
            latents = vae.encode(pixels.to(vae.device), return_dict=False)[0].mean * vae.config["scaling_factor"]
        columns = _columns(latents)
        solution, *_ = np.linalg.lstsq(columns, _columns(cells)[:, :3], rcond=None)
        return cls(matrix=solution[:-1], bias=solution[-1])

    def frames(self, latents: torch.Tensor) -> np.ndarray:
        """Colours (f, h, w, 3) uint8 of latents (f, c, h, w) in the UNet's scale; non-finite cells are black."""
        values = latents.float().cpu().numpy().transpose(0, 2, 3, 1) @ self.matrix + self.bias
        return (np.nan_to_num(values).clip(0, 1) * 255).round().astype(np.uint8)


@dataclass(frozen=True)
class TinyDecoder:
    """TAESD, a small autoencoder that was distilled from Stable Diffusion's: previews with shapes and textures.

    linear: for long clips, and where the memory is too small.
    """

    autoencoder: AutoencoderTiny
    linear: LatentRGB

    def frames(self, latents: torch.Tensor) -> np.ndarray:
        """Pictures (f, height, width, 3) uint8, no side above 256, of latents (f, c, h, w) in the UNet's scale."""
        if len(latents) > LONGEST_DECODED:
            return self.linear.frames(latents)
        try:
            return np.stack([self._picture(latent[None]) for latent in latents])
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            return self.linear.frames(latents)

    def _picture(self, latent: torch.Tensor) -> np.ndarray:
        tiny = self.autoencoder
        scaled = latent / tiny.config["scaling_factor"]
        picture = tiny.decode(scaled.to(tiny.device, tiny.dtype), return_dict=False)[0].float() / 2 + 0.5
        smaller = min(1.0, LARGEST_SIDE / max(picture.shape[-2:]))
        if smaller < 1:
            picture = functional.interpolate(picture, scale_factor=smaller, mode="area")
        values = torch.nan_to_num(picture[0]).clamp(0, 1) * 255
        return values.round().byte().permute(1, 2, 0).cpu().numpy()


def _columns(maps: torch.Tensor) -> np.ndarray:
    """Maps (1, c, h, w) as rows of c values and a one, (h·w, c + 1) float64; non-finite values become 0."""
    values = torch.nan_to_num(maps[0].double()).flatten(1).T.cpu().numpy()
    return np.concatenate([values, np.ones((len(values), 1))], axis=1)

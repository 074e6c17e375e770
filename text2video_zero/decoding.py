"""From latents to frames, one frame at a time, with an eye on numbers that are not finite."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from text2video_zero.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from diffusers import AutoencoderKL


def decoded_frames(vae: AutoencoderKL, latents: torch.Tensor) -> Iterator[np.ndarray]:
    """Decode latents (f, c, h, w) into frames, each (height, width, 3) uint8 RGB.

    Half precision overflows in the VAE of some models on some cards; such a frame is decoded again in
    float32. A frame for which the device's memory is too small is decoded on the CPU, slower but the same.
    Raises UserError, naming the frame, when that does not help: no black frame is ever returned.
    """
    for number, latent in enumerate(latents):
        try:
            picture = _decoded(vae, latent)
        except torch.OutOfMemoryError:
            picture = None  # the failed attempt's memory is free again only after this block
        if picture is None:
            picture = _decoded_on_cpu(vae, latent)
        if not picture.isfinite().all():
            with _moved(vae, dtype=torch.float32):
                picture = _decoded(vae, latent)
        if not picture.isfinite().all():
            raise UserError(
                f"Frame {number} came out with numbers that are not finite: "
                "use another seed or a lower guidance scale, or run in full precision (--device cpu)."
            )
        yield ((picture / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def _decoded(vae: AutoencoderKL, latent: torch.Tensor) -> torch.Tensor:
    scaled = latent[None] / vae.config.scaling_factor
    return vae.decode(scaled.to(vae.device, vae.dtype)).sample[0].float()


def _decoded_on_cpu(vae: AutoencoderKL, latent: torch.Tensor) -> torch.Tensor:
    with _moved(vae, device="cpu", dtype=torch.float32):
        return _decoded(vae, latent)


@contextmanager
def _moved(vae: AutoencoderKL, dtype: torch.dtype, device: torch.device | str | None = None) -> Iterator[None]:
    """While this is open, the VAE is of another type, and on another device if one is given."""
    before = vae.device, vae.dtype
    vae.to(device=device or vae.device, dtype=dtype)
    try:
        yield
    finally:
        vae.to(device=before[0], dtype=before[1])

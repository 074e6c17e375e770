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
    float32. Raises UserError, naming the frame, when that does not help: no black frame is ever returned.
    """
    for number, latent in enumerate(latents):
        picture = _decoded(vae, latent)
        if not picture.isfinite().all():
            with _in_float32(vae):
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


@contextmanager
def _in_float32(vae: AutoencoderKL) -> Iterator[None]:
    dtype = vae.dtype
    vae.to(torch.float32)
    try:
        yield
    finally:
        vae.to(dtype)

"""Noise put into latents, and the loss of whoever predicts it: what all denoisers of the family share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from diffusers import DDIMScheduler

if TYPE_CHECKING:
    from torch import Tensor

    from toyland.training.config import UnetShape

__all__ = ["Noised", "build_scheduler", "draw_timesteps", "noise_loss", "noised"]

# Forms are decided at high and middle noise: a part of the steps is drawn from there alone.
_FORMING = (300, 950)
_FORMING_SHARE = 0.5


def build_scheduler() -> DDIMScheduler:
    """The noise schedule of Stable Diffusion 1.5."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )


@dataclass(frozen=True)
class Noised:
    """Latents on their way to noise.

    latents, noise: (n, c, h, w). timesteps: int64 (n,). snr: signal over noise, (n,).
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    snr: Tensor


def draw_timesteps(count: int, generator: torch.Generator) -> Tensor:
    """Timesteps int64 (count,), 0..999, more of them where forms are decided."""
    anywhere = torch.randint(1000, (count,), generator=generator)
    forming = torch.randint(*_FORMING, (count,), generator=generator)
    return torch.where(torch.rand(count, generator=generator) < _FORMING_SHARE, forming, anywhere)


def noised(clean: Tensor, alphas: Tensor, generator: torch.Generator, device: str) -> Noised:
    """Clean latents (n, c, h, w) at random timesteps; alphas: ᾱ of all timesteps, (1000,)."""
    noise = torch.randn(clean.shape, generator=generator)
    timesteps = draw_timesteps(len(clean), generator)
    kept = alphas[timesteps].view(-1, 1, 1, 1)
    noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
    snr = (kept / (1 - kept)).view(-1)
    return Noised(noisy.to(device), noise.to(device), timesteps.to(device), snr.to(device))


def noise_loss(predicted: Tensor, wanted: Noised, masks: Tensor, shape: UnetShape) -> Tensor:
    """Squared error of the noise, weighted by min-SNR and towards the subject.

    predicted: (n, c, h, w); masks: (n, 1, h, w), see `Latents`.
    """
    weight = 1 + shape.mask_weight * masks
    weight = weight / weight.mean((1, 2, 3), keepdim=True)
    error = ((predicted.float() - wanted.noise) ** 2 * weight).mean((1, 2, 3))
    return (error * (shape.min_snr_gamma / wanted.snr).clamp(max=1)).mean()

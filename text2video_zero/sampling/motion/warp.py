"""The warp W_k of the paper, which moves latents as the camera moves, and the way up to T (section 3.3.1)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from text2video_zero.sampling.motion.camera import sample_positions

if TYPE_CHECKING:
    from text2video_zero.requests.camera import CameraPose

LANCZOS_RADIUS = 4


def warp(latents: torch.Tensor, pose: CameraPose, resampling: str = "smooth") -> torch.Tensor:
    """W_k of the paper: look at latents (c, h, w) from another pose; what lies outside is mirrored.

    resampling: "nearest" moves by whole cells (the paper's code). "smooth" interpolates with a Lanczos kernel
    whose weights have unit *energy* and not unit sum: latents at T' are mostly noise, and the usual weights
    would halve its standard deviation, which the UNet then paints as blur. "signal" has the usual weights, for
    latents without noise. For whole cells all agree.
    """
    height, width = latents.shape[-2:]
    read_x, read_y = sample_positions(pose, height, width)
    if resampling == "nearest":
        return _gathered(latents, _nearest(read_y), _nearest(read_x))
    base_x, base_y = read_x.floor(), read_y.floor()
    weights_x, weights_y = (
        _lanczos_weights(read - base, keep_sum=resampling == "signal")
        for read, base in ((read_x, base_x), (read_y, base_y))
    )
    warped = torch.zeros_like(latents, dtype=torch.float32)
    for row, weight_y in enumerate(weights_y):
        for column, weight_x in enumerate(weights_x):
            tap_y = base_y.long() + row - LANCZOS_RADIUS + 1
            tap_x = base_x.long() + column - LANCZOS_RADIUS + 1
            warped += (weight_y * weight_x).to(latents.device) * _gathered(latents, tap_y, tap_x)
    return warped.to(latents.dtype)


def _nearest(position: torch.Tensor) -> torch.Tensor:
    # Halves go down, as they do on the authors' 512-pixel grid: its samples lie 1/16 cell before the centres.
    return (position - 0.5).ceil().long()


def _gathered(latents: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    height, width = latents.shape[-2:]
    index = _mirrored(y, height) * width + _mirrored(x, width)
    return latents.flatten(-2)[:, index.to(latents.device)]


def _mirrored(index: torch.Tensor, count: int) -> torch.Tensor:
    index = index % (2 * count)
    return torch.minimum(index, 2 * count - 1 - index)


def _lanczos_weights(fraction: torch.Tensor, *, keep_sum: bool) -> torch.Tensor:
    """Weights (2·radius, h, w) of the cells around a position, of unit sum or of unit energy; fraction in [0, 1)."""
    taps = torch.arange(1 - LANCZOS_RADIUS, LANCZOS_RADIUS + 1, dtype=torch.float32)
    distance = fraction - taps[:, None, None]
    weights = torch.sinc(distance) * torch.sinc(distance / LANCZOS_RADIUS)
    # sinc leaves 1e-8 at whole numbers; a whole-cell movement shall copy bit for bit.
    weights = torch.where(fraction == 0, (taps == 0)[:, None, None].float(), weights)
    return weights / (weights.sum(0) if keep_sum else weights.square().sum(0).sqrt())


def forward_noise(latents: torch.Tensor, noise: torch.Tensor, alpha_from: float, alpha_to: float) -> torch.Tensor:
    """DDPM forward from one timestep to a later one in one go (paper, equation 8).

    latents, noise: same shape.  alpha_from, alpha_to: ᾱ of the two timesteps, 0 < alpha_to <= alpha_from.
    """
    kept = alpha_to / alpha_from
    return math.sqrt(kept) * latents + math.sqrt(1 - kept) * noise

"""Background smoothing (paper, section 3.3.3): steady what is behind the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from text2video_zero.sampling.motion.warp import warp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from text2video_zero.requests.camera import CameraPose

# The authors dilate their masks by 5x5 on a grid of 64x64 cells.
DILATION_RADIUS_PER_SIDE = 2 / 64


def smoothed_latents(
    latents: torch.Tensor,
    masks: torch.Tensor,
    poses: Sequence[CameraPose],
    strength: float,
    resampling: str = "smooth",
) -> torch.Tensor:
    """x̄^k = M^k ⊙ x^k + (1 - M^k) ⊙ (α·W_k(x^1) + (1 - α)·x^k) at timestep T.

    latents: (f, c, h, w).  masks: (f, h, w) in 0..1, 1 = foreground; they are dilated.  poses: f camera poses, the
    first one the identity.  strength: α, 0..1; 0 changes nothing.
    """
    return around_foreground(latents, dilated(masks), poses, strength, resampling)


def around_foreground(
    latents: torch.Tensor,
    masks: torch.Tensor,
    poses: Sequence[CameraPose],
    strength: float,
    resampling: str = "smooth",
) -> torch.Tensor:
    """`smoothed_latents` with masks as they are, for whoever knows where the foreground ends."""
    smoothed = []
    for latent, around, pose in zip(latents, background(masks, poses), poses, strict=True):
        share = strength * around
        # lerp is exact at both ends: share 0 and share 1 copy bit for bit.
        smoothed.append(torch.lerp(latent, warp(latents[0], pose, resampling), share.expand_as(latent)))
    return torch.stack(smoothed)


def background(masks: torch.Tensor, poses: Sequence[CameraPose]) -> torch.Tensor:
    """What is no foreground in any way, (f, h, w) in 0..1; masks, poses: as in `smoothed_latents`.

    As in the authors' code a cell counts as foreground in frame k also where the first frame's foreground
    would be carried to, lest a ghost of it appears in the background.
    """
    carried = torch.cat([warp(masks[:1], pose, "nearest") for pose in poses])
    return (1 - masks) * (1 - carried)


def dilated(masks: torch.Tensor) -> torch.Tensor:
    """Masks (f, h, w) grown by 5x5 cells on a grid of 64 and in proportion on others, at least 3x3."""
    radius = max(1, round(DILATION_RADIUS_PER_SIDE * min(masks.shape[-2:])))
    return functional.max_pool2d(masks[:, None], 2 * radius + 1, stride=1, padding=radius)[:, 0]

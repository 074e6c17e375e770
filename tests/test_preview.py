"""Previews: the linear map from latents to colours, fitted to any VAE."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch.nn import functional

from text2video_zero.preview import LatentRGB


class LinearAutoencoder(AutoencoderKL):
    """A VAE whose latents are known: each cell's mean colour, mixed into four channels."""

    mixing = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0], [0.3, 0.3, 1.0], [2.0, 0.0, 1.0]])  # (4, 3)
    offset = torch.tensor([0.1, -0.2, 0.3, 0.0])

    def encode(self, pixels):
        cells = functional.avg_pool2d(pixels.float(), 8)
        means = torch.einsum("lc,bchw->blhw", self.mixing, cells) + self.offset[:, None, None]
        moments = torch.cat([means, torch.zeros_like(means)], dim=1)
        return SimpleNamespace(latent_dist=DiagonalGaussianDistribution(moments))

    def latents_of(self, colors):
        """Scaled latents of colours (f, h, w, 3) in 0..1."""
        mixed = (colors * 2 - 1) @ self.mixing.T + self.offset
        return mixed.permute(0, 3, 1, 2) * self.config.scaling_factor


@pytest.fixture
def linear():
    return LinearAutoencoder(
        block_out_channels=(4, 4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        scaling_factor=0.4,
    )


def test_colours_come_back_from_latents_that_are_linear_in_them(linear):
    colors = torch.rand(2, 5, 7, 3, generator=torch.Generator().manual_seed(0))
    frames = LatentRGB.fit(linear).frames(linear.latents_of(colors))
    assert frames.shape == (2, 5, 7, 3)
    assert frames.dtype == np.uint8
    assert np.abs(frames / 255 - colors.numpy()).max() < 0.01


def test_colours_out_of_range_are_clipped(linear):
    colors = torch.tensor([[[[-1.0, 0.5, 3.0]]]])
    frame = LatentRGB.fit(linear).frames(linear.latents_of(colors))[0, 0, 0]
    assert frame[0] == 0
    assert frame[2] == 255


def test_cells_that_are_not_finite_are_black(linear):
    latents = linear.latents_of(torch.full((1, 2, 2, 3), 0.5))
    latents[0, 0, 0, 0] = float("nan")
    frames = LatentRGB.fit(linear).frames(latents)
    assert not frames[0, 0, 0].any()
    assert np.abs(frames[0, 1, 1].astype(int) - 128).max() <= 2


def test_half_precision_and_any_size(pipeline):
    latent_rgb = LatentRGB.fit(pipeline.components.vae)
    latents = torch.randn(3, 4, 6, 10)
    frames = latent_rgb.frames(latents)
    assert frames.shape == (3, 6, 10, 3)
    assert np.abs(latent_rgb.frames(latents.half()).astype(int) - frames).max() <= 2


def test_the_fit_is_the_same_every_time_and_leaves_the_random_state_alone(pipeline):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again = (LatentRGB.fit(pipeline.components.vae) for _ in range(2))
    assert np.array_equal(first.matrix, again.matrix)
    assert np.array_equal(first.bias, again.bias)
    assert torch.equal(torch.rand(3), expected)
    assert first.matrix.shape == (4, 3)
    assert first.bias.shape == (3,)
    assert np.isfinite(first.matrix).all()


def test_a_vae_that_overflows_still_has_previews(linear):
    linear.mixing = linear.mixing * torch.tensor([[1.0], [1.0], [float("nan")], [1.0]])
    latent_rgb = LatentRGB.fit(linear)
    assert np.isfinite(latent_rgb.matrix).all()

"""More latent channels: what the narrow networks knew, the wide ones know."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import ControlNetModel

from tests.tiny_toyland import TINY
from toyland.parts.autoencoder import build_autoencoder, even_latents, widened
from toyland.parts.editor import build_editor
from toyland.parts.unet import build_unet
from toyland.parts.unet import widened as widened_network


def autoencoder(channels):
    torch.manual_seed(channels)
    return build_autoencoder(replace(TINY.autoencoder, latent_channels=channels), 64).eval()


def unet(channels):
    torch.manual_seed(channels)
    return build_unet(TINY.unet, 16, channels, 8).eval()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 8, 8, 8, generator=generator), 500, torch.randn(2, 48, 16, generator=generator)


@torch.no_grad()
def test_a_wide_autoencoder_keeps_the_narrow_ones_latents_and_pictures():
    narrow = autoencoder(4)
    wide = widened(narrow, autoencoder(8))
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    before, after = narrow.encode(pictures).latent_dist, wide.encode(pictures).latent_dist
    assert torch.equal(after.mean[:, :4], before.mean)
    assert torch.equal(after.logvar[:, :4], before.logvar)
    assert torch.equal(wide.decode(after.mean).sample, narrow.decode(before.mean).sample)
    assert after.mean[:, 4:].std() > 0  # there is something to learn from


@torch.no_grad()
def test_even_latents_change_no_picture():
    model = autoencoder(8)
    torch.nn.init.normal_(model.post_quant_conv.weight)
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    before = model.encode(pictures).latent_dist
    picture = model.decode(before.mean).sample
    even_latents(model, before.mean, 4)
    after = model.encode(pictures).latent_dist
    spread = after.mean.std((0, 2, 3))
    assert torch.equal(after.mean[:, :4], before.mean[:, :4])
    assert torch.allclose(spread[4:], spread[:4].mean().expand(4), rtol=1e-4)
    assert torch.allclose(
        after.std / after.mean.std((0, 2, 3), keepdim=True),
        before.std / before.mean.std((0, 2, 3), keepdim=True),
        rtol=1e-3,
    )
    assert torch.allclose(model.decode(after.mean).sample, picture, atol=1e-5)


@torch.no_grad()
def test_a_wide_unet_predicts_what_the_narrow_one_did(inputs):
    latents, timestep, words = inputs
    narrow = unet(4)
    wide = widened_network(narrow, unet(8))
    found = wide(latents, timestep, words).sample
    assert torch.allclose(found[:, :4], narrow(latents[:, :4], timestep, words).sample, atol=1e-5)
    assert not found[:, 4:].any()


@torch.no_grad()
def test_a_wide_controlnet_hints_as_the_narrow_one_did(inputs):
    latents, timestep, words = inputs
    torch.manual_seed(0)
    narrow, wide = (
        ControlNetModel.from_unet(unet(n), conditioning_embedding_out_channels=(8, 8, 8, 8)) for n in (4, 8)
    )
    torch.nn.init.normal_(narrow.controlnet_mid_block.weight)
    widened_network(narrow, wide)
    maps = torch.rand(2, 3, 64, 64)
    _, ours = wide(latents, timestep, words, maps, return_dict=False)
    _, theirs = narrow(latents[:, :4], timestep, words, maps, return_dict=False)
    assert torch.allclose(ours, theirs, atol=1e-5)


@torch.no_grad()
def test_a_wide_editor_sees_noise_and_picture_where_they_are(inputs):
    latents, timestep, words = inputs
    narrow, wide = build_editor(unet(4)), build_editor(unet(8))
    torch.nn.init.normal_(narrow.conv_in.weight)
    widened_network(narrow, wide, maps=2)
    picture = torch.randn(2, 8, 8, 8)
    found = wide(torch.cat([latents, picture], 1), timestep, words).sample
    wanted = narrow(torch.cat([latents[:, :4], picture[:, :4]], 1), timestep, words).sample
    assert torch.allclose(found[:, :4], wanted, atol=1e-5)

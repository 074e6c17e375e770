"""Previews: the linear map from latents to colours, fitted to any VAE, and the tiny autoencoder."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch.nn import functional

from model_manager import ModelManager
from tests.fake_hub import FakeHub
from text2video_zero.events import Preview
from text2video_zero.generate import generate
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.models.hub import Hub
from text2video_zero.requests import TextToVideoRequest
from text2video_zero.sampling.preview import LatentRGB, TinyDecoder


class LinearAutoencoder(AutoencoderKL):
    """A VAE whose latents are known: each cell's mean colour, mixed into four channels."""

    mixing = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0], [0.3, 0.3, 1.0], [2.0, 0.0, 1.0]])  # (4, 3)
    offset = torch.tensor([0.1, -0.2, 0.3, 0.0])

    def _encode(self, pixels):
        cells = functional.avg_pool2d(pixels.float(), 8)
        means = torch.einsum("lc,bchw->blhw", self.mixing, cells) + self.offset[:, None, None]
        return torch.cat([means, torch.zeros_like(means)], dim=1)

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


@pytest.fixture(scope="module")
def tiny():
    """TAESD's architecture at tiny size and random weights."""
    torch.manual_seed(6)
    blocks = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    return AutoencoderTiny(
        **blocks, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4, scaling_factor=0.5
    ).eval()


@pytest.fixture(scope="module")
def at_hand(tiny, tmp_path_factory):
    """A Hub's cache into which somebody downloaded TAESD."""
    cache = tmp_path_factory.mktemp("cache")
    tiny.save_pretrained(cache / "served")
    with FakeHub({"madebyollin/taesd": cache / "served"}).running() as hub:
        Hub(hub.endpoint, cache / "hub").folder("madebyollin/taesd")
    return cache / "hub"


class TestTinyDecoder:
    @torch.inference_mode()
    def test_shows_what_the_autoencoder_decodes(self, tiny, pipeline):
        latents = torch.randn(3, 4, 8, 10, generator=torch.Generator().manual_seed(1))
        frames = TinyDecoder(tiny, LatentRGB.fit(pipeline.components.vae)).frames(latents)
        decoded = tiny.decode(latents / 0.5).sample / 2 + 0.5
        assert frames.shape == (3, 64, 80, 3)
        assert frames.dtype == np.uint8
        assert np.abs(frames / 255 - decoded.clamp(0, 1).permute(0, 2, 3, 1).numpy()).max() < 0.01

    @torch.inference_mode()
    def test_large_frames_are_made_smaller_and_long_clips_are_shown_by_the_linear_map(self, tiny, pipeline):
        linear = LatentRGB.fit(pipeline.components.vae)
        decoder = TinyDecoder(tiny, linear)
        assert decoder.frames(torch.randn(1, 4, 64, 48)).shape == (1, 256, 192, 3)
        long = torch.randn(25, 4, 8, 8)
        assert np.array_equal(decoder.frames(long), linear.frames(long))

    @torch.inference_mode()
    @pytest.mark.parametrize(
        "shortage", [torch.OutOfMemoryError("injected"), RuntimeError("MPS backend out of memory")], ids=["cuda", "mps"]
    )
    def test_a_preview_never_ends_a_run(self, tiny, pipeline, shortage):
        linear = LatentRGB.fit(pipeline.components.vae)
        latents = torch.randn(2, 4, 8, 8)
        latents[0, 0, 0, 0] = float("nan")
        assert TinyDecoder(tiny, linear).frames(latents).shape == (2, 64, 64, 3)

        def fail(*_):
            raise shortage

        handle = tiny.decoder.register_forward_pre_hook(fail)
        shown = TinyDecoder(tiny, linear).frames(latents)
        handle.remove()
        assert np.array_equal(shown, linear.frames(latents))

    def test_is_not_used_where_finished_frames_are_checked(self, at_hand, tiny_checkpoint):
        manager = ModelManager("cpu", hub=Hub("http://127.0.0.1:9", at_hand), check_safety=True)
        components, _ = manager._reader.base(Checkpoint(str(tiny_checkpoint)), {})
        assert isinstance(manager._preview_decoder(Checkpoint(str(tiny_checkpoint)), components), LatentRGB)

    def test_is_used_where_it_is_at_hand_and_never_downloaded(self, at_hand, tiny_checkpoint, tmp_path):
        for cache, kind in ((at_hand, TinyDecoder), (tmp_path, LatentRGB)):
            manager = ModelManager("cpu", hub=Hub("http://127.0.0.1:9", cache))
            with manager.lend(Checkpoint(str(tiny_checkpoint))) as pipeline:
                assert isinstance(pipeline.preview_decoder, kind)
                request = TextToVideoRequest(prompt="a fox", frames=2, steps=4, seed=3)
                previews = [event for event in generate(request, pipeline) if isinstance(event, Preview)]
            assert previews[-1].frames.shape[1:3] == ((64, 64) if kind is TinyDecoder else (8, 8))

    def test_a_broken_one_is_left_out(self, at_hand, tiny_checkpoint, tmp_path):
        cache = tmp_path / "hub"
        shutil.copytree(at_hand, cache)
        (weights,) = cache.rglob("*.safetensors")
        weights.write_bytes(weights.read_bytes()[:-10])
        with ModelManager("cpu", hub=Hub("http://127.0.0.1:9", cache)).lend(Checkpoint(str(tiny_checkpoint))) as lent:
            assert isinstance(lent.preview_decoder, LatentRGB)

    def test_another_familys_latents_are_not_shown_by_it(self, at_hand, tiny_xl):
        with ModelManager("cpu", hub=Hub("http://127.0.0.1:9", at_hand)).lend(Checkpoint(str(tiny_xl))) as lent:
            assert isinstance(lent.preview_decoder, LatentRGB)

"""From latents to frames: colours, and numbers that are not finite."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from text2video_zero.errors import UserError
from text2video_zero.sampling import decoding
from text2video_zero.sampling.decoding import decoded_frames

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture
def as_on_a_card(monkeypatch):
    """Half precision is computed in it, as where a device is quick with it."""
    monkeypatch.setattr(decoding, "not_imitated", lambda _: nullcontext())


@pytest.fixture
def vae(pipeline):
    """A copy to be broken, of the pipeline's own."""
    original = pipeline.components.vae
    copy = AutoencoderKL.from_config(original.config).eval()
    copy.load_state_dict(original.state_dict())
    return copy


@pytest.fixture
def latents():
    return torch.randn(3, 4, 8, 12, generator=torch.Generator().manual_seed(0))


def overflowing(vae):
    """The same VAE in half precision, with a last layer whose sums half precision cannot hold.

    What comes into it has zero mean and unit variance before the SiLU, and so a positive mean behind it, whatever
    weights come before: summed up, red goes far above the range, and green as far below it.
    """
    vae.decoder.conv_norm_out.reset_parameters()
    vae.decoder.conv_out.weight.data.zero_()
    vae.decoder.conv_out.weight.data[0] = 6e4
    vae.decoder.conv_out.weight.data[1] = -6e4
    return vae.half()


def test_frames_are_the_vaes_pictures_in_bytes(vae, latents):
    frames = list(decoded_frames(vae, latents))
    pictures = vae.decode(latents / vae.config.scaling_factor).sample
    for frame, picture in zip(frames, pictures, strict=True):
        assert frame.shape == (64, 96, 3)
        assert frame.dtype == np.uint8
        expected = ((picture.permute(1, 2, 0) / 2 + 0.5).clamp(0, 1) * 255).numpy()
        assert np.abs(frame - expected).max() <= 0.51


def test_frames_come_one_by_one(vae, latents):
    calls = []
    hook = vae.decoder.register_forward_hook(lambda *_: calls.append(1))
    frames = decoded_frames(vae, latents)
    next(frames)
    assert len(calls) == 1
    hook.remove()


@pytest.mark.usefixtures("as_on_a_card")
def test_an_overflow_is_decoded_again_in_float32(vae, latents):
    vae = overflowing(vae)
    weights = {name: weight.clone() for name, weight in vae.state_dict().items()}
    assert not vae.decode(latents[:1].half()).sample.isfinite().all()
    frames = list(decoded_frames(vae, latents))
    assert len(frames) == 3
    assert all(frame.std() > 0 for frame in frames)
    assert vae.dtype == torch.float16
    assert all(torch.equal(weight, weights[name]) for name, weight in vae.state_dict().items())


def types_decoded_in(vae, latents):
    calls = []
    vae.decoder.register_forward_hook(lambda *_: calls.append(vae.dtype))
    list(decoded_frames(vae, latents))
    return calls


@pytest.mark.usefixtures("as_on_a_card")
def test_what_half_precision_can_do_is_done_once(vae, latents):
    assert types_decoded_in(vae.half(), latents) == [torch.float16] * 3


def test_half_precision_that_waits_on_the_cpu_is_decoded_in_float32_which_that_is_quick_with(vae, latents):
    assert types_decoded_in(vae.half(), latents) == [torch.float32] * 3
    assert vae.dtype == torch.float16


@pytest.mark.usefixtures("as_on_a_card")
@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_frame_beyond_help_is_named_and_nothing_is_left_behind(vae, latents, number, value, dtype):
    vae = vae.to(dtype)
    latents[number, 1, 3, 3] = value
    frames = decoded_frames(vae, latents)
    for _ in range(number):
        next(frames)
    with pytest.raises(UserError, match=rf"^Frame {number} .*another seed"):
        next(frames)
    assert vae.dtype == dtype


@pytest.mark.usefixtures("as_on_a_card")
def test_the_type_is_restored_when_float32_does_not_fit(vae, latents):
    vae = overflowing(vae)

    def run_out_of_memory(_module, inputs):
        if inputs[0].dtype == torch.float32:
            raise torch.OutOfMemoryError("injected")

    vae.decoder.register_forward_pre_hook(run_out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        next(decoded_frames(vae, latents))
    assert vae.dtype == torch.float16

"""Stable Diffusion XL: the same tasks by the same code, against diffusers' own pipelines."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline

from model_manager import ModelManager
from tests.runs import sampled
from text2video_zero.checkpoints import Checkpoint
from text2video_zero.requests import Size, TextToVideoRequest
from text2video_zero.sampling import frame_noise


@pytest.fixture
def xl(manager, tiny_xl):
    with manager.lend(Checkpoint(str(tiny_xl))) as lent:
        yield lent


def order(**changes):
    defaults = {"prompt": "a red fox", "frames": 1, "steps": 8, "seed": 7, "size": Size(96, 64), "motion": False}
    return TextToVideoRequest(**(defaults | changes))


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
@pytest.mark.parametrize("negative_prompt", ["", "a blue robot"])
def test_one_frame_equals_diffusers_pipeline(xl, guidance_scale, negative_prompt):
    request = order(guidance_scale=guidance_scale, negative_prompt=negative_prompt)
    parts = dict(xl.components.components)
    parts["scheduler"] = DDIMScheduler.from_config(parts["scheduler"].config)
    other = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    other.set_progress_bar_config(disable=True)
    theirs = other(
        prompt=request.prompt,
        negative_prompt=negative_prompt or None,
        height=64,
        width=96,
        num_inference_steps=8,
        guidance_scale=guidance_scale,
        latents=frame_noise(7, 0, (4, 8, 12), "cpu")[None],
        output_type="latent",
    ).images
    assert xl.family == "sdxl"
    assert (sampled(request, xl) - theirs).abs().max() < 1e-4


def test_the_result_does_not_depend_on_the_chunk_size_and_no_trace_is_left(xl):
    request = {"frames": 4, "motion": True, "steps": 10}
    whole = sampled(order(**request), xl)
    assert torch.allclose(sampled(order(**request, chunk_size=1), xl), whole, atol=1e-4)
    assert not xl.components.unet._forward_pre_hooks


def test_the_vae_stays_in_full_precision_where_the_rest_is_in_half(tiny_xl, monkeypatch):
    manager = ModelManager("cpu")
    monkeypatch.setattr(manager, "_reader", dataclasses.replace(manager._reader, dtype=torch.float16))
    with manager.lend(Checkpoint(str(tiny_xl))) as lent:
        assert lent.components.vae.dtype == torch.float32
        assert lent.components.unet.dtype == lent.components.text_encoder_2.dtype == torch.float16

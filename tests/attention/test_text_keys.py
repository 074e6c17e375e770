"""Keys and values of the text, once per run: the same to the last bit, computed once, gone afterwards."""

from __future__ import annotations

from contextlib import nullcontext

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from tests.runs import order, sampled
from tests.tiny_models import tiny_unet
from text2video_zero.attention import patches
from text2video_zero.attention.branches import Branches
from text2video_zero.attention.text_keys import TextMemoryProcessor, text_memory
from text2video_zero.models.checkpoints import INSTRUCT_PIX2PIX, Checkpoint
from text2video_zero.requests import EdgeRequest, InstructPix2PixRequest, Size


@pytest.fixture(scope="module")
def unet():
    return tiny_unet().eval()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.gif"
    imageio.mimwrite(path, np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8))
    return str(path)


def without_memory(monkeypatch, request, pipeline):
    with monkeypatch.context() as patched:
        patched.setattr(patches, "text_memory", lambda *_, **__: nullcontext())
        return sampled(request, pipeline)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"guidance_scale": 1.0, "chunk_size": 2},
        {"chunk_size": 1, "cross_frame_attention": False},
        {"smooth_background": True, "chunk_size": 2},
        {"token_merging": 0.5, "reference_frames": "first + previous"},
        {"motion": False, "sampler": "LCM", "steps": 4},
    ],
    ids=str,
)
def test_clips_are_the_same_to_the_last_bit(pipeline, monkeypatch, changes):
    request = order(**changes)
    assert torch.equal(sampled(request, pipeline), without_memory(monkeypatch, request, pipeline))


def test_with_a_controlnet(manager, tiny_checkpoint, tiny_controlnets, clip, monkeypatch):
    request = EdgeRequest(
        prompt="a fox", clip=clip, frames=3, steps=5, seed=1, chunk_size=2, control_start=0.3, ready_made="yes"
    )
    with manager.lend(Checkpoint(str(tiny_checkpoint), controlnet=str(tiny_controlnets["edge"]))) as lent:
        assert torch.equal(sampled(request, lent), without_memory(monkeypatch, request, lent))


def test_with_three_branches_and_ancestral_steps(manager, tiny_editor, clip, monkeypatch):
    request = InstructPix2PixRequest(prompt="make it snow", clip=clip, frames=3, steps=5, seed=1, chunk_size=2)
    with manager.lend(Checkpoint(str(tiny_editor), kind=INSTRUCT_PIX2PIX)) as lent:
        assert torch.equal(sampled(request, lent), without_memory(monkeypatch, request, lent))


def test_with_stable_diffusion_xl(manager, tiny_xl, monkeypatch):
    request = order(size=Size(96, 64), steps=5, frames=3, chunk_size=1)
    with manager.lend(Checkpoint(str(tiny_xl))) as lent:
        assert torch.equal(sampled(request, lent), without_memory(monkeypatch, request, lent))


def test_each_layer_computes_them_once_in_a_run(pipeline):
    computed = []
    layers = [layer for name, layer in pipeline.components.unet.named_modules() if name.endswith("attn2.to_k")]
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: computed.append(len(inputs[0]))) for layer in layers]
    sampled(order(chunk_size=2), pipeline)
    for hook in hooks:
        hook.remove()
    assert computed == [2] * len(layers)  # the two branches of one frame


@torch.inference_mode()
def test_a_model_may_go_on_in_another_type(unet):
    latents, text = torch.randn(6, 4, 8, 8), torch.randn(2, 6, 16).repeat_interleave(3, 0)
    with text_memory(unet, branches=Branches(2)):
        unet(latents[::3], 500, encoder_hidden_states=text[::3])
        unet.double()
        try:
            wide = unet(latents.double(), 500, encoder_hidden_states=text.double()).sample
        finally:
            unet.float()
    assert torch.allclose(wide.float(), unet(latents, 500, encoder_hidden_states=text).sample, atol=1e-5)


@pytest.mark.parametrize("error", [RuntimeError, GeneratorExit])
def test_leaving_restores_what_was_there(unet, error):
    before = dict(unet.attn_processors)
    with text_memory(unet, branches=Branches(2)):
        patched = {name for name, found in unet.attn_processors.items() if isinstance(found, TextMemoryProcessor)}
    assert patched == {name for name in before if name.endswith("attn2.processor")}
    with pytest.raises(error), text_memory(unet, branches=Branches(2)):
        raise error
    assert all(unet.attn_processors[name] is found for name, found in before.items())

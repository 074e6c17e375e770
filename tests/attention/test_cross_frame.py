"""Cross-frame attention as a patch: what it computes, and that it leaves no trace."""

from __future__ import annotations

import pytest
import torch
from diffusers import ControlNetModel
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

from tests.tiny_models import tiny_unet
from text2video_zero.attention.branches import Branches
from text2video_zero.attention.cross_frame import CrossFrameProcessor, FrameMemory, cross_frame_attention, spans
from text2video_zero.attention.processors import is_self_attention
from text2video_zero.attention.text_keys import TextMemoryProcessor
from text2video_zero.requests.video import FIRST, FIRST_AND_PREVIOUS, REFERENCE_FRAMES


@pytest.fixture(scope="module")
def unet():
    return tiny_unet().eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(11, 4, 8, 8, generator=generator), torch.randn(2, 6, 16, generator=generator)


def predicted(unet, latents, text):
    branches = len(text)
    return unet(
        latents.repeat(branches, 1, 1, 1), 500, encoder_hidden_states=text.repeat_interleave(len(latents), 0)
    ).sample


def looked_at(frame, frames, references):
    """Which frames a frame looks at."""
    if frame == 0 or references == FIRST:
        return [0]
    if references == FIRST_AND_PREVIOUS:
        return [0, frame - 1]
    before = (frame - 1) // 4 * 4
    around = [before] if frame % 4 == 0 else [before, before + 4]
    return [0, *(key for key in around if 0 < key < frames)]


def by_definition(unet, latents, text, references):
    """The same in the plainest way: all frames at once, keys and values copied for every frame."""
    frames, branches = len(latents), len(text)

    class Plain(AttnProcessor):
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):  # noqa: ARG002
            query = attn.to_q(hidden_states).unflatten(0, (branches, frames))
            keys = attn.to_k(hidden_states).unflatten(0, (branches, frames))
            values = attn.to_v(hidden_states).unflatten(0, (branches, frames))
            attended = torch.zeros_like(query)
            for branch in range(branches):
                for frame in range(frames):
                    seen = looked_at(frame, frames, references)
                    key = torch.cat([keys[branch, k] for k in seen]).unflatten(-1, (attn.heads, -1)).transpose(0, 1)
                    value = torch.cat([values[branch, k] for k in seen]).unflatten(-1, (attn.heads, -1)).transpose(0, 1)
                    asked = query[branch, frame].unflatten(-1, (attn.heads, -1)).transpose(0, 1)
                    weights = (asked @ key.transpose(-1, -2) * attn.scale).softmax(-1)
                    attended[branch, frame] = (weights @ value).transpose(0, 1).flatten(1)
            return attn.to_out[0](attended.flatten(0, 1))

    original = dict(unet.attn_processors)
    unet.set_attn_processor(
        {name: Plain() if name.endswith("attn1.processor") else found for name, found in original.items()}
    )
    try:
        return predicted(unet, latents, text)
    finally:
        unet.set_attn_processor(original)


@torch.inference_mode()
@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize("references", REFERENCE_FRAMES)
@pytest.mark.parametrize("chunk_size", [1, 2, 8])
@pytest.mark.parametrize("frames", [5, 11])
def test_equals_the_definition(unet, batch, branches, references, chunk_size, frames):
    latents, text = batch[0][:frames], batch[1][:branches]
    ours = torch.zeros(branches, *latents.shape)
    with cross_frame_attention(unet, branches=Branches(branches), references=references) as memory:
        for span in spans(frames, [0], memory.key_frame_every):
            memory.begin(span)
            for begin in range(span.start, span.stop, chunk_size):
                some = slice(begin, min(begin + chunk_size, span.stop))
                with memory.open(span, begin):
                    ours[:, some] = predicted(unet, latents[some], text).unflatten(0, (branches, -1))
    assert torch.allclose(ours.flatten(0, 1), by_definition(unet, latents, text, references), atol=1e-5)


def test_frames_go_in_an_order_in_which_each_finds_what_it_looks_at():
    def order(*how):
        return [(span.start, span.stop, span.role) for span in spans(*how)]

    assert order(1, [0], None) == [(0, 1, "anchor")]
    assert order(8, [0], None) == [(0, 8, "anchor")]
    assert order(8, [0, 3, 99], None) == [(0, 3, "anchor"), (3, 8, "anchor")]
    assert order(4, [0], 4) == [(0, 4, "anchor")]
    by_keys = [(0, 1, "anchor"), (4, 5, "key"), (1, 4, "others"), (8, 9, "key"), (5, 8, "others")]
    assert order(9, [0], 4) == by_keys
    assert order(11, [0], 4) == [*by_keys, (9, 11, "others")]


@torch.inference_mode()
def test_the_anchor_frame_sees_itself_alone(unet, batch):
    latents, text = batch
    alone = predicted(unet, latents[:1], text)
    for references in REFERENCE_FRAMES:
        for count in (1, 3):
            with (
                cross_frame_attention(unet, branches=Branches(len(text)), references=references) as memory,
                memory.anchor_pass(),
            ):
                anchor = predicted(unet, latents[:count], text)[::count]
            assert torch.allclose(anchor, alone, atol=1e-6)


@torch.inference_mode()
def test_norms_of_queries_and_keys_have_their_say():
    """As some UNets have them; against diffusers' own processor, for which the anchor is its only frame."""
    torch.manual_seed(0)
    attn = Attention(query_dim=16, heads=2, dim_head=8, qk_norm="layer_norm")
    for norm in (attn.norm_q, attn.norm_k):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    frames = torch.randn(1, 12, 16)
    memory = FrameMemory(branches=Branches(1))
    processor = CrossFrameProcessor(memory, "layer")
    with memory.anchor_pass():
        anchor = processor(attn, frames)
    assert torch.allclose(anchor, AttnProcessor2_0()(attn, frames), atol=1e-6)
    assert torch.allclose(processor(attn, frames), anchor, atol=1e-6)  # a later frame that looks the same
    text = torch.randn(1, 5, 16)
    remembering = TextMemoryProcessor(Branches(1))
    assert torch.allclose(remembering(attn, frames, text), AttnProcessor2_0()(attn, frames, text), atol=1e-6)


@torch.inference_mode()
def test_leaving_restores_the_model_bit_for_bit(unet, batch):
    before, processors = predicted(unet, *batch), dict(unet.attn_processors)
    with cross_frame_attention(unet, branches=Branches(2)) as memory, memory.anchor_pass():
        predicted(unet, batch[0][:1], batch[1])
    assert all(unet.attn_processors[name] is found for name, found in processors.items())
    assert torch.equal(predicted(unet, *batch), before)
    assert not memory.anchors
    assert not memory.previous


def test_an_exception_restores_every_model(unet):
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8))
    before = [dict(model.attn_processors) for model in (unet, controlnet)]
    with pytest.raises(RuntimeError, match="injected"), cross_frame_attention(unet, controlnet, branches=Branches(2)):
        raise RuntimeError("injected")
    after = [dict(model.attn_processors) for model in (unet, controlnet)]
    assert before == after


def test_patches_self_attention_alone(unet):
    with cross_frame_attention(unet, branches=Branches(2)):
        patched = {n for n, found in unet.attn_processors.items() if isinstance(found, CrossFrameProcessor)}
    assert patched == {name for name in unet.attn_processors if name.endswith("attn1.processor")}
    assert not any(is_self_attention(unet, name) for name in unet.attn_processors if ".attn2." in name)


def test_models_share_a_memory_without_mixing(unet):
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8))
    with cross_frame_attention(unet, controlnet, branches=Branches(2)):
        layers = [
            found.layer
            for model in (unet, controlnet)
            for found in model.attn_processors.values()
            if isinstance(found, CrossFrameProcessor)
        ]
    assert len(layers) == len(set(layers))

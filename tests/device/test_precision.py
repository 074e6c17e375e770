"""Numbers that stay finite: what half precision cannot hold is computed again, bit for bit as float32 has it."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention

from tests.runs import sampled
from text2video_zero.device.precision import attention_in_float32, in_float32, precisions
from text2video_zero.errors import UserError
from text2video_zero.generate import generate
from text2video_zero.requests import Size, TextToVideoRequest
from text2video_zero.requests.video import REFERENCE_FRAMES


def order(**changes):
    defaults = {"prompt": "a red fox", "frames": 5, "steps": 4, "seed": 7, "size": Size(64, 64), "chunk_size": 3}
    return TextToVideoRequest(**(defaults | changes))


def with_unet(pipeline, dtype):
    """The pipeline with a copy of its UNet that was rounded to half precision and is now of a type."""
    components = copy.copy(pipeline.components)
    components.unet = copy.deepcopy(pipeline.components.unet).half().to(dtype=dtype)
    return dataclasses.replace(pipeline, components=components)


@pytest.fixture
def half(pipeline):
    return with_unet(pipeline, torch.float16)


@pytest.fixture
def full(pipeline):
    return with_unet(pipeline, torch.float32)


class Overflow:
    """A module whose output is not finite while a tensor of half precision comes out of it, at all calls or at one."""

    def __init__(self, module, *, at_call=None, value=torch.inf):
        self.at_call, self.value, self.calls, self.dtypes = at_call, value, 0, []
        self.handle = module.register_forward_hook(self.spoil)

    def spoil(self, _module, _inputs, output):
        self.dtypes.append(output.dtype)
        if output.dtype != torch.float16:
            return output
        self.calls += 1
        return output * self.value if self.at_call in {None, self.calls} else output

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.handle.remove()


class TestContexts:
    @pytest.mark.parametrize("context", [in_float32, attention_in_float32])
    @pytest.mark.parametrize("error", [None, RuntimeError])
    def test_leaving_restores_every_weight_bit_for_bit(self, half, context, error):
        unet = half.components.unet
        before = {name: weight.clone() for name, weight in unet.state_dict().items()}
        with torch.inference_mode():
            try:
                with context(unet):
                    assert any(weight.dtype == torch.float32 for weight in unet.parameters())
                    if error:
                        raise error
            except RuntimeError:
                assert error
        for name, weight in unet.state_dict().items():
            assert weight.dtype == torch.float16
            assert torch.equal(weight, before[name])
            assert not weight.is_inference()

    def test_attention_alone_is_widened(self, half):
        unet = half.components.unet
        with attention_in_float32(unet):
            layers = {
                id(weight) for layer in unet.modules() if isinstance(layer, Attention) for weight in layer.parameters()
            }
            assert all((weight.dtype == torch.float32) == (id(weight) in layers) for weight in unet.parameters())

    def test_networks_in_float32_have_nothing_wider(self, half, full):
        assert len(precisions(full.components.unet)) == 1
        assert len(precisions(half.components.unet)) == 3
        assert len(precisions(full.components.unet, half.components.unet)) == 3


class TestRedo:
    @pytest.mark.parametrize("reference_frames", REFERENCE_FRAMES)
    def test_what_overflows_everywhere_is_what_float32_makes(self, half, full, reference_frames):
        request = order(reference_frames=reference_frames)
        with Overflow(half.components.unet.conv_out):
            redone = sampled(request, half)
        assert torch.allclose(redone, sampled(request, full), atol=1e-2)  # the prompt came in half precision
        assert not torch.equal(redone, sampled(request, half))
        assert half.components.unet.dtype == torch.float16

    def test_one_chunk_that_overflows_is_redone_alone(self, half):
        unet = half.components.unet
        with Overflow(unet.conv_out, at_call=3, value=torch.nan) as overflow:
            redone = sampled(order(), half)
        narrow, wide = (sum(dtype == kind for dtype in overflow.dtypes) for kind in (torch.float16, torch.float32))
        with Overflow(unet.conv_out, at_call=-1) as counted:
            usual = sampled(order(), half)
        assert (narrow, wide) == (len(counted.dtypes) + 1, 0)  # attention in float32 sufficed
        assert (redone - usual).abs().amax() < 0.03 * usual.std()

    def test_what_failed_once_is_not_tried_again_in_the_run(self, half):
        unet = half.components.unet
        with Overflow(unet.conv_out) as overflow:
            sampled(order(smooth_background=True), half)
        with Overflow(unet.conv_out, at_call=-1) as counted:
            sampled(order(smooth_background=True), half)
        assert len(overflow.dtypes) == len(counted.dtypes) + 2  # the first chunk in all three precisions

    def test_attention_that_overflows_is_helped_by_attention_in_float32(self, half, full):
        unet = half.components.unet
        layer = unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
        with Overflow(layer, value=torch.nan) as overflow, Overflow(unet.conv_out, at_call=-1) as whole:
            redone = sampled(order(), half)
        assert torch.float32 in overflow.dtypes
        assert torch.float32 not in whole.dtypes
        assert (redone - sampled(order(), full)).abs().mean() < 0.05

    def test_smoothing_hears_a_redone_chunk_once(self, half):
        usual = sampled(order(smooth_background=True), half)
        for call in (4, 5, 6):
            with Overflow(half.components.unet.conv_out, at_call=call):
                assert torch.allclose(sampled(order(smooth_background=True), half), usual, atol=0.1)

    def test_float32_that_is_not_finite_either_names_the_frame(self, half):
        def spoil(_module, _inputs, output):
            output.sample[-1] = torch.nan

        hook = half.components.unet.register_forward_hook(spoil)
        with pytest.raises(UserError, match="Frame 2 came out of step 1 with numbers that are not finite"):
            sampled(order(motion=False), half)  # the last of the first chunk
        hook.remove()
        assert half.components.unet.dtype == torch.float16
        assert sampled(order(), half).isfinite().all()

    def test_no_black_frame_is_written(self, half):
        usual = list(generate(order(), half))[-1].video.frames
        with Overflow(half.components.unet.conv_out):
            frames = list(generate(order(), half))[-1].video.frames
        assert np.abs(np.asarray(frames, int) - np.asarray(usual)).mean() < 3

"""Running short of memory, by injection: the run goes on with the same result, or says what to do."""

from __future__ import annotations

import pytest
import torch

from tests.runs import sampled
from text2video_zero.decoding import decoded_frames
from text2video_zero.errors import UserError
from text2video_zero.requests import Size, TextToVideoRequest


def order(**changes):
    defaults = {"prompt": "a red fox", "frames": 6, "steps": 4, "seed": 7, "size": Size(64, 64), "chunk_size": 5}
    return TextToVideoRequest(**(defaults | changes))


class Shortage:
    """Memory runs out in a module whenever more samples than fit go through it, or at its n-th call."""

    def __init__(self, module, *, fits=10**9, at_call=None):
        self.fits, self.at_call = fits, at_call
        self.calls = 0
        self.batches = []
        self.handle = module.register_forward_pre_hook(self.check)

    def check(self, _module, inputs):
        self.calls += 1
        self.batches.append(len(inputs[0]))
        if len(inputs[0]) > self.fits or self.calls == self.at_call:
            raise torch.OutOfMemoryError("injected")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.handle.remove()


class TestOutOfMemory:
    @pytest.mark.parametrize("reference_frames", ["first", "first + previous"])
    @pytest.mark.parametrize("fits", [2, 4, 6])
    def test_goes_on_in_smaller_chunks_with_the_same_result(self, pipeline, fits, reference_frames):
        request = order(reference_frames=reference_frames)
        whole = sampled(request, pipeline)
        last_layer = pipeline.components.unet.up_blocks[-1].resnets[-1]
        with Shortage(last_layer, fits=fits) as shortage:
            halved = sampled(request, pipeline)
        assert torch.allclose(halved, whole, atol=1e-4)
        assert max(shortage.batches) > fits
        assert max(shortage.batches[-3:]) <= fits

    def test_a_shortage_at_any_call_does_not_show(self, pipeline):
        whole = sampled(order(guidance_scale=1.0), pipeline)
        middle = pipeline.components.unet.mid_block.resnets[0]
        with Shortage(middle) as counted:
            sampled(order(guidance_scale=1.0), pipeline)
        chunks = [number for number, batch in enumerate(counted.batches, start=1) if batch > 1]
        assert len(chunks) >= 3
        for call in chunks:
            with Shortage(middle, at_call=call):
                assert torch.allclose(sampled(order(guidance_scale=1.0), pipeline), whole, atol=1e-4)

    def test_one_frame_that_does_not_fit_is_said_in_one_sentence(self, pipeline):
        with (
            Shortage(pipeline.components.unet, fits=0),
            pytest.raises(UserError, match="not hold even one frame at a time: choose a smaller size"),
        ):
            sampled(order(), pipeline)
        assert sampled(order(), pipeline).isfinite().all()

    def test_a_frame_that_cannot_be_decoded_there_is_decoded_on_the_cpu(self, pipeline):
        vae = pipeline.components.vae
        latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = [frame.tolist() for frame in decoded_frames(vae, latents)]
            with Shortage(vae.decoder, at_call=2):
                assert [frame.tolist() for frame in decoded_frames(vae, latents)] == expected
        assert vae.dtype == torch.float32


def test_numbers_that_are_not_finite_are_told_at_once(pipeline):
    def overflow(_module, inputs, output):
        output.sample[-1] = torch.nan if len(inputs[0]) == 3 else 0.0

    handle = pipeline.components.unet.register_forward_hook(overflow)
    try:
        with pytest.raises(UserError, match="Frame 3 came out of step 1 with numbers that are not finite"):
            sampled(order(motion=False, chunk_size=3, guidance_scale=1.0), pipeline)
    finally:
        handle.remove()

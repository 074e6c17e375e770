"""Stable Diffusion XL: the same tasks by the same code, against diffusers' own pipelines."""

from __future__ import annotations

import dataclasses

import imageio
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLControlNetPipeline, StableDiffusionXLPipeline

from model_manager import ModelManager
from tests.runs import sampled
from text2video_zero.__main__ import main
from text2video_zero.errors import UserError
from text2video_zero.media.settings import read_settings
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.requests import EdgeRequest, Size, TextToVideoRequest
from text2video_zero.sampling.noise import frame_noise


@pytest.fixture
def xl(manager, tiny_xl):
    with manager.lend(Checkpoint(str(tiny_xl))) as lent:
        yield lent


def order(**changes):
    defaults = {"prompt": "a red fox", "frames": 1, "steps": 8, "seed": 7, "size": Size(96, 64), "motion": False}
    return TextToVideoRequest(**(defaults | changes))


def like_ours(xl, pipeline_class, **parts):
    """diffusers' own pipeline of the same components."""
    scheduler = DDIMScheduler.from_config(xl.components.scheduler.config)
    other = pipeline_class(**xl.components.components | parts | {"scheduler": scheduler}, add_watermarker=False)
    other.set_progress_bar_config(disable=True)
    return other


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
@pytest.mark.parametrize("negative_prompt", ["", "a blue robot"])
def test_one_frame_equals_diffusers_pipeline(xl, guidance_scale, negative_prompt):
    request = order(guidance_scale=guidance_scale, negative_prompt=negative_prompt)
    theirs = like_ours(xl, StableDiffusionXLPipeline)(
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


def test_guidance_that_ends_before_the_run_tells_each_branch_its_own_summary(xl):
    request = {"frames": 2, "motion": True, "steps": 10, "negative_prompt": "a blue robot"}
    none = sampled(order(**request, guidance_scale=1.0), xl)
    assert torch.equal(sampled(order(**request, guidance_end=0.0), xl), none)
    half = sampled(order(**request, guidance_end=0.5), xl)
    assert not torch.allclose(half, none, atol=1e-3)
    assert torch.allclose(sampled(order(**request, guidance_end=0.5, chunk_size=1), xl), half, atol=1e-4)


def test_the_result_does_not_depend_on_the_chunk_size_and_no_trace_is_left(xl):
    request = {"frames": 4, "motion": True, "steps": 10}
    whole = sampled(order(**request), xl)
    assert torch.allclose(sampled(order(**request, chunk_size=1), xl), whole, atol=1e-4)
    assert not xl.components.unet._forward_pre_hooks


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Three frames of white lines on black, a ready-made edge map."""
    path = tmp_path_factory.mktemp("clips") / "edges.gif"
    frames = np.zeros((3, 64, 96, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[10 + 5 * number, 10:80] = frame[10:50, 20 + 9 * number] = 255
    imageio.mimwrite(path, frames, duration=125)
    return path


class TestControlNet:
    @pytest.fixture
    def controlled(self, manager, tiny_xl, tiny_xl_controlnet):
        with manager.lend(Checkpoint(str(tiny_xl), controlnet=str(tiny_xl_controlnet))) as lent:
            yield lent

    def order(self, clip, **changes):
        defaults = {"prompt": "a red fox", "clip": str(clip), "size": Size(96, 64), "frames": 3, "steps": 8, "seed": 7}
        return EdgeRequest(**(defaults | {"ready_made": "yes", "quality_prompt": ""} | changes))

    @pytest.mark.parametrize("guidance_scale", [1.0, 9.0])
    @pytest.mark.parametrize(("strength", "start", "end"), [(1.0, 0.0, 1.0), (0.6, 0.2, 0.7)])
    def test_one_frame_equals_diffusers_pipeline(self, controlled, clip, guidance_scale, strength, start, end):
        shape = {"control_strength": strength, "control_start": start, "control_end": end}
        negative = {"negative_prompt": "a blue robot", "guidance_scale": guidance_scale}
        ours = sampled(self.order(clip, frames=1, **negative, **shape), controlled)
        first_frame = torch.from_numpy(imageio.mimread(clip)[0][..., :3]).permute(2, 0, 1)[None] / 255
        other = like_ours(controlled, StableDiffusionXLControlNetPipeline, controlnet=controlled.controlnet)
        theirs = other(
            prompt="a red fox",
            image=first_frame,
            num_inference_steps=8,
            latents=frame_noise(7, 0, (4, 8, 12), "cpu")[None],
            controlnet_conditioning_scale=strength,
            control_guidance_start=start,
            control_guidance_end=end,
            output_type="latent",
            **negative,
        ).images
        assert (ours - theirs).abs().max() < 1e-4

    def test_does_not_depend_on_the_chunk_size_and_leaves_no_trace(self, controlled, clip):
        whole = sampled(self.order(clip), controlled)
        assert torch.allclose(sampled(self.order(clip, chunk_size=1), controlled), whole, atol=1e-4)
        assert not torch.allclose(sampled(self.order(clip, control_strength=0.2), controlled), whole, atol=1e-2)
        for model in (controlled.components.unet, controlled.controlnet):
            assert not model._forward_pre_hooks

    def test_runs_from_the_command_line(self, tiny_xl, tiny_xl_controlnet, clip, tmp_path):
        output = tmp_path / "out.mp4"
        arguments = f"edge --clip {clip} --model {tiny_xl} --controlnet {tiny_xl_controlnet} --ready-made yes"
        arguments += f" --frames 2 --steps 4 --device cpu --output {output}"
        assert main([*arguments.split(), "--prompt", "a red fox"]) == 0
        assert read_settings(output)["model"] == "tiny-xl"

    def test_a_controlnet_of_stable_diffusion_1_is_refused(self, manager, tiny_xl, tiny_controlnets):
        mixed = Checkpoint(str(tiny_xl), controlnet=str(tiny_controlnets["edge"]))
        with pytest.raises(UserError, match=r"\(Stable Diffusion 1.x\) does not fit .* \(Stable Diffusion XL\)"):
            manager.lend(mixed).__enter__()


def test_the_vae_stays_in_full_precision_where_the_rest_is_in_half(tiny_xl, monkeypatch):
    manager = ModelManager("cpu")
    monkeypatch.setattr(manager, "_reader", dataclasses.replace(manager._reader, dtype=torch.float16))
    with manager.lend(Checkpoint(str(tiny_xl))) as lent:
        assert lent.components.vae.dtype == torch.float32
        assert lent.components.unet.dtype == lent.components.text_encoder_2.dtype == torch.float16

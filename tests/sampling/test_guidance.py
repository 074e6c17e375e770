"""One frame by our loop and our noise predictors, against the pipelines of diffusers."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.schedulers import scheduling_euler_ancestral_discrete

from text2video_zero.attention.branches import Branches
from text2video_zero.device.offload import Placement
from text2video_zero.generators import result_of
from text2video_zero.prompts.encoding import encoded_prompts
from text2video_zero.sampling.denoising import denoise
from text2video_zero.sampling.guidance import (
    Control,
    InstructGuidance,
    TextGuidance,
    negative_branch,
)
from text2video_zero.sampling.noise import frame_noise
from text2video_zero.sampling.solvers import SAMPLERS, schedule_of

PROMPT, NEGATIVE = "a red panda dancing in the snow", "the moon"
STEPS = 10
SHAPE = (4, 8, 8)


@pytest.fixture
def noise():
    return frame_noise(5, 0, SHAPE, "cpu")[None]


@pytest.fixture
def picture():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))


def in_bytes(pictures):
    """Pictures (f, 3, h, w) in 0..1 as frames (f, h, w, 3) uint8."""
    return (pictures * 255).round().byte().permute(0, 2, 3, 1).numpy()


def parts(pipeline, **changes):
    """The components of the tiny pipeline, for another pipeline of diffusers."""
    components = pipeline.components
    kept = {name: getattr(components, name) for name in ("vae", "text_encoder", "tokenizer", "unet")}
    scheduler = DDIMScheduler.from_config(components.scheduler.config)
    defaults = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return kept | {"scheduler": scheduler} | defaults | changes


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.inference_mode()
def denoised(latents, schedule, guidance, step_noise=None):
    placement = Placement((guidance.unet,), (), torch.device("cpu"), 8)
    return result_of(denoise(latents, schedule, range(STEPS), guidance, None, placement, step_noise))


def assert_same(ours, theirs):
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().amax() < 1e-4


@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_text_equals_diffusers(pipeline, noise, scale):
    embeddings = encoded_prompts(pipeline.components, PROMPT, negative_branch(NEGATIVE, scale))
    assert len(embeddings) == (1 if scale == 1 else 2)
    schedule = schedule_of("DDIM", STEPS, pipeline.components.scheduler)
    guidance = TextGuidance(pipeline.components.unet, embeddings, scale, Branches(len(embeddings)))
    ours = denoised(noise, schedule, guidance)
    theirs = quiet(StableDiffusionPipeline(**parts(pipeline)))(
        PROMPT,
        negative_prompt=NEGATIVE,
        latents=noise,
        num_inference_steps=STEPS,
        guidance_scale=scale,
        output_type="latent",
    ).images
    assert_same(ours, theirs)


def test_guidance_that_ends_before_the_run_equals_diffusers(pipeline, noise):
    """Their documentation switches it off in a callback, too."""
    embeddings = encoded_prompts(pipeline.components, PROMPT, NEGATIVE)
    schedule = schedule_of("DDIM", STEPS, pipeline.components.scheduler)
    batches = []
    unet = pipeline.components.unet
    hook = unet.register_forward_pre_hook(lambda _module, inputs: batches.append(len(inputs[0])))
    guidance = TextGuidance(unet, embeddings, 7.5, Branches(2, schedule.timesteps_within(0, 0.4)))
    ours = denoised(noise, schedule, guidance)
    hook.remove()
    assert batches == [2] * 4 + [1] * 6

    def without_guidance(theirs, step, _timestep, tensors):
        if step == 3:
            theirs._guidance_scale = 1.0
            tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[-1]
        return tensors

    theirs = quiet(StableDiffusionPipeline(**parts(pipeline)))(
        PROMPT,
        negative_prompt=NEGATIVE,
        latents=noise,
        num_inference_steps=STEPS,
        guidance_scale=7.5,
        callback_on_step_end=without_guidance,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
        output_type="latent",
    ).images
    assert_same(ours, theirs)


@pytest.fixture(scope="module")
def controlnet():
    """A ControlNet that says something: freshly made ones add exactly nothing."""
    torch.manual_seed(3)
    model = ControlNetModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
        conditioning_embedding_out_channels=(4, 4, 8, 8),
    ).eval()
    for layer in (*model.controlnet_down_blocks, model.controlnet_mid_block, model.controlnet_cond_embedding.conv_out):
        torch.nn.init.normal_(layer.weight, std=0.1)
    return model


@pytest.mark.parametrize(("strength", "start", "end"), [(1.0, 0.0, 1.0), (0.6, 0.2, 0.7)])
def test_control_equals_diffusers(pipeline, controlnet, noise, picture, strength, start, end):
    schedule = schedule_of("DDIM", STEPS, pipeline.components.scheduler)
    guidance = TextGuidance(
        pipeline.components.unet,
        encoded_prompts(pipeline.components, PROMPT, NEGATIVE),
        9.0,
        Branches(2),
        Control(controlnet, in_bytes(picture), strength, schedule.timesteps_within(start, end)),
    )
    theirs = quiet(StableDiffusionControlNetPipeline(**parts(pipeline, controlnet=controlnet)))(
        PROMPT,
        image=torch.from_numpy(in_bytes(picture)).permute(0, 3, 1, 2) / 255,
        negative_prompt=NEGATIVE,
        latents=noise,
        num_inference_steps=STEPS,
        guidance_scale=9.0,
        controlnet_conditioning_scale=strength,
        control_guidance_start=start,
        control_guidance_end=end,
        output_type="latent",
    ).images
    assert_same(denoised(noise, schedule, guidance), theirs)


def test_a_share_of_a_run_that_begins_late_is_one_of_the_steps_that_it_takes(pipeline):
    """As diffusers' pipelines that begin with a picture count it."""
    schedule = schedule_of("DDIM", STEPS, pipeline.components.scheduler)
    assert schedule.timesteps_within(0, 1, 6) == frozenset(schedule.timesteps[6:])
    assert schedule.timesteps_within(0, 0.5, 6) == frozenset(schedule.timesteps[6:8])
    assert schedule.timesteps_within(0.5, 1, 6) == frozenset(schedule.timesteps[8:])


def test_control_of_no_strength_changes_nothing(pipeline, controlnet, noise, picture):
    schedule = schedule_of("DDIM", STEPS, pipeline.components.scheduler)
    embeddings = encoded_prompts(pipeline.components, PROMPT, NEGATIVE)
    unet = pipeline.components.unet
    plain = denoised(noise, schedule, TextGuidance(unet, embeddings, 9.0, Branches(2)))
    everywhere = frozenset(schedule.timesteps)
    maps, branches = in_bytes(picture), Branches(2)
    controlled = {
        (strength, active): denoised(
            noise,
            schedule,
            TextGuidance(unet, embeddings, 9.0, branches, Control(controlnet, maps, strength, active)),
        )
        for strength, active in ((0.0, everywhere), (1.0, frozenset()), (1.0, everywhere))
    }
    assert torch.equal(controlled[1.0, frozenset()], plain)
    assert torch.allclose(controlled[0.0, everywhere], plain, atol=1e-5)
    assert not torch.allclose(controlled[1.0, everywhere], plain, atol=1e-2)


@pytest.fixture(scope="module")
def instructed_unet():
    torch.manual_seed(4)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    ).eval()


@pytest.mark.parametrize("sampler", ["DDIM", "Euler ancestral"])
def test_instructions_equal_diffusers(pipeline, instructed_unet, noise, picture, sampler, monkeypatch):
    components = pipeline.components
    schedule = schedule_of(sampler, STEPS, components.scheduler)
    with torch.inference_mode():
        image_latents = components.vae.encode(picture * 2 - 1).latent_dist.mode()
    guidance = InstructGuidance(
        unet=instructed_unet,
        embeddings=encoded_prompts(components, PROMPT, NEGATIVE),
        text_scale=7.5,
        image_scale=1.5,
        branches=Branches(3),
        image_latents=image_latents,
    )
    added = [frame_noise(5, 0, SHAPE, "cpu", draw=index + 1) for index in range(STEPS)]
    ours = denoised(noise, schedule, guidance, step_noise=lambda index: added[index])
    scheduler, latents = DDIMScheduler.from_config(components.scheduler.config), noise
    if sampler == "Euler ancestral":
        scheduler = EulerAncestralDiscreteScheduler.from_config(scheduler.config, timestep_spacing="linspace")
        draws = iter(added)
        monkeypatch.setattr(scheduling_euler_ancestral_discrete, "randn_tensor", lambda *_, **__: next(draws)[None])
        # diffusers scales the start by σ alone, the paper's scale asks for sqrt(σ² + 1).
        scale = SAMPLERS[sampler].latent_scale(schedule.alphas[0])
        latents = noise * scale / (scale**2 - 1) ** 0.5
    other = StableDiffusionInstructPix2PixPipeline(**parts(pipeline, unet=instructed_unet, scheduler=scheduler))
    theirs = quiet(other)(
        PROMPT,
        image=picture,
        negative_prompt=NEGATIVE,
        latents=latents,
        num_inference_steps=STEPS,
        guidance_scale=7.5,
        image_guidance_scale=1.5,
        output_type="latent",
    ).images
    assert_same(ours, theirs)


def test_neutral_scales_leave_the_instructed_prediction_as_it_is(pipeline, instructed_unet, noise):
    embeddings = encoded_prompts(pipeline.components, PROMPT, NEGATIVE)
    image = frame_noise(1, 0, SHAPE, "cpu")[None]
    with torch.inference_mode():
        plain = instructed_unet(torch.cat([noise, image], 1), 500, encoder_hidden_states=embeddings[1:]).sample
        guided, unguided = (
            InstructGuidance(instructed_unet, embeddings, scale, scale, branches, image)(noise, 500, slice(0, 1))
            for scale, branches in ((1.0, Branches(3)), (7.5, Branches(3, frozenset())))
        )
    assert torch.allclose(guided, plain, atol=1e-5)
    assert torch.equal(unguided, plain)

"""The few-step student: latent consistency distillation (Luo et al. 2023, "Latent Consistency Models").

The student is to say at every noise level where the teacher's trajectory ends. It learns that from its own
answer one step of the teacher further on: one DDIM step, with guidance, so that guidance need not be paid for
afterwards. Everything is as LCM-LoRA has it (Luo et al. 2023, "LCM-LoRA"): the student is a LoRA on the
teacher, its own weights without gradients make the target, and the boundary condition is the one that the
engine's and diffusers' LCM samplers expect.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file

from text2video_zero.sampling.schedule import LCM_STRIDE
from text2video_zero.sampling.solvers import DATA_DEVIATION, TIMESTEP_SCALE
from toyland.parts.clip import token_table
from toyland.parts.unet import attend_plainly, text_states, tokenized
from toyland.training.loop import train
from toyland.training.noising import build_scheduler

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from torch import Tensor

    from toyland.training.config import Recipe
    from toyland.training.dataset import Pictures
    from toyland.training.latents import Latents

__all__ = [
    "STEPS", "STUDENT", "boundary", "carry_lora", "consistency_loss", "ddim_step", "resampled", "train_student",
]

STUDENT = "student"
STEPS = 4
"""For which the student is made, without guidance."""
GUIDANCE = 4.0
_SEED = 60
_SKIP = 2 * LCM_STRIDE  # from one timestep to the next of the teacher's 25 steps
_HUBER = 0.001
_BATCH = 64
# Timesteps 99 to 479: forms stay where they are, what is small is drawn anew.
_RESAMPLED_POINTS = (5, 25)
_LAYERS = (
    "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2",
    "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj",
)


def carry_lora(unet: UNet2DConditionModel, rank: int, start: Path | None = None) -> UNet2DConditionModel:
    """The UNet with a LoRA, which alone is trained, on attention and convolutions.

    start: folder of an earlier one of that rank to go on from; else it begins by changing nothing.
    """
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(_LAYERS)))
    if start is not None:
        weights = load_file(start / LORA_WEIGHT_NAME_SAFE)
        own = {name.removeprefix("unet."): value.float() for name, value in weights.items()}
        set_peft_model_state_dict(unet, own)
    return unet


def boundary(timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """c_skip and c_out, each (n, 1, 1, 1), at timesteps (n,): at 0 the latents are the answer."""
    scaled = TIMESTEP_SCALE * timesteps.float().view(-1, 1, 1, 1)
    distance = (scaled.square() + DATA_DEVIATION**2).sqrt()
    return (DATA_DEVIATION / distance) ** 2, scaled / distance


def _clean(latents: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    return (latents - (1 - alpha).sqrt() * noise) / alpha.sqrt()


def ddim_step(latents: Tensor, noise: Tensor, alpha: Tensor, alpha_next: Tensor) -> Tensor:
    """Latents (n, c, h, w) at ᾱ = alpha carried along their noise to ᾱ = alpha_next, each (n, 1, 1, 1)."""
    return alpha_next.sqrt() * _clean(latents, noise, alpha) + (1 - alpha_next).sqrt() * noise


def consistency_loss(found: Tensor, wanted: Tensor, masks: Tensor, mask_weight: float) -> Tensor:
    """Pseudo-Huber distance of clean latents (n, c, h, w), heavier on the subject; masks: (n, 1, h, w)."""
    weight = 1 + mask_weight * masks
    distance = ((found.float() - wanted.float()).square() + _HUBER**2).sqrt() - _HUBER
    return (distance * weight / weight.mean()).mean()


def _answer(unet: UNet2DConditionModel, latents: Tensor, timesteps: Tensor, alpha: Tensor, states: Tensor) -> Tensor:
    """The clean latents that a consistency model sees in noisy ones."""
    skip, out = boundary(timesteps)
    noise = unet(latents, timesteps, states).sample.float()
    return skip * latents + out * _clean(latents, noise, alpha)


@torch.no_grad()
def resampled(
    recipe: Recipe, student: StableDiffusionPipeline, pictures: Pictures, latents: Tensor, device: str,
) -> Tensor:
    """The pictures' latents (n, c, h, w), scaled, noised in part and cleaned by the student in one step.

    They show what the pictures show, with the faults of what a model samples.

    student: the base whose UNet carries the student's LoRA.
    """
    unet, text_encoder = student.unet.to(device), student.text_encoder.to(device)
    attend_plainly(unet, device)
    tokens = token_table(pictures, student.tokenizer, 1, recipe.seed)[:, 0].long()
    alphas = build_scheduler().alphas_cumprod.to(device)
    generator = torch.Generator().manual_seed(recipe.seed + _SEED)
    made = []
    for some, words in zip(latents.split(_BATCH), tokens.split(_BATCH), strict=True):
        clean = some.float()
        noise = torch.randn(clean.shape, generator=generator).to(device)
        points = torch.randint(*_RESAMPLED_POINTS, (len(clean),), generator=generator)
        now = (LCM_STRIDE * points - 1).to(device)
        alpha = alphas[now].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean.to(device) + (1 - alpha).sqrt() * noise
        made.append(_answer(unet, noisy, now, alpha, text_states(text_encoder, words)).half().cpu())
    return torch.cat(made)


def train_student(
    recipe: Recipe, base: StableDiffusionPipeline, pictures: Pictures, latents: Latents,
    checkpoint: Path, device: str, start: Path | None = None,
) -> UNet2DConditionModel:
    """Train, resume or only load the student; the UNet that carries its LoRA, apart from the base's own.

    It learns from the subjects that face right alone, as the teacher at the end of its training did.
    start: folder of an earlier student to go on from.
    """
    plan = recipe.plans[STUDENT]
    torch.manual_seed(recipe.seed)
    teacher = base.unet.to(device).requires_grad_(False)
    student = carry_lora(deepcopy(teacher), recipe.student_rank, start)
    for unet in (teacher, student):
        attend_plainly(unet, device)
    text_encoder = base.text_encoder.to(device).requires_grad_(False)
    tokens = token_table(pictures, base.tokenizer, recipe.captions, recipe.seed)
    nothing = text_states(text_encoder, tokenized([""], base.tokenizer))
    alphas = build_scheduler().alphas_cumprod.to(device)
    shown = torch.from_numpy(pictures.closing_rows)

    def loss(generator: torch.Generator, _progress: float) -> Tensor:
        rows = shown[torch.randint(len(shown), (plan.batch,), generator=generator)]
        version = torch.randint(tokens.shape[1], (plan.batch,), generator=generator)
        clean = latents.values[rows].float().to(device)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        points = torch.randint(1, len(alphas) // LCM_STRIDE + 1, (plan.batch,), generator=generator)
        now = (LCM_STRIDE * points - 1).to(device)
        later = (now - _SKIP).clamp(min=0)
        alpha, alpha_later = (alphas[timesteps].view(-1, 1, 1, 1) for timesteps in (now, later))
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        states = text_states(text_encoder, tokens[rows, version].long())
        found = _answer(student, noisy, now, alpha, states)
        with torch.no_grad():
            both = torch.cat([nothing.expand_as(states), states])
            blind, seeing = teacher(noisy.repeat(2, 1, 1, 1), now.repeat(2), both).sample.float().chunk(2)
            guided = blind + GUIDANCE * (seeing - blind)
            wanted = _answer(student, ddim_step(noisy, guided, alpha, alpha_later), later, alpha_later, states)
        return consistency_loss(found, wanted, latents.masks[rows].float().to(device), recipe.unet.mask_weight)

    return train(student, loss, plan, checkpoint, seed=recipe.seed + _SEED)

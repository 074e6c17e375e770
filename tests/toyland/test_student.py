"""The few-step student: boundary and steps as the samplers have them, a LoRA that begins as its teacher."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from diffusers import LCMScheduler

from tests.tiny_toyland import TINY
from toyland.parts.student import boundary, carry_lora, consistency_loss, ddim_step
from toyland.parts.unet import build_unet
from toyland.training.export import export_lora


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_boundary_is_that_of_the_library_and_latents_without_noise_are_the_answer():
    library = LCMScheduler()
    skip, out = boundary(torch.tensor([0, 19, 999]))
    for number, timestep in enumerate((0, 19, 999)):
        theirs = library.get_scalings_for_boundary_condition_discrete(torch.tensor(timestep))
        assert (skip[number].item(), out[number].item()) == pytest.approx([value.item() for value in theirs])
    assert (skip[0].item(), out[0].item()) == (1, 0)


def test_a_ddim_step_goes_along_the_noise():
    clean, noise = normal(2, 8, 4, 4), normal(2, 8, 4, 4, seed=1)
    alpha, later, none = (torch.full((2, 1, 1, 1), value) for value in (0.2, 0.6, 1.0))
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    torch.testing.assert_close(ddim_step(noisy, noise, alpha, alpha), noisy)
    torch.testing.assert_close(ddim_step(noisy, noise, alpha, none), clean)
    torch.testing.assert_close(ddim_step(noisy, noise, alpha, later), later.sqrt() * clean + (1 - later).sqrt() * noise)


def test_the_loss_is_none_for_the_right_answer_and_heavier_on_the_subject():
    wanted, masks = normal(2, 8, 4, 4), torch.zeros(2, 1, 4, 4)
    masks[..., :2] = 1
    assert consistency_loss(wanted, wanted, masks, 4.0).item() == pytest.approx(0, abs=1e-6)
    on_subject, beside = wanted.clone(), wanted.clone()
    on_subject[..., :2] += 1
    beside[..., 2:] += 1
    loss = [consistency_loss(found, wanted, masks, 4.0).item() for found in (on_subject, beside)]
    assert loss[0] == pytest.approx(5 * loss[1], rel=1e-3)


def test_the_student_begins_as_its_teacher_and_only_its_lora_learns():
    torch.manual_seed(0)
    teacher = build_unet(TINY.unet, 16, 8, 8).eval()
    student = carry_lora(deepcopy(teacher), rank=2)
    latents, states = normal(2, 8, 8, 8), normal(2, 48, 16, seed=1)
    with torch.no_grad():
        assert torch.equal(student(latents, 500, states).sample, teacher(latents, 500, states).sample)
    learning = {name for name, weight in student.named_parameters() if weight.requires_grad}
    assert learning
    assert all("lora_" in name for name in learning)
    assert any("conv1" in name for name in learning)
    assert any("attn2.to_k" in name for name in learning)


def test_a_student_goes_on_from_the_one_that_was_exported(tmp_path):
    torch.manual_seed(0)
    teacher = build_unet(TINY.unet, 16, 8, 8).eval()
    earlier = carry_lora(deepcopy(teacher), rank=2)
    with torch.no_grad():
        for weight in filter(lambda weight: weight.requires_grad, earlier.parameters()):
            weight.copy_(normal(*weight.shape).half())
    export_lora(earlier, tmp_path)
    student = carry_lora(deepcopy(teacher), rank=2, start=tmp_path)
    latents, states = normal(2, 8, 8, 8), normal(2, 48, 16, seed=1)
    with torch.no_grad():
        drawn = [unet(latents, 500, states).sample for unet in (student, earlier, teacher)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert all("lora_" in name for name, weight in student.named_parameters() if weight.requires_grad)

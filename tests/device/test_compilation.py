"""Compiled blocks under the patches of a run, and what is said before."""

from __future__ import annotations

import shutil

import pytest
import torch
from diffusers import UNet2DConditionModel

from model_manager import ModelManager
from text2video_zero.__main__ import main
from text2video_zero.attention.branches import Branches
from text2video_zero.attention.cross_frame import cross_frame_attention
from text2video_zero.attention.text_keys import text_memory
from text2video_zero.attention.token_merging import token_merging
from text2video_zero.device.compilation import COMPILATION_COST, COMPILED_BLOCKS, COMPILERS, compile_blocks
from text2video_zero.errors import UserError
from text2video_zero.models.checkpoints import Checkpoint

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="needs a C++ compiler")


def smallest_unet():
    """One level, no more blocks than a UNet must have: each kind of them takes its time to compile."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    ).eval()


@torch.inference_mode()
def clip(unet, merging):
    """Three frames in chunks of two and one, under all the patches of a run."""
    generator = torch.Generator().manual_seed(0)
    latents, text = torch.randn(3, 4, 8, 8, generator=generator), torch.randn(2, 6, 16, generator=generator)
    outputs, branches = [], Branches(2)
    across = cross_frame_attention(unet, branches=branches)
    with across as memory, token_merging(merging, unet), text_memory(unet, branches=branches):
        for chunk in (latents[:2], latents[2:]):
            shown, prompts = chunk.repeat(2, 1, 1, 1), text.repeat_interleave(len(chunk), 0)
            with memory.anchor_pass() if len(chunk) == 2 else memory.chunk_pass():
                outputs.append(unet(shown, 500.0, encoder_hidden_states=prompts).sample)
    return torch.cat(outputs)


@needs_compiler
@pytest.mark.slow
def test_compiled_blocks_give_the_same_under_every_patch():
    unet = smallest_unet()
    expected = [clip(unet, merging) for merging in (0.0, 0.5)]
    before = set(unet.state_dict())
    compile_blocks(unet)
    assert set(unet.state_dict()) == before
    torch._dynamo.utils.counters.clear()
    for merging, theirs in zip((0.0, 0.5), expected, strict=True):
        assert torch.allclose(clip(unet, merging), theirs, atol=1e-5)
    frames = torch._dynamo.utils.counters["frames"]
    assert frames["ok"] == frames["total"] > 0
    compiled = frames["total"]
    clip(unet, 0.0)  # new patches, nothing new to compile
    assert frames["total"] == compiled


@needs_compiler
def test_the_manager_compiles_what_samples_if_it_is_told_to(tiny_checkpoint, tiny_controlnets):
    checkpoint = Checkpoint(str(tiny_checkpoint), controlnet=str(tiny_controlnets["edge"]))
    for compiled in (False, True):
        with ModelManager("cpu", compiled=compiled).lend(checkpoint) as lent:
            blocks = [
                block
                for network in (lent.components.unet, lent.controlnet)
                for block in network.modules()
                if isinstance(block, COMPILED_BLOCKS)
            ]
            assert {block._compiled_call_impl is not None for block in blocks} == {compiled}


def test_without_a_compiler_it_is_refused_in_one_sentence(monkeypatch, tiny_checkpoint, capsys):
    monkeypatch.setattr("text2video_zero.device.compilation.shutil.which", lambda _: None)
    with pytest.raises(UserError, match=r"Compiling needs a C\+\+ compiler"):
        ModelManager("cpu", compiled=True)
    argv = ["text-to-video", "--model", str(tiny_checkpoint), "--prompt", "a fox", "--device", "cpu"]
    assert main([*argv, "--compile"]) == 2
    assert "leave --compile out" in capsys.readouterr().err


@needs_compiler
def test_the_cost_is_said_before(monkeypatch, tiny_checkpoint, tmp_path, capsys):
    monkeypatch.setattr("model_manager.compile_blocks", lambda _: None)  # its time is the slow test's
    argv = f"text-to-video --model {tiny_checkpoint} --device cpu --frames 1 --steps 4 --output {tmp_path / 'a.gif'}"
    assert main([*argv.split(), "--prompt", "a fox", "--compile"]) == 0
    told = capsys.readouterr().err
    assert told.index(COMPILATION_COST) < told.index("step 1")

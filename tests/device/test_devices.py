"""What weights are made of on which device: numbers and their order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import model_manager
from model_manager import ModelManager
from tests.runs import sampled
from tests.sampling.test_denoising import order
from text2video_zero.__main__ import main
from text2video_zero.device.devices import chosen_type, memory_format
from text2video_zero.errors import UserError
from text2video_zero.generate import generate
from text2video_zero.models.checkpoints import Checkpoint

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


def test_numbers_and_order_suit_the_device():
    assert [chosen_type(None, device) for device in (CPU, CUDA, MPS)] == [torch.float32, torch.float16, torch.float32]
    assert chosen_type("bfloat16", CUDA) is torch.bfloat16
    assert [memory_format(device) for device in (CPU, CUDA)] == [torch.contiguous_format, torch.channels_last]
    with pytest.raises(UserError, match="'half' are not known: choose one of float16, bfloat16, float32"):
        chosen_type("half", CPU)


def test_channels_last_changes_nothing_but_the_order(pipeline, tiny_checkpoint, tiny_controlnets, monkeypatch):
    monkeypatch.setattr(model_manager, "memory_format", lambda _: torch.channels_last)
    request = order(frames=3, steps=5)
    controlled = Checkpoint(str(tiny_checkpoint), controlnet=str(tiny_controlnets["edge"]))
    with ModelManager("cpu").lend(controlled) as turned:
        parts = (turned.components.unet, turned.components.vae, turned.controlnet)
        assert all(part.conv_in.weight.is_contiguous(memory_format=torch.channels_last) for part in parts[::2])
        latents = sampled(request, turned)
        with torch.inference_mode():
            picture = parts[1].decode(latents[:1]).sample
    expected = sampled(request, pipeline)
    assert (latents - expected).abs().amax() < 1e-5 * max(1, expected.abs().amax())
    with torch.inference_mode():
        assert (picture - pipeline.components.vae.decode(latents[:1]).sample).abs().amax() < 1e-5


def test_a_clip_in_bfloat16_is_much_the_same(pipeline, tiny_checkpoint):
    request = order(frames=3, steps=5, guidance_scale=2.0, size="64x64")
    with ModelManager("cpu", dtype="bfloat16").lend(Checkpoint(str(tiny_checkpoint))) as lent:
        assert lent.components.unet.dtype is torch.bfloat16
        latents = sampled(request, lent)
        video = list(generate(request, lent))[-1].video
    assert np.stack(list(video.frames)).std() > 0
    expected = sampled(request, pipeline)
    assert (latents - expected).abs().mean() < 0.1 * expected.std()


def test_the_command_line_takes_a_type(tiny_checkpoint, tmp_path, capsys):
    output = tmp_path / "clip.gif"
    argv = f"text-to-video --model {tiny_checkpoint} --device cpu --frames 1 --steps 4 --output {output}".split()
    assert main([*argv, "--prompt", "a fox", "--dtype", "bfloat16"]) == 0
    assert output.exists()
    assert main([*argv, "--prompt", "a fox", "--dtype", "half"]) == 2
    assert "The numbers 'half' are not known" in capsys.readouterr().err

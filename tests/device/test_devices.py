"""What weights are made of on which device: numbers and their order."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import model_manager
from model_manager import ModelManager
from tests.runs import order, sampled
from text2video_zero.__main__ import main
from text2video_zero.device import devices
from text2video_zero.device.devices import chosen_device, chosen_type, computes_in_bfloat16, memory_format
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


def test_a_cpu_is_asked_for_bfloat16_and_takes_float32_all_the_same():
    assert [computes_in_bfloat16(CPU, cpu_does=answer) for answer in (True, False)] == [True, False]
    assert computes_in_bfloat16(CPU) == torch.cpu._is_avx512_bf16_supported()
    assert computes_in_bfloat16(CUDA, cpu_does=False)
    assert chosen_type(None, CPU) is torch.float32
    assert chosen_type("bfloat16", CPU) is torch.bfloat16


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device would do its work")
def test_a_cuda_device_that_only_promises_is_left_alone(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # as with a card too old for torch's kernels
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert chosen_device(None) == CPU
    [record] = caplog.records
    assert record.getMessage().startswith("CUDA cannot be used (")
    assert "going on with cpu" in record.getMessage()


def test_a_driver_that_is_too_old_is_told_with_its_remedy(monkeypatch, caplog):
    def is_available():
        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old (found 12020).", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    assert chosen_device(None).type != "cuda"
    assert "is too old (found 12020)), going on with" in caplog.text
    assert "install NVIDIA's driver 580 or newer" in caplog.text


def test_a_machine_without_cuda_has_nothing_to_tell(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    chosen_device(None)
    assert not caplog.records


def test_a_card_without_kernels_is_an_error_if_it_was_asked_for(monkeypatch):
    def fail(_):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(devices, "_try_out", fail)
    with pytest.raises(UserError, match=r"no kernel image is available .* device\): take a card .* or newer"):
        chosen_device("cuda")


def test_a_device_that_computes_wrong_numbers_is_refused(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "__matmul__", torch.Tensor.__add__)
    with pytest.raises(UserError, match=r"'cpu' cannot be used here .it computes wrong numbers."):
        chosen_device("cpu")


@pytest.mark.gpu
def test_the_best_device_is_cuda_where_it_computes():
    assert chosen_device(None) == CUDA


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

"""Running short of memory, by injection: the run goes on with the same result, or says what to do."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import imageio_ffmpeg
import numpy as np
import psutil
import pytest
import torch
from diffusers.hooks.group_offloading import _is_group_offload_enabled

from tests.device.cgroups import group
from tests.runs import sampled
from text2video_zero.device.container import container_memory
from text2video_zero.device.memory import KEPT_SHARE, memory_of, shortage_in_one_sentence, weight_budget
from text2video_zero.device.offload import Placement
from text2video_zero.errors import UserError, ran_out_of_memory
from text2video_zero.generate import generate
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.requests import EdgeRequest, InstructPix2PixRequest, Size, TextToVideoRequest
from text2video_zero.requests.video import REFERENCE_FRAMES
from text2video_zero.sampling.decoding import decoded_frames


def order(**changes):
    defaults = {"prompt": "a red fox", "frames": 6, "steps": 4, "seed": 7, "size": Size(64, 64), "chunk_size": 5}
    return TextToVideoRequest(**(defaults | changes))


@pytest.fixture
def runs(manager, tiny_checkpoint, tiny_controlnets, tiny_editor, tmp_path):
    """A request of a task, one frame at a time, with a pipeline for it."""
    clip = tmp_path / "clip.mp4"
    writer = imageio_ffmpeg.write_frames(str(clip), (64, 64), fps=8, ffmpeg_log_level="error")
    writer.send(None)
    for number in range(3):
        writer.send(np.kron(np.eye(8, k=number), np.full((8, 8), 255))[..., None].repeat(3, -1).astype(np.uint8))
    writer.close()
    checkpoints = {
        "edge": Checkpoint(str(tiny_checkpoint), controlnet=str(tiny_controlnets["edge"])),
        "instruct-pix2pix": Checkpoint(str(tiny_editor), kind="instruct-pix2pix"),
    }
    shared = {"prompt": "a red fox", "frames": 3, "steps": 4, "seed": 7, "chunk_size": 1}
    requests = {
        "text-to-video": TextToVideoRequest(**shared),
        "smoothing": TextToVideoRequest(**shared, smooth_background=True),
        "edge": EdgeRequest(**shared, clip=str(clip), ready_made="yes"),
        "instruct-pix2pix": InstructPix2PixRequest(**shared, clip=str(clip)),
    }
    with ExitStack() as lent:
        yield lambda task: (
            requests[task],
            lent.enter_context(manager.lend(checkpoints.get(task, Checkpoint(str(tiny_checkpoint))))),
        )


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
    @pytest.mark.parametrize("reference_frames", REFERENCE_FRAMES)
    @pytest.mark.parametrize("less", [1, 4, 8])
    def test_goes_on_in_smaller_chunks_with_the_same_result(self, pipeline, less, reference_frames):
        request = order(reference_frames=reference_frames)
        last_layer = pipeline.components.unet.up_blocks[-1].resnets[-1]
        with Shortage(last_layer) as counted:
            whole = sampled(request, pipeline)
        fits = max(2, max(counted.batches) - less)
        with Shortage(last_layer, fits=fits) as shortage:
            halved = sampled(request, pipeline)
        assert torch.allclose(halved, whole, atol=1e-4)
        assert max(shortage.batches) > fits
        assert max(shortage.batches[-3:]) <= fits

    @pytest.mark.slow
    @pytest.mark.parametrize("smooth_background", [False, True])
    def test_a_shortage_at_any_call_does_not_show(self, pipeline, smooth_background):
        request = order(guidance_scale=1.0, smooth_background=smooth_background)
        whole = sampled(request, pipeline)
        middle = pipeline.components.unet.mid_block.resnets[0]
        with Shortage(middle) as counted:
            sampled(request, pipeline)
        chunks = [number for number, batch in enumerate(counted.batches, start=1) if batch > 1]
        assert len(chunks) >= 3
        for call in chunks:
            with Shortage(middle, at_call=call):
                assert torch.allclose(sampled(request, pipeline), whole, atol=1e-4)

    def test_the_smaller_chunks_stay_for_the_rest_of_the_run(self, pipeline):
        with Shortage(pipeline.components.unet.mid_block.resnets[0], fits=4) as shortage:
            sampled(order(smooth_background=True), pipeline)
        assert [batch for batch in shortage.batches if batch > 4] == [10]

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


class TestOffload:
    """On the CPU, where nothing is saved by it, but where it takes the same way as on a device of its own memory."""

    @pytest.fixture(autouse=True)
    def device_of_its_own_memory(self, monkeypatch):
        monkeypatch.setattr(Placement, "can_offload", lambda _: True)

    @pytest.mark.slow
    @pytest.mark.parametrize("task", ["text-to-video", "smoothing", "edge", "instruct-pix2pix"])
    def test_a_shortage_at_any_call_of_any_network_changes_nothing(self, runs, task):
        request, lent = runs(task)
        whole = sampled(request, lent)
        for network in (lent.components.unet, lent.controlnet, lent.components.vae.encoder):
            if network is None:
                continue
            with Shortage(network) as counted:
                sampled(request, lent)
            for call in range(1, counted.calls + 1):
                with Shortage(network, at_call=call):
                    assert torch.equal(sampled(request, lent), whole)

    def test_a_shortage_at_any_layer_leaves_no_trace(self, pipeline):
        unet = pipeline.components.unet
        weights = {name: weight.clone() for name, weight in unet.state_dict().items()}
        whole = sampled(order(chunk_size=1), pipeline)
        for layer in (unet.conv_in, unet.mid_block.attentions[0].transformer_blocks[0].ff, unet.conv_out):
            with Shortage(layer, at_call=3), Shortage(layer, at_call=3):  # one for each kind of offload
                assert torch.equal(sampled(order(chunk_size=1), pipeline), whole)
            assert not _is_group_offload_enabled(unet)
            assert all(torch.equal(weight, weights[name]) for name, weight in unet.state_dict().items())

    def test_the_second_shortage_takes_the_layers_one_by_one(self, pipeline):
        seen = []
        unet = pipeline.components.unet
        hook = unet.register_forward_pre_hook(lambda *_: seen.append(_is_group_offload_enabled(unet)))
        with Shortage(unet, at_call=2), Shortage(unet, at_call=2):
            sampled(order(chunk_size=1), pipeline)
        hook.remove()
        assert seen[:5] == [False, False, False, True, True]

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_an_error_inside_takes_the_hooks_off(self, pipeline, error):
        unet = pipeline.components.unet
        with pytest.raises(error), Placement.of(pipeline, 1, "group"):  # noqa: PT012
            assert _is_group_offload_enabled(unet)
            raise error("injected")
        assert not _is_group_offload_enabled(unet)

    def test_what_is_too_large_for_any_offload_is_said_in_one_sentence(self, pipeline):
        with Shortage(pipeline.components.unet, fits=0), pytest.raises(UserError, match="not hold even one frame"):
            sampled(order(), pipeline)
        assert not _is_group_offload_enabled(pipeline.components.unet)


class TestEveryStage:
    def test_the_text_encoder_goes_on_where_there_is_memory(self, pipeline):
        whole = sampled(order(), pipeline)
        with Shortage(pipeline.components.text_encoder.final_layer_norm, at_call=1):
            assert torch.equal(sampled(order(), pipeline), whole)

    @pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
    def test_a_shortage_without_end_is_told_in_one_sentence(self, pipeline, part):
        network = getattr(pipeline.components, part)
        layer = {"text_encoder": lambda: network.final_layer_norm, "vae": lambda: network.decoder}
        with (
            Shortage(layer.get(part, lambda: network)(), fits=0),
            pytest.raises(UserError, match="not hold even one frame at a time: choose a smaller size"),
        ):
            list(generate(order(), pipeline))
        assert list(generate(order(frames=1), pipeline))

    def test_what_is_no_shortage_is_no_mistake_of_the_person(self):
        with pytest.raises(RuntimeError, match="injected"), shortage_in_one_sentence():
            raise RuntimeError("injected")

    @pytest.mark.parametrize(
        "words",
        [
            "CUDA out of memory. Tried to allocate 2.00 GiB",
            "MPS backend out of memory (MPS allocated: 1 GB)",
            "[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory: you tried to allocate",
            "DefaultCPUAllocator: not enough memory: you tried to allocate 4000000000 bytes.",
        ],
    )
    def test_every_device_says_it_in_its_own_words(self, words):
        assert ran_out_of_memory(RuntimeError(words))
        assert ran_out_of_memory(MemoryError())
        assert not ran_out_of_memory(RuntimeError("shapes do not match"))
        assert not ran_out_of_memory(ValueError(words))


def test_numbers_that_are_not_finite_are_told_at_once(pipeline):
    def overflow(_module, inputs, output):
        output.sample[-1] = torch.nan if len(inputs[0]) == 3 else 0.0

    handle = pipeline.components.unet.register_forward_hook(overflow)
    try:
        with pytest.raises(UserError, match="Frame 2 came out of step 1 with numbers that are not finite"):
            sampled(order(motion=False, chunk_size=3, guidance_scale=1.0), pipeline)
    finally:
        handle.remove()


class TestMemoryOfTheCpu:
    """What a plan and the budgets reckon with in a container."""

    @pytest.mark.parametrize("share", [0.5, 2.0])
    def test_it_is_the_container_s_where_that_is_less_than_the_machine_s(self, tmp_path, monkeypatch, share):
        machine = psutil.virtual_memory().total
        limit, used = int(share * machine), 2**20
        group(tmp_path, limit, used)
        own = tmp_path / "cgroup"
        own.write_text("0::/\n")
        monkeypatch.setattr("text2video_zero.device.memory.container_memory", partial(container_memory, tmp_path, own))
        free, total = memory_of(torch.device("cpu"))
        assert total == min(limit, machine)
        assert 0 < free <= min(limit - used, machine)
        assert weight_budget(torch.device("cpu")) == int(KEPT_SHARE * total)

"""The memory plan: never above what there is, and what it expects is what the networks take."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.memory import SD_VAE, UNETS, decoder_peak, unet_peak
from model_manager import ModelManager
from text2video_zero.attention.branches import Branches
from text2video_zero.attention.cross_frame import cross_frame_attention
from text2video_zero.device.memory_plan import (
    LAYER_SHARE,
    USABLE_SHARE,
    MemoryPlan,
    Needs,
    anchor_bytes,
    decoding_bytes,
    must_tile,
    needs_of,
    planned,
    sentence,
    tiled_where_short,
    unet_bytes,
)
from text2video_zero.device.offload import OFFLOADS
from text2video_zero.events import Notice
from text2video_zero.generate import generate
from text2video_zero.models.catalogue import TOYLAND
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.requests import Size, TextToVideoRequest

GB = 10**9
amounts = st.integers(1, 20 * GB)
needs = st.builds(Needs, amounts, amounts, amounts, amounts, amounts, amounts)
limits = st.integers(1, 512)


class TestPlanned:
    @given(needs, st.integers(0, 100 * GB), limits, st.booleans())
    def test_it_fits_or_it_is_the_least_there_is(self, needs, room, limit, can_offload):
        plan = planned(needs, room, limit, can_offload=can_offload)
        assert 1 <= plan.chunk_size <= limit
        filled = needs.resident(plan.offload) + plan.chunk_size * needs.frame
        least = plan.chunk_size == 1 and plan.offload == ("group" if can_offload else "none")
        assert filled <= USABLE_SHARE * room or least

    @given(needs, st.integers(0, 100 * GB), limits, st.integers(1, GB), st.booleans())
    def test_more_of_anything_never_gives_more_frames_at_the_same_offload(self, needs, room, limit, more, can_offload):
        plan = planned(needs, room, limit, can_offload=can_offload)
        for name in ("weights", "others", "frame", "anchor"):
            larger = planned(
                dataclasses.replace(needs, **{name: getattr(needs, name) + more}), room, limit, can_offload=can_offload
            )
            assert OFFLOADS.index(larger.offload) >= OFFLOADS.index(plan.offload)
            assert larger.offload != plan.offload or larger.chunk_size <= plan.chunk_size

    @given(needs, st.integers(0, 100 * GB), limits, st.integers(1, 10 * GB), st.booleans())
    def test_more_room_never_asks_for_more_offload_or_tiles(self, needs, room, limit, more, can_offload):
        plan = planned(needs, room, limit, can_offload=can_offload)
        roomier = planned(needs, room + more, limit, can_offload=can_offload)
        assert OFFLOADS.index(roomier.offload) <= OFFLOADS.index(plan.offload)
        assert roomier.offload != plan.offload or roomier.chunk_size >= plan.chunk_size
        assert roomier.tiled <= plan.tiled

    def test_weights_leave_the_device_one_kind_after_the_other(self):
        sd = Needs(2 * GB, GB // 5, GB // 4, frame=GB // 8, anchor=GB // 10, decoding=GB // 2)
        plans = [planned(sd, int(room * GB), 8, can_offload=True) for room in (24, 3.5, 2.9, 1)]
        assert plans == [
            MemoryPlan(8, "none", tiled=False),
            MemoryPlan(3, "none", tiled=False),
            MemoryPlan(2, "model", tiled=False),
            MemoryPlan(5, "group", tiled=False),
        ]
        assert sd.resident("group") == int(LAYER_SHARE * 2 * GB) + GB // 10

    def test_a_picture_too_large_for_the_vae_is_tiled(self):
        assert must_tile(GB, GB, 2 * GB)
        assert not must_tile(GB, GB, 3 * GB)


class TestFormulas:
    @pytest.mark.parametrize("samples", [1, 2, 6])
    @pytest.mark.parametrize("cells", [(64, 64), (96, 64), (128, 128)])
    @pytest.mark.parametrize("name", UNETS)
    def test_a_unet_of_full_size_takes_what_is_expected(self, name, cells, samples):
        with torch.device("meta"):
            unet = UNet2DConditionModel(**UNETS[name]).half().eval()
        expected = samples * unet_bytes(unet, *cells)
        assert 0.55 * expected < unet_peak(unet, *cells, samples) < 1.01 * expected

    @pytest.mark.parametrize("cells", [(16, 16), (32, 24)])
    def test_toylands_unet_on_the_cpu(self, cells):
        unet = UNet2DConditionModel.from_pretrained(TOYLAND.checkpoint.source, subfolder="unet")
        expected = 4 * unet_bytes(unet, *cells)
        assert 0.6 * expected < unet_peak(unet, *cells, 4) < 1.01 * expected

    @pytest.mark.parametrize("size", [Size(512, 512), Size(768, 512), Size(1024, 1024)])
    def test_a_vae_of_full_size(self, size):
        with torch.device("meta"):
            vae = AutoencoderKL(**SD_VAE).half().eval()
        assert 0.9 * decoding_bytes(vae, size) < decoder_peak(vae, size) < 1.01 * decoding_bytes(vae, size)

    @pytest.mark.parametrize("cells", [(8, 8), (9, 14)])
    def test_the_anchor_leaves_what_is_expected(self, pipeline, cells):
        unet = pipeline.components.unet
        with torch.inference_mode(), cross_frame_attention(unet, branches=Branches(1)) as memory, memory.anchor_pass():
            unet(torch.zeros(1, 4, *cells), 1, encoder_hidden_states=torch.zeros(1, 4, 16))
            kept = sum(tensor.nbytes for pair in memory.anchors.values() for tensor in pair)
        assert anchor_bytes(unet, *cells) == kept

    def test_two_reference_frames_leave_twice_as_much(self, pipeline):
        request = TextToVideoRequest(prompt="a red fox", frames=3)
        size = Size(64, 64)
        one, two, none = (
            needs_of(dataclasses.replace(request, **changes), size, pipeline)
            for changes in ({}, {"reference_frames": "first + previous"}, {"cross_frame_attention": False})
        )
        assert one.anchor == 2 * anchor_bytes(pipeline.components.unet, 8, 8)  # for either guidance branch
        assert two == dataclasses.replace(one, anchor=2 * one.anchor)
        assert none == dataclasses.replace(one, anchor=0)

    def test_the_anchor_of_sd_15(self):
        with torch.device("meta"):
            unet = UNet2DConditionModel(**UNETS["SD 1.5"]).half()
        assert anchor_bytes(unet, 64, 64) == pytest.approx(46e6, rel=0.02)


class TestRuns:
    def test_the_plan_is_told_in_one_line_before_the_run(self, pipeline):
        request = TextToVideoRequest(prompt="a red fox", frames=3, steps=4, seed=1)
        first = next(event for event in generate(request, pipeline))
        assert isinstance(first, Notice)
        assert "fp32 on CPU, " in first.text
        assert first.text.endswith(" GB free: 3 frames at a time")

    @pytest.mark.parametrize(
        ("cpu_has_bfloat16", "numbers"),
        [(False, "bf16 (imitated by this CPU: float32 is faster)"), (True, "bf16")],
    )
    def test_the_sentence_says_that_a_cpu_only_imitates_bfloat16(self, tiny_checkpoint, cpu_has_bfloat16, numbers):
        plan = MemoryPlan(4, "none", tiled=False)
        with ModelManager("cpu", dtype="bfloat16").lend(Checkpoint(str(tiny_checkpoint))) as lent:
            told = sentence(plan, lent, GB, GB, cpu_has_bfloat16=cpu_has_bfloat16)
        assert f" {numbers} on CPU, 1.0 of 1.0 GB free: 4 frames at a time" in told

    def test_the_sentence_names_offload_and_tiles(self, pipeline):
        told = sentence(MemoryPlan(1, "group", tiled=True), pipeline, 61 * GB // 10, 8 * GB)
        assert told.endswith(
            "fp32 on CPU, 6.1 of 8.0 GB free: 1 frame at a time, weights come layer by layer, decoded in tiles"
        )

    def test_short_memory_makes_smaller_chunks(self, pipeline, monkeypatch):
        monkeypatch.setattr("text2video_zero.device.memory_plan.memory_of", lambda _: (0, 8 * GB))
        batches = []
        unet = pipeline.components.unet
        hook = unet.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0]) // 2))
        list(generate(TextToVideoRequest(prompt="a red fox", frames=3, steps=4, seed=1), pipeline))
        hook.remove()
        assert set(batches) == {1}

    @pytest.mark.parametrize("short", [True, False])
    def test_tiles_where_short_and_only_there(self, pipeline, monkeypatch, short):
        vae = pipeline.components.vae
        monkeypatch.setattr("text2video_zero.device.memory_plan.memory_of", lambda _: (0 if short else 8 * GB, 8 * GB))
        with tiled_where_short(vae, Size(1024, 1024), pipeline):
            assert vae.use_tiling is short
        assert not vae.use_tiling

"""Token merging as a patch: what it merges, that chunks do not matter, and that it leaves no trace."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as some

from tests.runs import order, sampled
from tests.tiny_models import tiny_unet
from text2video_zero.attention.branches import Branches
from text2video_zero.attention.cross_frame import CrossFrameProcessor, cross_frame_attention
from text2video_zero.attention.token_merging import Call, MergingProcessor, merged_layers, token_merging
from text2video_zero.generate import generate
from text2video_zero.requests import Size


@pytest.fixture(scope="module")
def unet():
    return tiny_unet().eval()


class Counting:
    """A processor that returns what it is given and notes how many cells that were."""

    def __init__(self):
        self.cells = []

    def __call__(self, _attn, hidden_states, _text=None, _mask=None):
        self.cells.append(hidden_states.shape[1])
        return hidden_states


@given(
    ratio=some.floats(0.01, 0.9),
    rows=some.integers(4, 12),
    columns=some.integers(4, 12),
    timestep=some.integers(1, 999),
)
def test_merges_the_share_that_is_asked_for_and_spreads_out_again(ratio, rows, columns, timestep):
    counting = Counting()
    cells = torch.randn(3, rows * columns, 8, generator=torch.Generator().manual_seed(0))
    spread = MergingProcessor(counting, "layer", ratio, Call(rows, columns, timestep))(None, cells)
    assert spread.shape == cells.shape
    block = 2 if ratio <= 0.75 else 4
    most = rows * columns - (rows // block) * (columns // block)
    assert counting.cells == [rows * columns - min(int(ratio * (rows * columns)), most)]


def test_equal_cells_lose_nothing_when_they_merge():
    blocks = torch.randn(2, 4, 5, 8, generator=torch.Generator().manual_seed(1))
    cells = blocks.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1, 2)  # blocks of 2x2 equal cells
    counting = Counting()
    spread = MergingProcessor(counting, "layer", 0.75, Call(8, 10, 500))(None, cells)
    assert counting.cells == [20]
    assert torch.allclose(spread, cells, atol=1e-6)


def test_cells_that_stay_hang_on_layer_and_timestep_alone():
    cells = torch.randn(1, 64, 8, generator=torch.Generator().manual_seed(2))

    def spread(frames=1, layer="a", timestep=500.0):
        torch.manual_seed(frames)  # tomesd itself would draw from this state
        merging = MergingProcessor(Counting(), layer, 0.5, Call(8, 8, timestep))
        return merging(None, cells.repeat(frames, 1, 1))

    first = spread()
    for frames in (1, 2, 3):  # tomesd itself draws for even batches alone
        assert torch.equal(spread(frames), first.repeat(frames, 1, 1))
    assert not torch.equal(spread(layer="b"), first)
    assert not torch.equal(spread(timestep=499.5), first)


def test_merges_where_the_cells_are_many(unet):
    assert {name.partition(".attentions")[0] for name in merged_layers(unet)} == {"down_blocks.0", "up_blocks.1"}
    assert all(name.endswith("attn1.processor") for name in merged_layers(unet))
    without_attention_at_the_top = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    layers = merged_layers(without_attention_at_the_top)
    assert {name.partition(".attentions")[0] for name in layers} == {"down_blocks.1", "up_blocks.0"}
    with torch.inference_mode(), token_merging(0.5, without_attention_at_the_top):  # its grid is 5x3, halved from 9x5
        without_attention_at_the_top(torch.randn(1, 4, 9, 5), 500, encoder_hidden_states=torch.randn(1, 6, 16))


def test_no_ratio_patches_nothing(unet):
    before = dict(unet.attn_processors)
    with token_merging(0.0, unet):
        assert all(unet.attn_processors[name] is found for name, found in before.items())
        assert not unet._forward_pre_hooks


@torch.inference_mode()
def test_the_anchor_is_remembered_as_merged_cells(unet):
    latents, text = torch.randn(3, 4, 8, 8), torch.randn(1, 6, 16)
    with cross_frame_attention(unet, branches=Branches(1)) as memory, token_merging(0.5, unet), memory.anchor_pass():
        unet(latents[:1], 500, encoder_hidden_states=text)
        cells = {layer.partition(".")[2]: key.shape[1] for layer, (key, _) in memory.anchors.items()}
    merged = merged_layers(unet)
    assert all(cells[name] == 32 for name in merged)
    assert all(cells[name] in {4 * 4, 64} for name in cells if name not in merged)


@pytest.mark.parametrize("error", [RuntimeError, GeneratorExit])
def test_leaving_restores_what_was_there(unet, error):
    latents, text = torch.randn(1, 4, 8, 8), torch.randn(1, 6, 16)
    with torch.inference_mode():
        before = unet(latents, 500, encoder_hidden_states=text).sample
        with cross_frame_attention(unet, branches=Branches(1)):
            patched = dict(unet.attn_processors)
            with pytest.raises(error), token_merging(0.5, unet):
                raise error
            assert all(unet.attn_processors[name] is found for name, found in patched.items())
            assert any(isinstance(found, CrossFrameProcessor) for found in patched.values())
        after = unet(latents, 500, encoder_hidden_states=text).sample
    assert not unet._forward_pre_hooks
    assert torch.equal(before, after)


class TestRun:
    def test_ratio_zero_is_the_same_to_the_last_bit(self, pipeline):
        assert torch.equal(sampled(order(token_merging=0.0), pipeline), sampled(order(), pipeline))

    def test_merging_changes_the_clip_and_runs_agree(self, pipeline):
        merged = sampled(order(token_merging=0.5), pipeline)
        assert (merged - sampled(order(), pipeline)).abs().amax() > 1e-3
        assert torch.equal(sampled(order(token_merging=0.5), pipeline), merged)

    @pytest.mark.parametrize(
        "changes",
        [
            {"token_merging": 0.9},
            {"token_merging": 0.3, "guidance_scale": 1.0},
            {"token_merging": 0.5, "reference_frames": "first + previous", "size": Size(88, 64)},
            {"token_merging": 0.5, "cross_frame_attention": False},
            {"token_merging": 0.5, "smooth_background": True, "sampler": "Euler"},
        ],
        ids=str,
    )
    def test_result_does_not_depend_on_the_chunk_size(self, pipeline, changes):
        whole = sampled(order(frames=5, **changes, chunk_size=512), pipeline)
        for chunk_size in (1, 2, 3):
            chunked = sampled(order(frames=5, **changes, chunk_size=chunk_size), pipeline)
            assert torch.allclose(chunked, whole, atol=1e-4)

    def test_an_unfinished_run_leaves_no_trace(self, pipeline):
        unet = pipeline.components.unet
        before, clean = dict(unet.attn_processors), sampled(order(), pipeline)
        run = generate(order(token_merging=0.5), pipeline)
        for _ in range(5):
            next(run)
        run.close()
        assert all(unet.attn_processors[name] is found for name, found in before.items())
        assert torch.equal(sampled(order(), pipeline), clean)

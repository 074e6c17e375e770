"""The benchmark of models of random weights: the arithmetic it counts, what it leaves out, the table it prints."""

from __future__ import annotations

import time
from functools import partial

import pytest
import torch

from benchmarks.at_size import CLIPS, HEAD, Group, fitting, flops_by_frames, flops_of, groups_of, highest_rate
from benchmarks.clips import ours, paper_request, peer_of
from benchmarks.peer import sampled_by_peer
from benchmarks.sampling import main
from benchmarks.shapes import SHAPES, TOKENS, write_model
from model_manager import ModelManager
from tests.runs import EvaluationCount
from text2video_zero.attention.processors import is_self_attention, layer_of
from text2video_zero.models.checkpoints import Checkpoint

STEPS, FRAMES = 4, 3


@pytest.fixture(scope="module")
def tiny_shape(tmp_path_factory):
    """The smallest shape, written and loaded as the large ones are."""
    folder = tmp_path_factory.mktemp("shapes") / "tiny"
    write_model(SHAPES["tiny"], folder, torch.device("cpu"))
    with ModelManager("cpu").lend(Checkpoint(str(folder))) as pipeline:
        yield pipeline


def keys_and_values(unet, *, of_text):
    """Multiplications and additions for the keys and values of one frame and branch, counted by hand."""
    total = 0
    for name in unet.attn_processors:
        if is_self_attention(unet, name) != of_text:
            layer, (room, number, *_) = layer_of(unet, name), name.split(".")
            halved = {"down_blocks": int, "up_blocks": lambda number: 1 - int(number), "mid_block": lambda _: 1}
            tokens = TOKENS if of_text else (unet.config["sample_size"] >> halved[room](number)) ** 2
            total += 2 * 2 * tokens * layer.to_k.in_features * layer.to_k.out_features
    return total


def test_the_arithmetic_is_diffusers_without_what_is_computed_once(tiny_shape):
    fixed, a_frame = flops_by_frames(tiny_shape, STEPS)
    own = flops_of(partial(ours, tiny_shape, paper_request(FRAMES, 2, STEPS)))
    assert own == fixed + FRAMES * a_frame  # chunks cost nothing, so that two short clips tell of all
    theirs = flops_of(partial(sampled_by_peer, peer_of(tiny_shape), FRAMES, STEPS, FRAMES))
    unet, branches = tiny_shape.components.unet, 2
    # They have keys and values of all frames where the first one's are used, and of the text at each evaluation.
    of_frames = STEPS * branches * (FRAMES - 1) * keys_and_values(unet, of_text=False)
    of_text = branches * (STEPS * FRAMES + 1 - 1) * keys_and_values(unet, of_text=True)
    assert theirs - own == of_frames + of_text


def test_diffusers_pipeline_for_xl_makes_the_same_evaluations_and_leaves_nothing_behind(manager, tiny_xl):
    with manager.lend(Checkpoint(str(tiny_xl))) as pipeline:
        count = EvaluationCount(pipeline.components.unet, branches=2)
        found = []
        for run in (
            partial(ours, pipeline, paper_request(FRAMES, FRAMES, STEPS)),
            partial(sampled_by_peer, peer_of(pipeline), FRAMES, STEPS, FRAMES),
        ):
            count.batches.clear()
            run()
            found.append(list(count.batches))
        count.handle.remove()
    assert found == [[1] + [FRAMES] * STEPS] * 2


def test_what_the_time_does_not_hold_is_left_out():
    ran = []

    def clip(frames):
        ran.append(frames)
        time.sleep(frames / 100)

    works = {(frames, 8): (partial(clip, frames),) for frames in (2, 4, 400, 1)}
    kept = fitting(works, rounds=1, seconds=1.0)
    assert ran == [2, 4, 1]
    assert list(kept) == [(2, 8), (4, 8), (1, 8)]


def test_shapes_take_turns_and_the_dearest_come_last():
    groups = groups_of(["sd15", "sdxl"], ["float16", "bfloat16"], compiled=True)
    assert groups[:3] == [
        Group("sd15", "float16", False, CLIPS),
        Group("sdxl", "float16", False, CLIPS),
        Group("sd15", "bfloat16", False, CLIPS[:1]),
    ]
    assert [group.numbers for group in groups[3:]] == ["bfloat16", *["float16, compiled"] * 2]


def test_a_table_is_printed_with_the_floor(capsys, monkeypatch):
    rate = highest_rate(torch.device("cpu"), torch.float32)  # once: a busy machine's is another in the next second
    monkeypatch.setattr("benchmarks.at_size.highest_rate", lambda *_: rate)
    main(["--shapes", "tiny", "--device", "cpu", "--minutes", "0.01", "--rounds", "1", "--steps", "4"])
    about, _, *table = capsys.readouterr().out.splitlines()
    assert about.startswith("CPU, torch ")
    assert table[:2] == HEAD.splitlines()
    first, missing = (line.strip("|").split(" | ") for line in table[2:])
    assert len(first) == HEAD.splitlines()[0].count("|") - 1
    assert first[2] == "8, 8"
    ratio, teraflops, floor, above_floor = (float(first[column]) for column in (5, 6, 7, 8))
    assert 0.1 < ratio < 10
    assert above_floor >= 1  # nothing is faster than the arithmetic of its matrices
    assert teraflops * 1e12 / floor == pytest.approx(rate, rel=0.1)  # both as they are printed
    assert missing[2].startswith("16, 8; 64, 8; 8, 4; 16, 16; 64, 64: no time left")

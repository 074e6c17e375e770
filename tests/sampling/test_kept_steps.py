"""Steps on disk: a run that is cut off anywhere goes on to the same latents, bit for bit, and uses no others' steps."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.runs import sampled
from text2video_zero.device.offload import Placement
from text2video_zero.events import Notice
from text2video_zero.generate import generate, sample
from text2video_zero.generators import result_of
from text2video_zero.media.files import STEPS_FILE
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.requests import Size, TextToVideoRequest
from text2video_zero.requests.video import FEW_STEP_SAMPLERS, SAMPLERS
from text2video_zero.sampling import kept_steps
from text2video_zero.sampling.kept_steps import KeptSteps

SHORT = TextToVideoRequest(
    prompt="a red panda in the snow",
    frames=3,
    chunk_size=2,
    steps=4,
    seed=3,
    size=Size(64, 64),
    motion_from=500,
    motion_to=750,
)


@pytest.fixture(autouse=True)
def each_step_is_written(monkeypatch):
    monkeypatch.setattr(kept_steps, "SECONDS_BETWEEN", 0.0)


@pytest.fixture
def evaluations(pipeline):
    """One entry for each time that the UNet is asked."""
    asked = []
    hook = pipeline.components.unet.register_forward_pre_hook(lambda *_: asked.append(1))
    yield asked
    hook.remove()


@torch.inference_mode()
def stages(request, pipeline, evaluations, folder):
    """Run to the end; copies of what was kept after each step, with the evaluations that were made by then."""
    kept, seen = [], b""
    for number, _ in enumerate(sample(request, pipeline, kept=KeptSteps(folder / "run"))):
        if (file := folder / "run" / STEPS_FILE).exists() and file.read_bytes() != seen:
            seen = file.read_bytes()
            kept.append((Path(shutil.copytree(folder / "run", folder / str(number))), len(evaluations)))
    return kept


@torch.inference_mode()
def gone_on(request, pipeline, folder):
    """The latents that the next process comes to."""
    return result_of(sample(request, pipeline, kept=KeptSteps(folder))).latents


def hold_against_whole(request, pipeline, evaluations, tmp_path):
    """Go on from each step of a run, and hold what becomes of it against the run that nobody cut off."""
    whole, needed = sampled(request, pipeline), len(evaluations)
    evaluations.clear()
    kept = stages(request, pipeline, evaluations, tmp_path)
    for folder, made in kept:
        evaluations.clear()
        assert torch.equal(gone_on(request, pipeline, folder), whole)
        assert len(evaluations) == needed - made  # no step is taken twice
    return len(kept)


@pytest.mark.parametrize("sampler", [*SAMPLERS, *FEW_STEP_SAMPLERS])
def test_a_run_goes_on_from_each_of_its_steps_to_the_same_latents(pipeline, evaluations, sampler, tmp_path):
    request = dataclasses.replace(SHORT, sampler=sampler)
    assert hold_against_whole(request, pipeline, evaluations, tmp_path) >= request.steps


def test_so_does_one_whose_background_is_smoothed_by_what_was_seen_before(pipeline, evaluations, tmp_path):
    smoothed = {"smooth_background": True, "smoothing_strength": 0.8, "guidance_end": 0.5}
    request = dataclasses.replace(SHORT, sampler="UniPC", **smoothed)
    assert hold_against_whole(request, pipeline, evaluations, tmp_path) == 8


@pytest.mark.parametrize(("order", "interval", "kept"), [("text", 3, 4), ("pose", 2, 5), ("edit", 4, 3)])
def test_with_deep_features_it_goes_on_where_none_are_needed(manager, orders, order, interval, kept, tmp_path):
    checkpoint, request = orders[order]
    request = dataclasses.replace(request, steps=9, cache_interval=interval)
    with manager.lend(checkpoint) as pipeline:
        hook = pipeline.components.unet.register_forward_pre_hook(lambda *_: asked.append(1))
        asked = []
        assert hold_against_whole(request, pipeline, asked, tmp_path) == kept
        hook.remove()


@torch.inference_mode()
def test_a_run_cut_off_inside_a_step_loses_that_step_alone(pipeline, evaluations, tmp_path):
    whole, needed = sampled(SHORT, pipeline), len(evaluations)
    evaluations.clear()
    with closing(sample(SHORT, pipeline, kept=KeptSteps(tmp_path))) as run:
        while len(evaluations) < needed - 1:
            next(run)
    assert torch.equal(gone_on(SHORT, pipeline, tmp_path), whole)
    assert len(evaluations) == needed + 1


@pytest.mark.parametrize("order", ["pose", "edit"])
def test_every_kind_of_task_goes_on(manager, orders, order, tmp_path):
    checkpoint, request = orders[order]
    with manager.lend(checkpoint) as pipeline:
        hook = pipeline.components.unet.register_forward_pre_hook(lambda *_: asked.append(1))
        asked = []
        assert hold_against_whole(request, pipeline, asked, tmp_path) >= request.steps
        hook.remove()


def sentences(request, pipeline, folder):
    """What is told of the kept steps when the request is run as a job is."""
    with closing(generate(request, pipeline, kept_in=folder)) as run:
        told = [event.text for event in run if isinstance(event, Notice)]
    return [text for text in told if "earlier run" in text]


def test_it_is_told_that_a_run_goes_on_and_why_one_begins_again(manager, pipeline, tiny_xl, tmp_path):
    kept = tmp_path / "steps"
    assert sentences(SHORT, pipeline, kept) == []
    assert sentences(SHORT, pipeline, kept) == ["Going on after the last step that an earlier run has kept."]
    begun_again = "The steps that an earlier run has left are not used (other {}): the video is begun again."
    assert sentences(dataclasses.replace(SHORT, prompt="a fox"), pipeline, kept) == [begun_again.format("request")]
    changed = dataclasses.replace(pipeline, weights="0123456789")
    assert sentences(dataclasses.replace(SHORT, prompt="a fox"), changed, kept) == [
        begun_again.format(f"weights: {pipeline.weights}, now 0123456789")
    ]
    with manager.lend(Checkpoint(str(tiny_xl))) as other:
        assert sentences(SHORT, other, kept) == [begun_again.format(f"model: {pipeline_name(pipeline)}, now tiny-xl")]


def pipeline_name(pipeline):
    return Path(pipeline.checkpoint.source).name


def test_steps_of_another_version_are_not_used(pipeline, tmp_path, monkeypatch):
    sentences(SHORT, pipeline, tmp_path)
    monkeypatch.setattr("text2video_zero.generate.__version__", "9.9.9")
    (told,) = sentences(SHORT, pipeline, tmp_path)
    assert "(other version: " in told
    assert "now 9.9.9)" in told


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path):
    path.write_bytes(b"")


def of_another_kind(path):
    save_file({"weight": torch.zeros(3)}, path)


@pytest.mark.parametrize("damage", [cut_short, emptied, of_another_kind])
def test_a_damaged_file_is_told_of_and_the_video_is_the_same(pipeline, damage, tmp_path):
    with torch.inference_mode():
        gone_on(SHORT, pipeline, tmp_path)
    damage(tmp_path / STEPS_FILE)
    assert KeptSteps(tmp_path).told == "The steps that an earlier run has left are damaged: the video is begun again."
    assert torch.equal(gone_on(SHORT, pipeline, tmp_path), sampled(SHORT, pipeline))
    assert "Going on" in KeptSteps(tmp_path).told


def test_where_nothing_can_be_written_the_run_goes_on_and_the_log_says_so(pipeline, tmp_path, caplog):
    in_the_way = tmp_path / "steps"
    in_the_way.touch()
    with caplog.at_level(logging.WARNING):
        assert torch.equal(gone_on(SHORT, pipeline, in_the_way), sampled(SHORT, pipeline))
    assert [record.message.partition(" (")[0] for record in caplog.records] == [f"Steps cannot be kept in {in_the_way}"]


def test_short_runs_write_nothing(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_steps, "SECONDS_BETWEEN", 3600.0)
    gone_on(SHORT, pipeline, tmp_path / "steps")
    assert not (tmp_path / "steps").exists()


def test_a_run_keeps_to_the_smaller_chunks_and_wider_numbers_that_it_had_come_to(pipeline):
    placement = Placement.of(pipeline, 8)
    placement.recall(2, 1)
    assert (placement.chunk_size, placement.precision) == (2, 1)
    placement.recall(4, 1)
    assert placement.chunk_size == 2

"""The engine's latents are those of docs/one_page.py, which has the method without anything else."""

from __future__ import annotations

import ast
import importlib.util
import runpy
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from tests.runs import sampled
from text2video_zero.foreground.attention_maps import CrossAttentionDetector
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.requests import TextToVideoRequest
from text2video_zero.requests.presets import PAPER, PRESETS

SOURCE = Path(__file__).resolve().parent.parent / "docs" / "one_page.py"
PROMPT = "a red panda dancing in the snow"
SEED = 7


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("one_page", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def paper_request(**changes):
    """What the preset asks of the engine."""
    return TextToVideoRequest(**{**PRESETS[PAPER].values["text-to-video"], "prompt": PROMPT, "seed": SEED, **changes})


def distance(ours, theirs):
    """How far apart, as a share of how large they are: rounding alone makes 1e-6 of it, a wrong timestep 1e-2."""
    assert ours.shape == theirs.shape
    return (ours - theirs).norm() / theirs.norm()


@pytest.mark.parametrize(("frames", "steps"), [(1, 5), (3, 10), (8, 20), (5, 50)])
def test_the_engine_makes_the_same_latents(page, pipeline, frames, steps):
    ours = sampled(paper_request(frames=frames, steps=steps), pipeline)
    assert distance(ours, page.text_to_video(pipeline.components, PROMPT, SEED, frames, steps)) < 1e-5


def test_the_engine_smooths_the_same_background(page, pipeline, monkeypatch):
    def left_column(_, latents):  # what the tiny network finds is everywhere, and would leave no background
        masks = torch.zeros(len(latents), *latents.shape[-2:])
        masks[:, :, 0] = 1
        return masks

    monkeypatch.setattr(CrossAttentionDetector, "masks", left_column)
    ours = sampled(paper_request(frames=4, steps=10, smooth_background=True), pipeline)
    masks = left_column(None, ours)
    theirs = page.text_to_video(pipeline.components, PROMPT, SEED, 4, 10, find_foreground=lambda _: masks)
    assert distance(ours, theirs) < 1e-5
    assert distance(ours, page.text_to_video(pipeline.components, PROMPT, SEED, 4, 10)) > 1e-2


def test_the_engine_makes_the_same_latents_on_toyland(page, manager):
    with manager.lend(Checkpoint(str(page.TOYLAND))) as pipeline:
        ours = sampled(paper_request(frames=2, steps=5), pipeline)
        assert distance(ours, page.text_to_video(pipeline.components, PROMPT, SEED, 2, 5)) < 1e-5


def test_it_has_the_papers_settings(page):
    assert (page.FRAMES, page.STEPS, page.GUIDANCE, page.T_PRIME, page.T, page.ALPHA) == (8, 50, 7.5, 881, 941, 0.6)
    above, between, below = page.cut(page.timesteps(50))
    assert above == [981, 961, 941]
    assert between == [941, 921, 901, 881]
    assert below[:2] + below[-2:] == [941, 921, 1, 0]


def test_the_preset_has_the_pages_settings(page):
    asked = paper_request()
    assert (asked.frames, asked.steps, asked.guidance_scale) == (page.FRAMES, page.STEPS, page.GUIDANCE)
    assert (asked.motion_from, asked.motion_to, asked.smoothing_strength) == (page.T_PRIME, page.T, page.ALPHA)
    assert (asked.pan_x, asked.pan_y) == page.DELTA


def test_it_leaves_no_trace_in_the_unet(page, pipeline):
    unet = pipeline.components.unet
    before = dict(unet.attn_processors)
    page.text_to_video(pipeline.components, PROMPT, SEED, frames=2, steps=4)
    assert unet.attn_processors == before


def test_the_stand_in_for_the_detector_finds_what_stands_out(page):
    pictures = torch.full((2, 3, 64, 64), 0.8)
    pictures[:, 2, :32] = 0.2  # the sky is no foreground: it touches the edge
    pictures[1, :, 24:40, 16:48] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    masks = page.unlike_the_edge(pictures, 8, 8)
    expected = torch.zeros(2, 8, 8)
    expected[1, 3:5, 2:6] = 1
    assert torch.equal(masks, expected)


def test_a_prompt_is_asked_for_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr("sys.argv", [str(SOURCE)])
    with pytest.raises(SystemExit, match="Say what to film"):
        runpy.run_path(str(SOURCE), run_name="__main__")


def test_the_video_has_a_name_whatever_the_prompt_is(monkeypatch):
    def begun(*_, **__):
        raise InterruptedError

    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", begun)
    for prompt, name in (
        ("a red/blue panda, 1.5 m tall", "a-red-blue-panda-1-5-m-tall.mp4"),
        ("fox " * 100, "fox-" * 20 + ".mp4"),
    ):
        monkeypatch.setattr("sys.argv", [str(SOURCE), *prompt.split()])
        with pytest.raises(InterruptedError) as stopped:
            runpy.run_path(str(SOURCE), run_name="__main__")
        assert stopped.traceback[-2].frame.f_globals["video"] == Path(name)


def test_it_is_one_page_of_its_own():
    source = SOURCE.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 200
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert not imported & {"text2video_zero", "model_manager", "toyland"}

"""The report on smoothing: it runs on any model, and its tables say what was measured."""

from __future__ import annotations

import json

import numpy as np
import torch

from benchmarks import smoothing
from text2video_zero.requests import Size, TextToVideoRequest


def test_scenes_are_balanced_and_repeatable():
    drawn = smoothing.drawn_scenes(24, seed=1)
    assert drawn == smoothing.drawn_scenes(24, seed=1)
    assert {scene.subject for scene, _ in drawn[:12]} == set(smoothing.SUBJECTS)
    assert smoothing.drawn_scenes(24, seed=2) != drawn


def test_the_whole_report_runs(tiny_checkpoint, tmp_path, capsys):
    out = tmp_path / "rows.json"
    smoothing.main(
        ["--model", str(tiny_checkpoint), "--scenes", "2", "--clips", "2", "--steps", "4", "--out", str(out)]
    )
    rows = json.loads(out.read_text())
    assert len(rows["masks"]) == len(rows["clips"]) == 2
    assert all(0 <= row["attention"] <= 1 for row in rows["masks"])
    assert "| all | 2 |" in capsys.readouterr().out


@torch.inference_mode()
def test_without_strength_both_clips_are_the_same(pipeline):
    request = TextToVideoRequest(
        prompt="a red panda", steps=4, seed=1, frames=3, size=Size(128, 128), smoothing_strength=0.0
    )
    scores = smoothing.clip_scores(pipeline, request)
    assert scores.foreground_flow[0] == scores.foreground_flow[1]
    assert np.nanmax([scores.changed_background, scores.changed_foreground, 0]) == 0


def test_tables_give_means_standard_errors_and_pairs():
    clips = [
        smoothing.ClipScores(
            "a panda", seed, (0.010, lower), (0.02, 0.02), (0.1, 0.1), (0.1, 0.1), (0.3, 0.3), 0.05, 0.01
        )
        for seed, lower in enumerate((0.006, 0.008, 0.010))
    ]
    lines = smoothing.clip_table(clips).splitlines()
    assert lines[2] == "| background | 10.00 ± 0.00 | 8.00 ± 1.15 | -2.00 ± 1.15 | 2 of 3 |"
    assert lines[-1] == "| changed foreground | | 10.00 ± 0.00 | | |"
    masks = [smoothing.MaskScores("fox", 0.5, 0.2, 0.3), smoothing.MaskScores("car", 0.7, 0.2, 0.3)]
    assert smoothing.mask_table(masks).splitlines()[-1] == "| all | 2 | 0.600 | 0.200 | 0.300 |"

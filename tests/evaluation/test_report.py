"""Tables: estimates with intervals, paired differences, and the forms that they are written in."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from text2video_zero.evaluation.measures import DOWN, Column
from text2video_zero.evaluation.pictures import save_plots, save_sheet
from text2video_zero.evaluation.report import Estimate, Row, Table
from text2video_zero.evaluation.study import Sample, load_strip, save_strip

SAMPLES = [Sample("a fox", number, 0, number) for number in range(40)]
COLUMNS = {
    "warp_error": Column("warp error", DOWN, "of 1000", 1000, 1),
    "speed": Column("speed", "", "pixels"),
    "never": Column("never", "", "measured"),
}


def table():
    """Two variants whose warp errors differ by 0.001 for each sample, however much samples differ."""
    rng = np.random.default_rng(0)
    hardness = rng.normal(0.05, 0.01, len(SAMPLES))
    rows = [Row("ours", s, {"warp_error": h - 0.001, "speed": 2.0}) for s, h in zip(SAMPLES, hardness, strict=True)]
    rows += [Row("paper", s, {"warp_error": h, "speed": np.nan}) for s, h in zip(SAMPLES, hardness, strict=True)]
    return Table.of(rows, COLUMNS)


class TestEstimate:
    def test_the_interval_holds_the_true_mean_about_as_often_as_it_says(self):
        rng = np.random.default_rng(1)
        found = [Estimate.of(list(rng.normal(3, 1, 30))) for _ in range(200)]
        assert np.mean([estimate.low <= 3 <= estimate.high for estimate in found]) == pytest.approx(0.94, abs=0.04)

    def test_is_the_same_each_time_and_leaves_out_what_has_no_answer(self):
        assert Estimate.of([1.0, 2.0, np.nan, 4.0]) == Estimate.of([1.0, 2.0, 4.0])
        assert Estimate.of([np.nan]).count == 0

    def test_is_written_with_the_factor_of_its_column(self):
        column = COLUMNS["warp_error"]
        assert Estimate(0.0123, 0.01, 0.02, 3).written(column) == "12.3 <sub>10.0…20.0</sub>"
        assert Estimate(0.0123, 0.01, 0.02, 3).written(column, signed=True) == "+12.3 <sub>+10.0…+20.0</sub>"
        assert Estimate(0.0123, 0.0123, 0.0123, 1).written(column) == "12.3"
        assert Estimate.of([]).written(column) == ""


class TestTable:
    def test_pairing_sees_a_small_difference_that_the_means_do_not(self):
        made = table()
        ours, paper = made.estimate("ours", "warp_error"), made.estimate("paper", "warp_error")
        assert ours.high > paper.low
        difference = made.difference("ours", "paper", "warp_error")
        assert (difference.mean, difference.high) == pytest.approx((-0.001, -0.001))

    def test_markdown_has_means_differences_and_what_the_columns_are(self):
        text = table().markdown("paper")
        assert text.startswith("| variant | warp error ↓ | speed |\n|---|---|---|\n| ours | ")
        assert "| ours | -1.0 <sub>-1.0…-1.0</sub> |  |" in text
        assert "* **speed**: pixels" in text
        assert "never" not in text

    def test_csv_has_every_clip(self, tmp_path):
        table().save_csv(tmp_path / "clips.csv")
        lines = list(csv.DictReader((tmp_path / "clips.csv").read_text(encoding="utf-8").splitlines()))
        assert len(lines) == 80
        assert lines[0]["variant"] == "ours"
        assert float(lines[40]["warp_error"]) - float(lines[0]["warp_error"]) == pytest.approx(0.001)

    def test_plots_are_pictures(self, tmp_path):
        pytest.importorskip("matplotlib")
        paths = save_plots(table(), tmp_path / "plots")
        assert [path.name for path in paths] == ["bars.png", "steadiness.png"]
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


class TestSheets:
    def test_a_strip_keeps_its_frames_without_loss(self, tmp_path):
        frames = np.random.default_rng(0).integers(0, 255, (5, 16, 24, 3)).astype(np.uint8)
        save_strip(frames, tmp_path / "a" / "strip.png")
        assert np.array_equal(load_strip(tmp_path / "a" / "strip.png"), frames)

    def test_a_sheet_has_the_rows_of_its_clips_below_their_names(self, tmp_path):
        red, blue = (np.full((3, 16, 16, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
        save_sheet({"red": red, "blue": blue[:2]}, tmp_path / "sheet.png")
        from PIL import Image

        sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
        assert sheet.shape == (2 * (18 + 16), 48, 3)
        assert (sheet[18:34] == (255, 0, 0)).all()
        assert (sheet[52:, :32] == (0, 0, 255)).all()
        assert (sheet[52:, 32:] == 255).all()

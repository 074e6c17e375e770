"""A whole evaluation with a tiny model, gone on with, and what is refused."""

from __future__ import annotations

import argparse
import json
from types import MappingProxyType

import numpy as np
import pytest

from text2video_zero.__main__ import main
from text2video_zero.errors import UserError
from text2video_zero.evaluation.command import add_options, evaluate, read_prompts, study_of
from text2video_zero.evaluation.measures import Column
from text2video_zero.evaluation.study import load_strip, measured_clip
from text2video_zero.evaluation.variants import SampledVariant, ablation, ken_burns, read_variant, static
from text2video_zero.events import Notice
from text2video_zero.media.settings import read_settings
from text2video_zero.requests.camera import CameraPose

TASK = "text-to-video"


def parsed(*argv):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args([str(word) for word in argv])


def test_fields_that_are_set_one_by_one_are_all_set():
    arguments = parsed("--prompt", "a fox", "--set", "steps=4", "zoom=0.04", "--set", "zoom=0.02", "--set", "fps=8")
    assert study_of(arguments).values == {"steps": 4, "zoom": 0.02, "fps": 8}
    assert not parsed().set


class Brightness:
    columns = MappingProxyType({"brightness": Column("brightness", "", "of 255")})

    def __call__(self, clip):
        return {"brightness": float(clip.frames.mean())}


@pytest.fixture(scope="module")
def options(tiny_checkpoint, tmp_path_factory):
    """A study of seconds: two prompts, two frames."""
    folder = tmp_path_factory.mktemp("study")
    return (
        *("--model", tiny_checkpoint, "--out", folder, "--prompt", "a fox/panda", "--prompt", "a cat"),
        *("--set", "steps=4", "frames=3", "motion_from=300", "motion_to=600"),
    )


@pytest.fixture(scope="module")
def finished(options, manager):
    arguments = parsed(*options)
    events = list(evaluate(arguments, manager))
    return study_of(arguments), events


class TestEvaluation:
    def test_every_variant_has_its_clips_and_the_controls_are_of_one_picture(self, finished):
        study, _ = finished
        strips = {v.name: load_strip(study.strip(v, study.samples[0])) for v in study.variants}
        assert list(strips) == ["static", "Ken Burns", "independent frames", "paper", "balanced"]
        first = strips["balanced"][0]
        assert np.array_equal(strips["static"], np.stack([first] * 3))
        assert np.array_equal(strips["Ken Burns"][0], first)
        assert not np.array_equal(strips["Ken Burns"][1], first)

    def test_videos_are_named_as_vbench_reads_them_and_carry_their_settings(self, finished):
        study, _ = finished
        videos = sorted(path.name for path in (study.folder / "videos" / "paper").iterdir())
        assert videos == ["a cat-0.mp4", "a fox panda-0.mp4"]
        settings = read_settings(study.folder / "videos" / "paper" / "a cat-0.mp4")
        assert (settings["request"]["resampling"], settings["request"]["seed"]) == ("nearest", 2)

    def test_the_report_has_a_row_for_each_variant_and_the_static_one_is_perfectly_steady(self, finished):
        study, _ = finished
        text = (study.folder / "report.md").read_text(encoding="utf-8")
        lines = {line.split(" | ")[0].strip("| "): line for line in reversed(text.splitlines()) if line.startswith("|")}
        assert {"static", "Ken Burns", "independent frames", "paper", "balanced"} <= set(lines)
        assert lines["static"].split(" | ")[1].startswith("0.0 ")
        assert len((study.folder / "clips.csv").read_text(encoding="utf-8").splitlines()) == 11
        assert len(list((study.folder / "sheets").iterdir())) == 2

    def test_going_on_draws_only_what_is_missing(self, finished, options, manager):
        study, _ = finished
        paper = next(variant for variant in study.variants if variant.name == "paper")
        lost, kept = (study.strip(paper, sample) for sample in study.samples)
        before, age = load_strip(lost), kept.stat().st_mtime_ns
        lost.unlink()
        events = list(evaluate(parsed(*options), manager))
        assert Notice("9 of 10 clips are there already.") in events
        assert np.array_equal(load_strip(lost), before)
        assert kept.stat().st_mtime_ns == age

    def test_a_run_that_was_cut_off_reports_what_is_whole_and_draws_nothing(self, finished, options, manager):
        study, _ = finished
        lost = study.strip(study.variants[-1], study.samples[1])
        kept = lost.rename(lost.with_suffix(".aside"))
        list(evaluate(parsed(*options, "--so-far"), manager))
        assert not lost.exists()
        assert "1 of 2 clips a row" in (study.folder / "report.md").read_text(encoding="utf-8")
        assert len((study.folder / "clips.csv").read_text(encoding="utf-8").splitlines()) == 6
        with pytest.raises(UserError, match=r"Nothing of this study is in .*: leave --so-far out"):
            list(evaluate(parsed(*options, "--variant", "other: steps=7", "--so-far"), manager))
        kept.rename(lost)

    def test_a_variant_can_be_added_and_none_changed(self, finished, options, manager):
        study, _ = finished
        list(evaluate(parsed(*options, "--variant", "slower: steps=5"), manager))
        assert "slower" in json.loads((study.folder / "study.json").read_text(encoding="utf-8"))["variants"]
        for change in (("--variant", "slower: steps=6"), ("--seeds", 2), ("--prompt", "a dog")):
            with pytest.raises(UserError, match=r"holds another study: name a new folder with --out\."):
                list(evaluate(parsed(*options, *change), manager))

    def test_further_measures_have_their_columns(self, finished, options, manager):
        study, _ = finished
        list(evaluate(parsed(*options), manager, [Brightness()]))
        assert "brightness" in (study.folder / "report.md").read_text(encoding="utf-8")

    def test_clips_know_their_camera(self, finished):
        study, _ = finished
        clip = measured_clip(study, study.variants[0], study.samples[0])
        assert [pose.x for pose in clip.poses] == pytest.approx([0, 12 / 512, 24 / 512])
        assert clip.source is None


def test_each_prompt_has_its_own_clip():
    study = study_of(parsed("--task", "edge", "--prompt", "a fox", "--prompt", "a cat", "--clips", "1.mp4", "2.mp4"))
    jobs = [study.job(study.variants[0], sample) for sample in study.samples]
    assert [(job.request.prompt, job.request.clip) for job in jobs] == [("a fox", "1.mp4"), ("a cat", "2.mp4")]


class TestVariants:
    def test_a_variant_is_read_from_its_line(self):
        variant = read_variant("no camera: paper pan_x=0 motion=no resampling=white", TASK)
        values = {"pan_x": 0, "motion": False, "resampling": "white"}
        assert variant == SampledVariant("no camera", "paper", values)
        quoted = {"sampler": "DPM++ 2M", "negative_prompt": "it's dark"}
        assert read_variant("a: sampler='DPM++ 2M' negative-prompt=\"it's dark\"", TASK).values == quoted
        assert read_variant("plain:", TASK) == SampledVariant("plain", "balanced", {})

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("steps=4", "is not of the form 'NAME: field=value'"),
            ("a: stpes=4", "'stpes=4' sets no field of text-to-video"),
            ("a: foreground_words=panda's", "has a quotation mark without its second: add it."),
            ("a: 4", "'4' sets no field of text-to-video"),
            ("a: seed=4", "'seed=4' cannot be set for a variant: give --first-seed and --seeds"),
            ("a: prompt=fox", "'prompt=fox' cannot be set for a variant: give --prompt or --prompts"),
            ("a: play-fps=24", "what is measured are the frames that are drawn"),
        ],
    )
    def test_what_is_no_variant_is_told(self, text, message):
        with pytest.raises(UserError, match=message):
            read_variant(text, TASK)

    def test_the_ablation_leaves_the_parts_out_one_by_one(self):
        rows = {v.name: v.values for v in ablation(TASK) if isinstance(v, SampledVariant)}
        assert rows["base"] == {"motion": False, "cross_frame_attention": False}
        assert rows["both"] == {}
        with pytest.raises(UserError, match="edge has no motion"):
            ablation("edge")

    def test_ken_burns_moves_the_first_frame_as_the_camera(self):
        picture = np.random.default_rng(0).integers(0, 255, (1, 16, 16, 3)).astype(np.uint8)
        frames = np.repeat(picture, 2, axis=0)
        moved = ken_burns(frames, [CameraPose(0, 0, 1, 0), CameraPose(4 / 16, 0, 1, 0)])
        assert np.array_equal(moved[1, :, :12], picture[0, :, 4:])
        assert np.array_equal(static(frames, []), frames)


class TestPrompts:
    def test_come_a_line_each_or_from_records(self, tmp_path):
        for name, text in (
            ("prompts.txt", "a fox\n\n  a cat \n"),
            ("fetv.json", '{"video_id": "1", "prompt": "a fox"}\n{"video_id": "2", "prompt": "a cat"}\n'),
            ("vbench.json", '[{"prompt_en": "a fox", "dimension": ["x"]}, {"prompt_en": "a cat"}]'),
        ):
            (tmp_path / name).write_text(text, encoding="utf-8")
            assert read_prompts(tmp_path / name) == ["a fox", "a cat"]

    @pytest.mark.parametrize("text", ["{", '{"text": "a fox"}', "[1]"])
    def test_what_has_none_is_told(self, tmp_path, text):
        (tmp_path / "other.json").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="cannot be read: give a text file with a prompt a line"):
            read_prompts(tmp_path / "other.json")


class TestMistakes:
    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            ((), "There is no prompt: give some with --prompt, or a file with --prompts."),
            (("--prompts", "no-such-file.txt"), "no-such-file.txt cannot be read"),
            (("--prompt", "a fox", "--seeds", "0"), "--seeds is 0: give a whole number from 1 on."),
            (("--prompt", "a fox", "--first-seed", "-1"), "--first-seed is -1: give a whole number from 0 on."),
            (("--prompt", "a fox", "--against", "theirs"), "There is no variant 'theirs'"),
            (("--prompt", "a fox", "--variant", "Paper: steps=4"), "Several variants are called 'Paper'"),
            (("--prompt", "a fox", "--set", "steps=1"), "--steps is 1, out of range"),
            (
                ("--prompt", "a fox", "--clips", "1.mp4"),
                "The task text-to-video begins with no clip: leave --clips out.",
            ),
            (
                ("--task", "edge", "--prompt", "a fox", "--clips", "1.mp4", "2.mp4"),
                "There are 2 clips for 1 prompts: give one for each prompt.",
            ),
            (("--prompt", "a fox", "--flow", "raft-small"), "The weights of raft-small are not on this machine"),
            (("--prompt", "a fox", "--clip-shows", "a cat"), "--clip-shows is of use with --clip-model and a task"),
        ],
    )
    def test_are_told_in_one_line(self, argv, message, capsys, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        assert main(["evaluate", "--device", "cpu", "--quiet", *argv]) == 2
        assert message in capsys.readouterr().err

"""A video that proves how it was made: what is as its settings make it, what is not, and what cannot be told."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.example_files import write_clip
from tests.media.clip_files import hung_decoder
from text2video_zero import __main__ as cli
from text2video_zero.errors import UserError
from text2video_zero.events import Progress
from text2video_zero.generators import result_of
from text2video_zero.media.clips import whole_clip
from text2video_zero.media.settings import read_settings
from text2video_zero.media.video import FORMATS, Video
from text2video_zero.verification import compared, job_again

SETTINGS = {"app": "text2video-zero", "version": "0.0.1", "task": "text-to-video", "request": {"prompt": "a fox"}}


@pytest.fixture
def video():
    frames = np.random.default_rng(0).integers(0, 255, (3, 7, 9, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    return Video(frames, 8, SETTINGS)


def verdict_on(path, video, within):
    return result_of(compared(path, video, within))


def with_frames(video, frames):
    return dataclasses.replace(video, frames=frames)


@pytest.mark.parametrize("form", FORMATS)
def test_what_encoding_loses_is_no_difference(video, form, tmp_path):
    path = video.save(tmp_path / f"video{form}")
    verdict = verdict_on(path, video, 0)
    assert verdict.sentence == f"video{form} is what its settings make: all 3 frames are equal bit for bit."
    assert verdict.holds


@pytest.mark.parametrize("form", FORMATS)
def test_a_square_painted_into_a_frame_is_found(video, form, tmp_path):
    frames = video.frames.copy()
    frames[1, 16:32, 16:32] = 255 - frames[1, 16:32, 16:32]
    verdict = verdict_on(with_frames(video, frames).save(tmp_path / f"video{form}"), video, 8)
    assert not verdict.holds
    assert f"video{form} is not what its settings make: they differ from frame " in verdict.sentence
    assert "It was made by version 0.0.1, this is " in verdict.sentence
    if form == ".zip":
        assert "from frame 1 on" in verdict.sentence


def test_a_small_difference_is_told_and_is_for_the_person_to_allow(video, tmp_path):
    frames = video.frames.copy()
    frames[2, 0, 0] = [level - 3 if level > 128 else level + 3 for level in frames[2, 0, 0].tolist()]
    path = with_frames(video, frames).save(tmp_path / "video.zip")
    assert verdict_on(path, video, 3).sentence.endswith("all 3 frames are equal within 3 of 255.")
    assert verdict_on(path, video, 3).holds
    assert not verdict_on(path, video, 2).holds


def test_comparing_can_be_stopped(video, tmp_path):
    with hung_decoder():
        begun = compared(video.save(tmp_path / "video.mp4"), video, 0)
        assert [next(begun) for _ in range(3)] == [Progress("Comparing", 0, 1)] * 3
        begun.close()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda video: with_frames(video, video.frames[:2]), "it has 2 frames of 72x56 at 8 per second, they make 3 "),
        (lambda video: with_frames(video, video.frames[:, :48]), "it has 3 frames of 72x48 at 8 "),
        (lambda video: dataclasses.replace(video, fps=4), "it has 3 frames of 72x56 at 4 per second, they make 3 "),
    ],
)
def test_other_frames_sizes_and_speeds_are_told(video, change, told, tmp_path):
    verdict = verdict_on(change(video).save(tmp_path / "video.mp4"), video, 0)
    assert told in verdict.sentence
    assert not verdict.holds


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_checkpoint):
    """A video that the command line has made."""
    path = tmp_path_factory.mktemp("made") / "fox.mp4"
    options = ["--steps", "4", "--frames", "2", "--motion-from", "300", "--motion-to", "600", "--device", "cpu"]
    command = ["text-to-video", "--prompt", "a red fox", "--seed", "3", "--model", str(tiny_checkpoint), *options]
    assert cli.main([*command, "--output", str(path), "--quiet"]) == 0
    return path


def again(made, path, **changes):
    """The same pictures with other settings in the file."""
    clip = result_of(whole_clip(made))
    return Video(clip.frames, int(clip.fps), read_settings(made) | changes).save(path)


def verified(path, model, capsys, *options):
    """The exit status, and the one line that is told."""
    capsys.readouterr()
    named = ["--model", str(model)] if model else []
    status = cli.main(["verify", str(path), *named, *options, "--device", "cpu", "--quiet"])
    printed = capsys.readouterr()
    said, silent = (printed.err, printed.out) if status == 2 else (printed.out, printed.err)
    assert silent == ""
    assert said.count("\n") == 1
    return status, said.strip()


def test_a_video_is_made_again_and_is_the_same(made, tiny_checkpoint, capsys):
    told = "fox.mp4 is what its settings make: all 2 frames are equal bit for bit."
    assert verified(made, tiny_checkpoint, capsys) == (0, told)


def test_settings_that_were_changed_make_another_video(made, tiny_checkpoint, capsys, tmp_path):
    request = read_settings(made)["request"] | {"seed": 4}
    status, told = verified(again(made, tmp_path / "fox.mp4", request=request), tiny_checkpoint, capsys)
    assert status == 1
    assert told.startswith("fox.mp4 is not what its settings make: they differ from frame 0 on, by up to ")


def test_other_weights_are_named_and_nothing_is_computed(made, tiny_checkpoint, capsys, tmp_path):
    status, told = verified(again(made, tmp_path / "fox.mp4", weights="0123456789"), tiny_checkpoint, capsys)
    assert status == 2
    assert f"have changed, they are {read_settings(made)['weights']} and fox.mp4 was made with 0123456789." in told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"model": "lost-model"},
            "fox.mp4 was made with the model 'lost-model', which is not here: put it into models/",
        ),
        ({"task": "video-to-song"}, "fox.mp4 does not tell by which task it was made"),
        ({"task": ["edge"]}, "fox.mp4 does not tell by which task it was made"),
    ],
)
def test_it_cannot_be_told_without_the_model_or_the_task(made, changes, told, capsys, tmp_path):
    status, said = verified(again(made, tmp_path / "fox.mp4", **changes), None, capsys)
    assert status == 2
    assert told in said


def test_nor_without_settings_or_a_file(video, capsys, tmp_path):
    bare = dataclasses.replace(video, settings={}).save(tmp_path / "bare.mp4")
    status, told = verified(bare, None, capsys)
    assert (status, told) == (2, "bare.mp4 carries no settings: choose a video that this app has saved with them.")
    assert verified(tmp_path / "none.mp4", None, capsys)[0] == 2
    assert "video.json is no video: give a file that ends in .mp4" in verified("video.json", None, capsys)[1]


def test_the_clip_is_looked_for_beside_the_video(video, tmp_path):
    settings = {"task": "edge", "model": "toyland", "request": {"prompt": "a fox", "clip": "clip.gif", "seed": 3}}
    path = dataclasses.replace(video, settings=settings).save(tmp_path / "video.mp4")
    with pytest.raises(
        UserError, match=r"video\.mp4 was made from 'clip\.gif': put that beside the video, or give --clip"
    ):
        job_again(path)
    clip = write_clip(tmp_path, "gif").rename(tmp_path / "clip.gif")
    assert job_again(path).request.clip == str(clip)
    elsewhere = clip.rename(tmp_path / "other.gif")
    assert job_again(path, elsewhere).request.clip == str(elsewhere)


def test_another_start_picture_is_named_and_nothing_is_computed(made, tiny_checkpoint, capsys, tmp_path):
    (tmp_path / "me.png").write_bytes(b"another one")
    asked = {**read_settings(made)["request"], "start_picture": "me.png"}
    path = again(made, tmp_path / "fox.mp4", request=asked, picture="0123456789")
    status, told = verified(path, tiny_checkpoint, capsys)
    assert status == 2
    assert "the start picture is another one (" in told
    assert told.rstrip().endswith("than fox.mp4 was made with (0123456789).")


@pytest.mark.parametrize("within", ["-1", "256"])
def test_levels_that_there_are_not_are_refused(made, tiny_checkpoint, capsys, within):
    status, told = verified(made, tiny_checkpoint, capsys, "--within", within)
    assert status == 2
    assert f"Argument --within: '{within}' is no whole number from 0 to 255" in told


def test_what_a_video_was_made_without_is_not_taken(made, tiny_checkpoint, capsys, tmp_path):
    for option, what in (("--clip", "clip"), ("--start-picture", "start picture")):
        status, told = verified(made, tiny_checkpoint, capsys, option, str(tmp_path / "other.mp4"))
        assert (status, told) == (2, f"fox.mp4 was made without a {what}: leave {option} out.")

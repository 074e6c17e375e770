"""Videos: what is written can be played and read back, and what cannot be written is told and leaves no trace."""

import errno
import functools
import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from tests.media.clip_files import described_video
from text2video_zero.errors import UserError
from text2video_zero.media import video as video_module
from text2video_zero.media.settings import read_settings
from text2video_zero.media.video import (
    FORMATS,
    Video,
    check_destination,
    check_frames_directory,
    probe_encoder,
    save_or_keep_frames,
)

AWKWARD = {
    "prompt": "a \"red\" 'panda'; x=1 # \\ 漢字 🐼\nnew\ttab\r\x00",
    "seed": 2**32 - 1,
    "pan_x": 0.0234,
    "size": None,
}

# Decibels on fine grain: below, its loss is seen; above, a file grows by what nobody sees. Two steps of CRF each.
FAITHFUL, WASTEFUL = 46.6, 48.0


def moving_square(frames: int = 5, height: int = 48, width: int = 64) -> np.ndarray:
    """(f, h, w, 3): an orange square on blue that moves to the right by two pixels a frame."""
    clip = np.full((frames, height, width, 3), (30, 60, 160), np.uint8)
    for index, frame in enumerate(clip):
        frame[8:24, 4 + 2 * index : 20 + 2 * index] = (230, 140, 40)
    return clip


@pytest.fixture
def clip() -> Video:
    return Video(moving_square(), 7, AWKWARD)


def decoded(path: Path) -> tuple[dict, np.ndarray]:
    """What PyAV says about a file, and its frames (f, h, w, 3) as ffmpeg shows them."""
    described = described_video(path)
    width, height = described["size"]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), *raw]
    shown = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return described, np.frombuffer(shown, np.uint8).reshape(-1, height, width, 3)


def psnr(seen: np.ndarray, meant: np.ndarray) -> float:
    """Decibels by which what is meant stands above what is wrong in what is seen."""
    return float(-20 * np.log10(np.sqrt(((seen.astype(float) - meant) ** 2).mean()) / 255))


def boxes(path: Path) -> list[str]:
    """Names of an MP4's top-level boxes, in order."""
    data, names, at = path.read_bytes(), [], 0
    while at < len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        names.append(name.decode())
        at += length
    return names


class TestRecord:
    @pytest.mark.parametrize(
        "frames",
        [
            moving_square().astype(np.float32),
            np.full((2, 8, 8, 3), np.nan),
            moving_square()[0],
            moving_square()[..., :1],
            moving_square()[:0],
            moving_square()[:, :0],
            moving_square().tolist(),
            None,
        ],
        ids=["float", "nan", "one picture", "grey", "no frames", "no rows", "list", "none"],
    )
    def test_frames_of_another_kind_are_a_bug_and_no_mistake_of_the_person(self, frames):
        with pytest.raises(ValueError, match="frames must be"):
            Video(frames, 8, {})

    @pytest.mark.parametrize("fps", [0, -1, 7.5, True, "8", None])
    def test_fps_is_a_whole_number_from_1(self, fps):
        with pytest.raises(ValueError, match="fps must be"):
            Video(moving_square(), fps, {})

    def test_it_can_be_sent_to_another_program(self, clip):
        copy = pickle.loads(pickle.dumps(clip))  # noqa: S301
        assert (copy.fps, copy.settings) == (clip.fps, clip.settings)
        assert np.array_equal(copy.frames, clip.frames)


class TestMp4:
    def test_plays_everywhere(self, clip, tmp_path):
        path = clip.save(tmp_path / "clip.mp4")
        described, frames = decoded(path)
        assert described["codec"] == "h264"
        assert described["colours"] == ("yuv420p", "tv", "bt709")
        assert described["fps"] == 7
        assert frames.shape == clip.frames.shape
        assert np.abs(frames.astype(int) - clip.frames).mean() < 3
        assert boxes(path).index("moov") < boxes(path).index("mdat")

    def test_compression_is_not_to_be_seen(self, tmp_path):
        """Fine detail of low contrast, which goes first: in brightness, for the colours have half the resolution."""
        rng = np.random.default_rng(0)
        grain = 120 + 6 * cv2.GaussianBlur(rng.normal(size=(128, 128)), (0, 0), 1) / 0.28
        clip = np.stack([np.roll(grain, 2 * number, axis=1) for number in range(4)]).round().astype(np.uint8)
        clip = clip[..., None].repeat(3, -1)
        _, frames = decoded(Video(clip, 8, {}).save(tmp_path / "grain.mp4"))
        assert FAITHFUL < psnr(frames, clip) < WASTEFUL

    @pytest.mark.parametrize("fps", [1, 3, 8, 23, 24, 30, 60])
    def test_fps_is_exact(self, fps, tmp_path):
        described, frames = decoded(Video(moving_square(4), fps, {}).save(tmp_path / "clip.mp4"))
        assert described["fps"] == fps
        assert len(frames) == 4
        assert described["duration"] == pytest.approx(4 / fps, abs=0.011)

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 8), (8, 7), (33, 47)])
    def test_odd_sides_are_padded_and_nothing_is_scaled(self, height, width, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
        frame = np.kron(noise, np.ones((4, 4, 1), np.uint8))[:height, :width]
        _, frames = decoded(Video(np.stack([frame] * 2), 8, {}).save(tmp_path / "odd.mp4"))
        assert frames.shape[1:3] == (height + height % 2, width + width % 2)
        # Brightness survives the halved resolution of the colours.
        assert np.abs(frames[0, :height, :width].mean(-1) - frame.mean(-1)).mean() < 12

    def test_one_frame(self, tmp_path):
        described, frames = decoded(Video(moving_square(1), 8, {}).save(tmp_path / "one.mp4"))
        assert len(frames) == 1
        assert described["fps"] == 8

    def test_views_of_a_larger_array_are_written_as_they_look(self, tmp_path):
        mirrored = Video(moving_square()[:, :, ::-1], 8, {})
        _, frames = decoded(mirrored.save(tmp_path / "mirrored.mp4"))
        assert np.abs(frames.astype(int) - mirrored.frames).mean() < 3


def delays(picture: Image.Image) -> list[tuple[np.ndarray, int]]:
    """The frames of an animation, (h, w, 3) int, and the milliseconds for which each is shown."""
    shown = []
    for index in range(picture.n_frames):
        picture.seek(index)
        shown.append((np.asarray(picture.convert("RGB")).astype(int), picture.info["duration"]))
    return shown


class TestWebm:
    def test_it_is_vp9_of_the_same_pictures_and_the_same_file_each_time(self, clip, tmp_path):
        paths = [clip.save(tmp_path / f"{number}.webm") for number in range(2)]
        assert paths[0].read_bytes() == paths[1].read_bytes()
        described, frames = decoded(paths[0])
        assert described["codec"] == "vp9"
        assert described["colours"] == ("yuv420p", "tv", "bt709")
        assert described["fps"] == 7
        assert frames.shape == clip.frames.shape
        assert np.abs(frames.astype(int) - clip.frames).mean() < 5


class TestGif:
    @pytest.mark.parametrize("fps", [1, 7, 8, 12, 30])
    def test_it_loops_and_keeps_its_length(self, fps, tmp_path):
        video = Video(moving_square(8), fps, {})
        with Image.open(video.save(tmp_path / "clip.gif")) as picture:
            assert (picture.n_frames, picture.info["loop"]) == (8, 0)
            shown = delays(picture)
        for (frame, _), expected in zip(shown, video.frames, strict=True):
            assert np.abs(frame - expected).mean() < 3
        assert sum(delay for _, delay in shown) == pytest.approx(8000 / fps, abs=5)

    def test_no_frame_is_faster_than_browsers_can_show(self, tmp_path):
        with Image.open(Video(moving_square(), 60, {}).save(tmp_path / "fast.gif")) as picture:
            assert [delay for _, delay in delays(picture)] == [20] * 5


class TestFrames:
    def test_zip_holds_the_very_pixels_and_the_settings(self, clip, tmp_path):
        with zipfile.ZipFile(clip.save(tmp_path / "clip.zip")) as archive:
            *names, last = archive.namelist()
            frames = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names]
            assert json.loads(archive.read(last)) == AWKWARD
        assert (names[0], last) == ("frame_0000.png", "settings.json")
        assert np.array_equal(np.stack(frames), clip.frames)

    def test_folder_of_png_is_made_and_holds_the_very_pixels(self, clip, tmp_path):
        paths = clip.save_frames(tmp_path / "new" / "frames")
        assert [path.name for path in paths] == [f"frame_{index:04d}.png" for index in range(5)]
        assert np.array_equal(np.stack([np.asarray(Image.open(path)) for path in paths]), clip.frames)
        assert sorted((tmp_path / "new" / "frames").iterdir()) == paths

    def test_the_last_frame_is_a_picture_of_its_own(self, clip, tmp_path):
        path = clip.save_last_frame(tmp_path / "last.png")
        assert np.array_equal(np.asarray(Image.open(path)), clip.frames[-1])
        assert sorted(tmp_path.iterdir()) == [path]

    def test_frames_of_two_videos_never_mix(self, clip, tmp_path):
        clip.save_frames(tmp_path)
        with pytest.raises(UserError, match="already holds frames"):
            Video(moving_square(2), 8, {}).save_frames(tmp_path)
        assert len(list(tmp_path.iterdir())) == 5


def broken_ffmpeg(folder: Path, script: str) -> str:
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


# Takes some of the frames, writes a part of the file that the last argument names, and gives up.
DIES_MID_WAY = 'head -c 1000 >/dev/null; for last; do :; done; printf partial > "$last"; echo "{message}" >&2; exit 1'


class TestFailures:
    @pytest.fixture
    def outputs(self, tmp_path) -> Path:
        (tmp_path / "outputs").mkdir()
        return tmp_path / "outputs"

    def test_unknown_suffixes_name_the_known_ones(self, clip, outputs):
        for name in ("clip.avi", "clip", ".mp4"):
            with pytest.raises(UserError, match=r"\.mp4, \.gif, \.webm or \.zip"):
                clip.save(outputs / name)
            with pytest.raises(UserError, match=r"\.mp4, \.gif, \.webm or \.zip"):
                check_destination(outputs / name)
        assert not list(outputs.iterdir())

    def test_missing_folders_are_made(self, clip, outputs):
        assert clip.save(outputs / "a" / "b" / "clip.zip").is_file()

    @pytest.mark.parametrize("suffix", FORMATS)
    def test_a_file_in_the_place_of_a_folder(self, clip, suffix, outputs):
        # Not a read-only folder, because root may write into one.
        (outputs / "file").write_text("here first")
        for path in (outputs / "file" / f"clip{suffix}", outputs / "file" / "deep" / f"clip{suffix}"):
            with pytest.raises(UserError, match="cannot be written, a part of its path is a file"):
                clip.save(path)
            with pytest.raises(UserError, match="cannot be written, a part of its path is a file"):
                check_destination(path)
        with pytest.raises(UserError, match="a part of its path is a file"):
            clip.save_frames(outputs / "file")
        assert (outputs / "file").read_text() == "here first"

    def test_a_folder_in_the_place_of_the_file(self, clip, outputs):
        (outputs / "clip.zip").mkdir()
        with pytest.raises(UserError, match="it is a folder"):
            clip.save(outputs / "clip.zip")
        with pytest.raises(UserError, match="it is a folder"):
            check_destination(outputs / "clip.zip")
        assert [path.name for path in outputs.iterdir()] == ["clip.zip"]

    def test_checking_leaves_nothing(self, outputs):
        check_destination(outputs / "clip.mp4")
        check_frames_directory(outputs)
        assert not list(outputs.iterdir())

    def test_encoder_dies_mid_way(self, clip, outputs, tmp_path, monkeypatch):
        (outputs / "clip.mp4").write_text("the old one")
        script = DIES_MID_WAY.format(message="Segmentation of the frames")
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", broken_ffmpeg(tmp_path, script))
        with pytest.raises(UserError, match=r"ffmpeg failed \(Segmentation of the frames\): install imageio-ffmpeg"):
            clip.save(outputs / "clip.mp4")
        assert [(path.name, path.read_text()) for path in outputs.iterdir()] == [("clip.mp4", "the old one")]

    def test_disk_fills_up_under_the_encoder(self, clip, outputs, tmp_path, monkeypatch):
        script = DIES_MID_WAY.format(message="av_interleaved_write_frame(): No space left on device")
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", broken_ffmpeg(tmp_path, script))
        with pytest.raises(UserError, match=r"clip\.mp4 cannot be written, the disk is full: free some space"):
            clip.save(outputs / "clip.mp4")
        assert not list(outputs.iterdir())

    @pytest.mark.parametrize("suffix", [".gif", ".zip"])
    def test_disk_fills_up_under_the_other_forms(self, clip, suffix, outputs, monkeypatch):
        def full(_, file, *__, **___):
            if isinstance(file, Path):
                file.write_bytes(b"partial")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Image.Image, "save", full)
        with pytest.raises(UserError, match="the disk is full"):
            clip.save(outputs / f"clip{suffix}")
        assert not list(outputs.iterdir())

    def test_stopped_while_writing(self, clip, outputs, monkeypatch):
        monkeypatch.setattr(zipfile.ZipFile, "writestr", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            clip.save(outputs / "clip.zip")
        assert not list(outputs.iterdir())

    def test_frames_are_kept_beside_a_video_that_fails(self, clip, outputs, tmp_path, monkeypatch):
        script = DIES_MID_WAY.format(message="out of luck")
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", broken_ffmpeg(tmp_path, script))
        with pytest.raises(UserError, match=r"out of luck.*The frames are kept in ") as raised:
            save_or_keep_frames(clip, outputs / "clip.mp4", print)
        (kept,) = outputs.iterdir()
        assert str(kept) in str(raised.value)
        assert read_settings(kept) == AWKWARD

    def test_frames_are_kept_elsewhere_when_the_folder_takes_nothing(self, clip, outputs, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        (outputs / "file").write_text("")
        with pytest.raises(UserError, match=rf"The frames are kept in {tmp_path}/clip-.*\.zip"):
            save_or_keep_frames(clip, outputs / "file" / "clip.mp4", print)

    def test_nothing_takes_anything(self, clip, monkeypatch):
        def full(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "mkdir", full)
        with pytest.raises(UserError, match="the disk is full"):
            save_or_keep_frames(clip, Path("clip.mp4"), print)

    @pytest.mark.parametrize(("fps", "told"), [(50, []), (60, ["fast.gif plays at 50 frames per second, a GIF's "])])
    def test_a_gif_that_plays_slower_is_told(self, fps, told, outputs):
        sentences = []
        save_or_keep_frames(Video(moving_square(), fps, {}), outputs / "fast.gif", sentences.append)
        assert [sentence[: len("fast.gif plays at 50 frames per second, a GIF's ")] for sentence in sentences] == told

    def test_saving_or_keeping_saves(self, clip, outputs):
        assert save_or_keep_frames(clip, outputs / "clip.mp4", print) == outputs / "clip.mp4"
        assert [path.name for path in outputs.iterdir()] == ["clip.mp4"]


class TestProbe:
    @pytest.fixture(autouse=True)
    def unremembered(self):
        probe_encoder.cache_clear()
        yield
        probe_encoder.cache_clear()

    def test_success_is_remembered(self, monkeypatch):
        probe_encoder()
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nonexistent/ffmpeg")
        probe_encoder()

    def test_failure_is_not(self, monkeypatch):
        with monkeypatch.context() as broken:
            broken.setenv("IMAGEIO_FFMPEG_EXE", "/nonexistent/ffmpeg")
            with pytest.raises(UserError, match=r"cannot be started .*install imageio-ffmpeg again"):
                probe_encoder()
        probe_encoder()

    def test_no_ffmpeg_at_all(self, monkeypatch):
        def absent() -> str:
            raise RuntimeError("No ffmpeg exe could be found.")

        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", absent)
        with pytest.raises(UserError, match=r"No ffmpeg exe could be found.*install imageio-ffmpeg again"):
            probe_encoder()

    def test_an_encoder_that_lies(self, monkeypatch):
        honest = video_module.run_ffmpeg

        @functools.wraps(honest)
        def black(arguments, stdin=b""):
            return bytes(len(honest(arguments, stdin)))

        monkeypatch.setattr(video_module, "run_ffmpeg", black)
        with pytest.raises(UserError, match="other pictures"):
            probe_encoder()


def test_neither_gradio_nor_torch_is_imported():
    program = "import sys, text2video_zero.media.video; print({'gradio', 'torch', 'diffusers'} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "set()"

"""Clips: whatever a person drops in is read at the right time, size and way up, or refused in one sentence."""

import errno
import math
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.media.clip_files import LOSSLESS, counting, ffmpeg, numbers, read, written
from text2video_zero.errors import UserError
from text2video_zero.generators import result_of
from text2video_zero.media import clips
from text2video_zero.media.clips import (
    SoundError,
    file_hash,
    fitted_size,
    glimpses,
    hashing,
    mux_audio,
    probe,
    reading,
    whole_clip,
)
from text2video_zero.media.frames import StoredFrames
from text2video_zero.media.settings import read_settings
from text2video_zero.media.video import Sound, Video, save_or_keep_frames
from text2video_zero.requests.fields import Size


class TestTime:
    def test_every_frame_comes_once_and_in_order(self, tmp_path):
        path = written(tmp_path / "clip.mp4", counting(12), 10, "-pix_fmt", "yuv420p", "-bf", "3")
        clip = read(path)
        assert numbers(clip.frames) == list(range(12))
        assert clip.fps == pytest.approx(10)

    @pytest.mark.parametrize(("first_frame", "frames"), [(0, 4), (3, 5), (11, 1), (9, 100)])
    def test_a_part_is_cut_out(self, first_frame, frames, tmp_path):
        path = written(tmp_path / "clip.mp4", counting(12), 10, *LOSSLESS)
        clip = read(path, first_frame=first_frame, frames=frames)
        assert numbers(clip.frames) == list(range(12))[first_frame : first_frame + frames]
        assert clip.start == pytest.approx(first_frame / 10)
        end = min(first_frame + frames, 12)
        assert clip.part == f"seconds {first_frame / 10:.1f} to {end / 10:.1f} of 1.2"

    @pytest.mark.parametrize("whole", [True, False])
    def test_a_full_disk_is_told(self, whole, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        path, size = Video(np.zeros((2, 64, 64, 3), np.uint8), 8, {}).save(tmp_path / "clip.mp4"), Size(64, 64)
        monkeypatch.setattr(StoredFrames, "append", full)
        part = reading(path, first_frame=0, frames=2, fps=8, size=size, native=size)
        with pytest.raises(UserError, match="the disk is full"):
            result_of(whole_clip(path) if whole else part)

    def test_of_a_whole_clip_no_part_is_told_and_of_pictures_their_numbers(self, tmp_path):
        assert not read(written(tmp_path / "clip.mp4", counting(12), 10, *LOSSLESS)).part
        folder = tmp_path / "pictures"
        Video(counting(5), 8, {}).save_frames(folder)
        assert not read(folder).part
        assert read(folder, first_frame=1, frames=3).part == "pictures 1 to 3 of 5"

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov", ".webm", ".ts"])
    @pytest.mark.parametrize("fps", [4, 5, 10, 12, 25])
    def test_resampled_frames_are_those_on_the_screen_at_that_time(self, suffix, fps, tmp_path):
        codec = {".webm": ("-c:v", "libvpx-vp9", "-lossless", "1"), ".avi": ("-c:v", "ffv1")}.get(suffix, LOSSLESS)
        path = written(tmp_path / f"clip{suffix}", counting(12), 10, *codec)
        clip = read(path, fps=fps)
        assert numbers(clip.frames) == [int(index * 10 / fps + 1e-6) for index in range(-(-12 * fps // 10))]
        assert clip.fps == fps

    def test_the_first_frame_is_counted_at_the_asked_rate(self, tmp_path):
        path = written(tmp_path / "clip.mp4", counting(12), 10, *LOSSLESS)
        clip = read(path, fps=5, first_frame=2, frames=3)
        assert numbers(clip.frames) == [4, 6, 8]
        assert clip.start == pytest.approx(0.4)

    def test_film_rates_keep_every_frame(self, tmp_path):
        path = written(tmp_path / "clip.mkv", counting(14), "24000/1001", *LOSSLESS)
        assert probe(path).fps == pytest.approx(23.976, abs=0.05)
        assert not probe(path).variable_rate  # mkv rounds its time stamps to milliseconds
        assert numbers(read(path).frames) == list(range(14))

    def test_variable_rates_are_sampled_by_time_stamps(self, tmp_path):
        # Frames 0..3 at 10 per second, then 4, 8 and 12 alone, each four times as long.
        path = written(
            tmp_path / "clip.mp4",
            counting(16 - 1),
            10,
            "-vf",
            "select='lt(n,4)+not(mod(n,4))'",
            "-fps_mode",
            "vfr",
            *LOSSLESS,
        )
        info = probe(path)
        assert info.variable_rate
        assert info.frames == 7
        assert numbers(read(path, fps=10).frames)[:13] == [0, 1, 2, 3, 4, 4, 4, 4, 8, 8, 8, 8, 12]
        assert numbers(read(path, fps=5).frames)[:7] == [0, 2, 4, 4, 8, 8, 12]
        clip = read(path)
        assert clip.fps == pytest.approx(info.fps)
        assert len(clip.frames) == 7

    def test_frames_that_an_edit_list_hides_stay_hidden(self, tmp_path):
        whole = written(tmp_path / "whole.mp4", counting(12), 10, *LOSSLESS, "-g", "12")
        ffmpeg("-ss", "0.5", "-i", whole, "-c", "copy", tmp_path / "cut.mp4")
        assert probe(tmp_path / "cut.mp4").frames == 7
        assert numbers(read(tmp_path / "cut.mp4").frames) == list(range(5, 12))

    def test_a_first_frame_behind_the_end_is_told(self, tmp_path):
        path = written(tmp_path / "clip.mp4", counting(12), 10, *LOSSLESS)
        with pytest.raises(UserError, match=r"First frame is 12, but the clip has only 12 frames at 10 .* 0 to 11\.$"):
            read(path, first_frame=12)

    def test_a_clip_that_ends_early_is_told(self, tmp_path):
        path = written(tmp_path / "clip.mp4", counting(12), 10, *LOSSLESS)
        assert read(path, first_frame=8, frames=8).note.endswith("the clip ends after 4 of 8 frames")
        assert "ends" not in read(path, frames=12).note


class TestGlimpses:
    """A few frames of the part that was read, at the clip's own size."""

    @pytest.mark.parametrize("changes", [{}, {"first_frame": 3}, {"frames": 2}, {"fps": 5.0}, {"fps": 25.0}])
    def test_they_are_spread_over_the_part_that_was_read(self, changes, tmp_path):
        path = written(tmp_path / "clip.mp4", counting(14, 50, 66), 10, *LOSSLESS)
        clip = read(path, size=Size(64, 48), **changes)
        looking = glimpses(path, clip, changes.get("first_frame", 0), 4)
        seen = [frame.copy() for frame in looking if frame is not None]
        assert all(frame.shape == (50, 66, 3) for frame in seen)
        count = min(4, len(clip.frames))
        spread = np.linspace(0, len(clip.frames) - 1, count).round().astype(int)
        assert numbers(seen) == [numbers(clip.frames)[index] for index in spread]

    def test_of_pictures_too(self, tmp_path):
        for index, frame in enumerate(counting(9, 50, 66)):
            Image.fromarray(frame).save(tmp_path / f"{index}.png")
        clip = read(tmp_path, size=Size(64, 48), first_frame=2)
        seen = [frame for frame in glimpses(tmp_path, clip, 2, 3) if frame is not None]
        assert numbers(seen) == [2, 5, 8]

    def test_whoever_has_seen_enough_stops_the_reading(self, tmp_path):
        path = written(tmp_path / "clip.mp4", counting(14), 10, *LOSSLESS)
        looking = glimpses(path, read(path), 0, 4)
        next(looking)
        looking.close()
        assert not list(looking)


class TestPicture:
    @pytest.mark.parametrize(
        ("shown", "native", "fitted"),
        [
            ((480, 270), (512, 512), (680, 384)),
            ((1920, 1080), (512, 512), (680, 384)),
            ((1080, 1920), (512, 512), (384, 680)),
            ((512, 512), (512, 512), (512, 512)),
            ((65, 49), (128, 128), (144, 112)),
            ((4000, 10), (512, 512), (2048, 64)),
            ((10, 4000), (512, 512), (64, 2048)),
        ],
    )
    def test_the_fitted_size_keeps_proportions_and_area(self, shown, native, fitted):
        assert fitted_size(*shown, Size(*native)) == fitted

    @pytest.mark.parametrize("shape", [(49, 65), (33, 127), (1, 1), (270, 480)])
    def test_odd_sizes_work_and_the_rounding_is_said(self, shape, tmp_path):
        path = written(tmp_path / "odd.mkv", counting(2, *shape), 10, "-c:v", "ffv1")
        clip = read(path)
        height, width = clip.frames.shape[1:3]
        assert (width, height) == clip.size
        assert width % 8 == height % 8 == 0
        assert clip.note.startswith(f"{shape[1]}x{shape[0]} -> {clip.size}")

    def test_what_fits_is_neither_changed_nor_noted(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), np.uint8)
        clip = read(written(tmp_path / "clip.mkv", noise, 10, "-c:v", "ffv1"), size=Size(64, 48), frames=2)
        assert np.array_equal(clip.frames, noise)
        assert clip.note == ""

    def test_proportions_are_kept_and_the_middle_is_cut_out(self, tmp_path):
        frame = np.zeros((48, 96, 3), np.uint8)
        frame[:, 24:72] = 200
        path = written(tmp_path / "wide.mkv", np.stack([frame] * 2), 10, "-c:v", "ffv1")
        clip = read(path, size=Size(96, 96), frames=2)
        assert clip.frames[:, :, 3:-3].min() > 190
        assert clip.note == "96x48 -> 96x96, 50% cropped at left and right"

    def test_sizes_that_are_no_multiples_of_8_are_a_bug(self, tmp_path):
        path = written(tmp_path / "clip.mkv", counting(1), 10, "-c:v", "ffv1")
        with pytest.raises(ValueError, match="multiples of 8"):
            read(path, size=Size(60, 64))

    @pytest.mark.parametrize(
        ("degrees", "corner"), [(0, "top left"), (90, "bottom left"), (180, "bottom right"), (270, "top right")]
    )
    def test_rotated_clips_stand_upright(self, degrees, corner, tmp_path):
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[:16, :16] = (220, 40, 40)
        flat = written(tmp_path / "flat.mp4", np.stack([frame] * 3), 10, *LOSSLESS)
        path = tmp_path / "turned.mp4"
        ffmpeg("-display_rotation", degrees, "-i", flat, "-c", "copy", path)
        info = probe(path)
        assert info.size == ((64, 48) if degrees % 180 == 0 else (48, 64))
        assert info.rotation % 360 == degrees
        seen = read(path, size=info.size).frames[0]
        rows = slice(2, 12) if "top" in corner else slice(-12, -2)
        columns = slice(2, 12) if "left" in corner else slice(-12, -2)
        assert np.abs(seen[rows, columns].astype(int) - (220, 40, 40)).max() < 12
        assert (seen.max(-1) > 128).mean() == pytest.approx(256 / (48 * 64), abs=0.02)

    def test_oblong_pixels_are_shown_square(self, tmp_path):
        path = written(tmp_path / "dv.mp4", counting(2), 10, *LOSSLESS, "-vf", "setsar=2/1")
        assert probe(path).size == (128, 48)

    @pytest.mark.parametrize(
        ("name", "codec"),
        [
            ("a.mov", ("-c:v", "qtrle")),
            ("a.webm", ("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p")),
            ("a.apng", ("-f", "apng", "-plays", "0")),
            ("a.gif", ("-filter_complex", "[0]split[a][b];[a]palettegen[p];[b][p]paletteuse")),
        ],
    )
    def test_transparent_parts_are_black(self, name, codec, tmp_path):
        frames = np.zeros((3, 48, 64, 4), np.uint8)
        frames[..., :3] = 255
        frames[:, :, :32, 3] = 255
        path = written(tmp_path / name, frames, 10, *codec)
        assert probe(path).transparent
        clip = read(path, size=Size(64, 48))
        assert clip.frames[:, :, :28].min() > 235
        assert clip.frames[:, :, 36:].max() < 15

    def test_colours_survive_the_way_through_a_video_of_ours(self, tmp_path):
        colours = np.array([(200, 40, 40), (40, 180, 60), (40, 60, 200), (230, 220, 60)], np.uint8)
        frame = np.repeat(np.repeat(colours.reshape(2, 2, 3), 32, 0), 32, 1)
        clip = read(Video(np.stack([frame] * 2), 8, {}).save(tmp_path / "clip.mp4"), size=Size(64, 64))
        assert np.abs(clip.frames[0, 8:24, 8:24].astype(int) - colours[0]).max() < 8
        assert np.abs(clip.frames[0, 40:56, 40:56].astype(int) - colours[3]).max() < 8


class TestKinds:
    def test_gif(self, tmp_path):
        frames = counting(5)
        path = Video(frames, 10, {}).save(tmp_path / "clip.gif")
        assert probe(path).frames == 5
        assert probe(path).fps == pytest.approx(10)
        assert numbers(read(path).frames) == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
    def test_animated_pictures_of_uneven_speed(self, suffix, tmp_path):
        first, *others = (Image.fromarray(frame) for frame in counting(4))
        path = tmp_path / f"clip{suffix}"
        first.save(path, save_all=True, append_images=others, duration=[100, 200, 100, 300], lossless=True)
        info = probe(path)
        assert (info.frames, info.variable_rate) == (4, True)
        assert info.duration == pytest.approx(0.7)
        assert numbers(read(path, fps=10).frames) == [0, 1, 1, 2, 3, 3, 3]

    def test_the_name_does_not_decide(self, tmp_path):
        path = Video(counting(3), 10, {}).save(tmp_path / "clip.gif")
        renamed = path.rename(tmp_path / "-clip; 'of' 100%d.mp4")
        assert numbers(read(renamed).frames) == [0, 1, 2]

    def test_one_frame(self, tmp_path):
        path = written(tmp_path / "one.mp4", counting(1), 10, *LOSSLESS)
        assert probe(path).frames == 1
        clip = read(path, fps=8)
        assert numbers(clip.frames) == [0]
        assert clip.fps == 8

    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff"])
    def test_a_still_is_a_clip_of_one_frame(self, suffix, tmp_path):
        Image.fromarray(counting(4)[3]).save(tmp_path / f"still{suffix}")
        clip = read(tmp_path / f"still{suffix}", fps=12)
        assert numbers(clip.frames) == [3]
        assert clip.fps == 12
        assert probe(tmp_path / f"still{suffix}").frames == 1

    def test_a_photo_stands_upright_as_its_camera_says(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # turned by a quarter
        Image.fromarray(counting(1)[0]).save(tmp_path / "photo.jpg", exif=exif)
        assert probe(tmp_path / "photo.jpg").size == (48, 64)

    def test_pictures_with_transparency_or_16_bits(self, tmp_path):
        glass = np.full((64, 64, 4), 255, np.uint8)
        glass[:, 32:, 3] = 0
        Image.fromarray(glass).save(tmp_path / "glass.png")
        seen = read(tmp_path / "glass.png").frames[0]
        assert seen[:, :28].min() == 255
        assert seen[:, 36:].max() == 0
        depth = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(64, 0)
        Image.fromarray(depth).save(tmp_path / "depth.png")
        assert np.array_equal(read(tmp_path / "depth.png").frames[0, 0, :, 0], depth[0] >> 8)

    def test_folders_and_zips_are_read_in_the_order_of_their_numbers(self, tmp_path):
        folder = tmp_path / "frames"
        folder.mkdir()
        with zipfile.ZipFile(tmp_path / "frames.zip", "w") as archive:
            for index, frame in enumerate(counting(12)):
                Image.fromarray(frame).save(folder / f"f{index}.png")
                archive.write(folder / f"f{index}.png", f"inside/f{index}.png")
            archive.writestr("__MACOSX/._f0.png", b"not a picture")
            archive.writestr("settings.json", "{}")
        (folder / "notes.txt").write_text("not a picture")
        for path in (folder, tmp_path / "frames.zip"):
            assert probe(path).frames == 12
            clip = read(path, first_frame=2, frames=9, fps=24)
            assert numbers(clip.frames) == list(range(2, 11))
            assert clip.fps == 24

    def test_pictures_of_other_sizes_are_fitted_to_the_first(self, tmp_path):
        Image.fromarray(counting(1, 64, 64)[0]).save(tmp_path / "1.png")
        Image.fromarray(counting(2, 32, 128)[1]).save(tmp_path / "2.png")
        assert numbers(read(tmp_path).frames) == [0, 1]

    def test_the_app_reads_its_own_zip(self, tmp_path):
        path = Video(counting(3), 8, {"prompt": "x"}).save(tmp_path / "video.zip")
        assert numbers(read(path).frames) == [0, 1, 2]


class TestMistakes:
    @pytest.mark.parametrize(
        ("name", "content", "sentence"),
        [
            ("empty.mp4", b"", "is empty"),
            ("noise.mp4", bytes(np.random.default_rng(0).integers(0, 256, 9999, np.uint8)), "cannot be read"),
            ("notes.txt", b"hello, world", "cannot be read"),
            (
                "list.mp4",
                b"ffconcat version 1.0\nfile clip.mp4\n",
                r"cannot be read \(a kind of file that is not read\)",
            ),
            ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\nclip.mp4\n#EXT-X-ENDLIST\n", "cannot be read"),
            ("broken.png", b"\x89PNG\r\n\x1a\n" + bytes(64), "cannot be read"),
            ("broken.zip", b"PK\x05\x06" + bytes(18), "holds no pictures"),
        ],
    )
    def test_one_sentence_for_what_cannot_be_read(self, name, content, sentence, tmp_path):
        written(tmp_path / "clip.mp4", counting(2), 10, *LOSSLESS)
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=sentence) as told:
            read(tmp_path / name)
        assert name in str(told.value)
        assert str(told.value).endswith(".")
        assert str(tmp_path) not in str(told.value)
        assert "\n" not in str(told.value)

    def test_missing_clips_and_empty_folders(self, tmp_path):
        with pytest.raises(UserError, match=r"There is no file gone\.mp4: check the name\."):
            probe(tmp_path / "gone.mp4")
        with pytest.raises(UserError, match=r"The folder .* holds no pictures"):
            probe(tmp_path)

    def test_sound_without_a_picture(self, tmp_path):
        ffmpeg("-f", "lavfi", "-i", "sine=duration=1", tmp_path / "song.m4a")
        with pytest.raises(UserError, match=r"The clip song\.m4a holds no picture"):
            probe(tmp_path / "song.m4a")

    def test_a_video_whose_index_is_cut_off(self, tmp_path):
        path = written(tmp_path / "clip.mp4", counting(12), 10, *LOSSLESS)
        path.write_bytes(path.read_bytes().split(b"moov")[0])
        with pytest.raises(UserError, match=r"cannot be read \(moov atom not found\)"):
            probe(path)

    def test_what_half_a_video_still_holds_is_read_and_its_end_told(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8)
        path = written(tmp_path / "clip.mp4", noise, 10, *LOSSLESS, "-movflags", "+faststart", "-g", "1")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        clip = read(path, size=Size(64, 48), frames=12)
        assert 1 <= len(clip.frames) < 12
        assert np.abs(clip.frames[0].astype(int) - noise[0]).mean() < 3
        assert "the clip is damaged" in clip.note

    def test_frames_that_cannot_be_decoded_are_told(self, tmp_path):
        path = written(tmp_path / "clip.mov", counting(12), 10, "-c:v", "png")
        content = bytearray(path.read_bytes())
        at = [place for place in range(len(content)) if content[place : place + 4] == b"IHDR"][5]
        content[at : at + 30] = bytes(30)
        path.write_bytes(content)
        assert read(path).note.endswith("the clip is damaged, only 11 of 12 frames could be read")

    def test_a_damaged_picture_names_itself(self, tmp_path):
        for index, frame in enumerate(counting(3)):
            Image.fromarray(frame).save(tmp_path / f"{index}.png")
        (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
        with pytest.raises(UserError, match=r"The picture 1\.png cannot be read"):
            read(tmp_path)


class TestMemory:
    @pytest.mark.parametrize("kind", ["video", "zip"])
    def test_the_clip_is_never_in_memory_at_full_size(self, kind, tmp_path):
        full = 1280 * 720 * 3
        if kind == "video":
            path = tmp_path / "large.mp4"
            ffmpeg("-f", "lavfi", "-i", "testsrc=size=1280x720:rate=10:duration=3", "-preset", "ultrafast", path)
        else:
            path = tmp_path / "large.zip"
            Video(np.zeros((12, 720, 1280, 3), np.uint8), 8, {}).save(path)
        probe(path)
        tracemalloc.start()
        clip = read(path, frames=30)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(clip.frames) >= 12
        # A video is scaled before it comes here; of pictures, one at a time is at full size.
        assert peak < {"video": 0.5, "zip": 3}[kind] * full


class TestHash:
    def test_it_follows_the_content_and_not_the_name(self, tmp_path):
        one = Video(counting(2), 8, {}).save(tmp_path / "one.gif")
        other = Video(counting(3), 8, {}).save(tmp_path / "other.gif")
        before = file_hash(one)
        assert before != file_hash(other)
        assert before == file_hash(one.rename(tmp_path / "renamed.gif"))

    def test_it_pauses_so_that_it_can_be_stopped_whatever_the_length(self, tmp_path, monkeypatch):
        path = Video(counting(2), 8, {}).save(tmp_path / "one.gif")
        whole = file_hash(path)
        monkeypatch.setattr(clips, "HASHED_AT_A_TIME", 50)
        assert file_hash(path) == whole
        assert len(list(hashing(path))) == math.ceil(path.stat().st_size / 50)

    def test_of_a_folder_it_follows_every_picture(self, tmp_path):
        for index, frame in enumerate(counting(2)):
            Image.fromarray(frame).save(tmp_path / f"{index}.png")
        before = file_hash(tmp_path)
        (tmp_path / "notes.txt").write_text("nothing")
        assert file_hash(tmp_path) == before
        Image.fromarray(counting(1)[0] + 1).save(tmp_path / "1.png")
        assert file_hash(tmp_path) != before


class TestSound:
    @pytest.fixture
    def loud(self, tmp_path):
        """Two seconds: silence, then a tone from the first second on."""
        path = tmp_path / "loud.mp4"
        ffmpeg(
            *("-f", "lavfi", "-i", "color=red:size=64x48:rate=10:duration=2"),
            *("-f", "lavfi", "-i", "aevalsrc='0.5*sin(2000*t)*gte(t,1)':d=2", "-shortest", path),
        )
        return path

    def loudness(self, path: Path) -> np.ndarray:
        """Loudness per tenth of a second."""
        ffmpeg("-i", path, "-ac", "1", "-ar", "8000", "-f", "f32le", path.with_suffix(".pcm"))
        samples = np.fromfile(path.with_suffix(".pcm"), np.float32)
        return np.sqrt(np.square(samples[: len(samples) // 800 * 800]).reshape(-1, 800).mean(1))

    @pytest.mark.parametrize(("start", "silent"), [(0.0, 10), (0.6, 4), (1.2, 0)])
    def test_the_clips_sound_goes_under_the_video_from_the_first_frame_on(self, start, silent, loud, tmp_path):
        video = Video(counting(6), 8, {"prompt": "x = 漢"}).save(tmp_path / "video.mp4")
        pictures = read(video).frames
        assert mux_audio(video, loud, start) == video
        heard = self.loudness(video)
        assert len(heard) == pytest.approx(7.5, abs=1)
        assert (heard[: max(0, silent - 1)] < 0.05).all()
        assert (heard[silent + 1 : 6] > 0.2).all()
        assert np.array_equal(read(video).frames, pictures)
        assert read_settings(video) == {"prompt": "x = 漢"}
        assert probe(video).duration == pytest.approx(0.75)
        assert not list(tmp_path.glob(".*"))

    def test_clips_without_sound_change_nothing(self, tmp_path):
        video = Video(counting(6), 8, {}).save(tmp_path / "video.mp4")
        before = video.read_bytes()
        silent = Video(counting(2), 8, {}).save(tmp_path / "silent.gif")
        assert mux_audio(video, silent) == video
        assert video.read_bytes() == before

    def test_a_sound_that_cannot_be_read_is_told_and_leaves_a_silent_video(self, loud, tmp_path):
        video = Video(counting(4), 8, {}, Sound(tmp_path / "gone.mp4"))
        told = []
        path = save_or_keep_frames(video, tmp_path / "video.mp4", told.append)
        assert told == ["The sound of gone.mp4 cannot be read: the video is silent."]
        assert not probe(path).has_audio
        assert len(read(path).frames) == 4
        heard = save_or_keep_frames(replace(video, sound=Sound(loud)), tmp_path / "heard.mp4", told.append)
        assert probe(heard).has_audio
        assert len(told) == 1

    def test_one_that_breaks_off_in_the_middle_is_no_fault_of_the_encoder(self, tmp_path, monkeypatch):
        """ffmpeg names the file that it cannot decode; the advice to install it anew would be wrong."""
        video = Video(counting(4), 8, {}).save(tmp_path / "video.mp4")
        before = video.read_bytes()
        monkeypatch.setattr(clips, "probe", lambda path: replace(probe(path), has_audio=True))
        silent = Video(counting(4), 8, {}).save(tmp_path / "silent.mp4")  # no sound where some is said to be
        with pytest.raises(SoundError, match=r"The sound of silent\.mp4 cannot be read"):
            mux_audio(video, silent)
        assert video.read_bytes() == before

    def test_other_kinds_of_video_are_told(self, loud, tmp_path):
        video = Video(counting(2), 8, {}).save(tmp_path / "video.gif")
        with pytest.raises(UserError, match=r"video\.gif cannot carry the clip's sound: save the video as \.mp4"):
            mux_audio(video, loud)

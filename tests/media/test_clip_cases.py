"""Clips as cameras, phones and broadcasters write them: the right frames at the right times, in the right colours."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.media.clip_files import CASES, LOSSLESS, counting, numbers, read, written
from text2video_zero.generators import result_of
from text2video_zero.media.clip_reader import ClipReader
from text2video_zero.media.clips import probe
from text2video_zero.requests.fields import Size

CHART = np.array([(200, 40, 40), (40, 180, 60), (40, 60, 200), (230, 220, 60), (128, 128, 128), (235, 235, 235)])


def shown(name: str, **changes):
    """Numbers of the frames of a case, whose frame k has the brightness 8(k + 1)."""
    return [round(float(frame.mean()) / 8) - 1 for frame in read(CASES / name, size=Size(128, 96), **changes).frames]


def chart(frame: np.ndarray) -> np.ndarray:
    """The six colours (6, 3) of a colour chart of 2 rows by 3."""
    rows, columns = (
        np.array_split(np.arange(side), parts) for side, parts in zip(frame.shape[:2], (2, 3), strict=True)
    )
    middles = [frame[row[8:-8]][:, column[8:-8]] for row in rows for column in columns]
    return np.array([middle.reshape(-1, 3).mean(0) for middle in middles])


class TestTime:
    @pytest.mark.parametrize("name", ["h264.avi", "xvid.avi"])
    def test_b_frames_in_avi(self, name):
        assert probe(CASES / name).fps == 25
        assert shown(name, fps=8) == [0, 3, 6, 9, 12, 15, 18, 21]
        assert shown(name) == list(range(24))

    @pytest.mark.parametrize("name", ["cam.mpg", "dvd.vob", "es.m2v"])
    def test_mpeg_of_cameras_and_discs(self, name):
        info = probe(CASES / name)
        assert (info.frames, info.fps) == (24, 25)
        assert info.duration == pytest.approx(0.96)
        assert shown(name) == list(range(24))
        assert shown(name, fps=8) == [0, 3, 6, 9, 12, 15, 18, 21]

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi", ".mpg"])
    def test_far_into_a_long_clip_it_is_sought_and_the_frames_are_the_same(self, suffix, tmp_path):
        """An hour would be no different: what is read hangs on the distance of key frames."""
        codec = ("-c:v", "mpeg2video", "-q:v", "1") if suffix == ".mpg" else ("-c:v", "libx264", "-qp", "0", "-bf", "2")
        frames = np.concatenate([counting(12)] * 60)
        path = written(tmp_path / f"long{suffix}", frames, 24, *codec, "-g", "24", "-pix_fmt", "yuv420p")
        for rate in (24, 8):
            first = 25 * rate
            with ClipReader(path) as reader:
                info = result_of(reader.opening())
                listed = reader.packets
                pictures = reader.reading(range(first, first + 4), rate, Size(64, 48))
                seen = numbers([picture for picture in pictures if picture is not None])
                assert reader.packets - listed < 150
            assert seen == [24 // rate * number % 12 for number in range(4)]
        assert info.frames == 720

    def test_a_recording_that_begins_between_key_frames_begins_at_the_next(self, tmp_path):
        whole = written(tmp_path / "whole.ts", counting(14), 10, *LOSSLESS, "-g", "7", "-bf", "2")
        content = whole.read_bytes()
        packets = [content[at : at + 188] for at in range(0, len(content), 188)]
        # Packets of the picture stream, 0x100, that begin a frame.
        frames = [number for number, one in enumerate(packets) if one[1] & 0x5F == 0x41 and one[2] == 0]
        (tmp_path / "cut.ts").write_bytes(b"".join(packets[: frames[0]] + packets[frames[3] :]))
        clip = read(tmp_path / "cut.ts")
        assert numbers(clip.frames) == list(range(7, 14))
        assert "damaged" not in clip.note

    def test_opening_reads_no_more_of_a_long_clip_than_its_beginning(self, tmp_path):
        frames = np.concatenate([counting(12, 16, 16)] * 250)
        path = written(tmp_path / "long.mp4", frames, 24, *LOSSLESS)
        with ClipReader(path) as reader:
            info = result_of(reader.opening())
            assert reader.packets <= 2000
        assert (info.frames, info.fps, info.estimated) == (3000, 24, True)
        assert info.duration == pytest.approx(125)
        assert numbers(read(path, first_frame=2998).frames) == [10, 11]


class TestPicture:
    def test_photos_of_phones_are_put_together_from_their_tiles(self):
        truth = np.asarray(Image.open(CASES / "iphone_true.png").convert("RGB")).astype(int)
        clip = read(CASES / "iphone.heic", size=Size(512, 384))
        assert clip.frames.shape == (1, 384, 512, 3)
        assert np.abs(clip.frames[0] - truth).max() < 8

    def test_animated_avif(self):
        assert probe(CASES / "anim.avif").frames == 24
        assert shown("anim.avif") == list(range(24))

    @pytest.mark.parametrize("name", ["sdr.mp4", "hlg.mov", "pq.mov"])
    def test_hdr_has_the_colours_that_a_screen_shows(self, name):
        clip = read(CASES / name, size=Size(128, 96), frames=2)
        assert np.abs(chart(clip.frames[0]) - CHART).mean() < 3
        assert ("HDR" in clip.note) == (name != "sdr.mp4")

    def test_interlaced_clips_have_no_comb_teeth(self):
        clip = read(CASES / "pal50i.mts", size=Size(720, 576), frames=4)
        twin = read(CASES / "pal50.mp4", size=Size(720, 576), frames=4)
        edges, right = (
            cv2.Canny(cv2.cvtColor(one.frames[2], cv2.COLOR_RGB2GRAY), 100, 200).astype(bool).sum()
            for one in (clip, twin)
        )
        assert edges < 1.1 * right
        assert "deinterlaced" in clip.note
        assert "deinterlaced" not in twin.note

    def test_untagged_hd_is_taken_as_players_take_it(self, tmp_path):
        frame = np.repeat(np.repeat(CHART.reshape(2, 3, 3).astype(np.uint8), 360, 0), 427, 1)[:, :1280]
        frames = np.stack([frame] * 2)
        path = written(tmp_path / "hd.mp4", frames, 8, "-vf", "scale=out_color_matrix=bt709", "-pix_fmt", "yuv420p")
        seen = read(path, size=Size(1280, 720)).frames[0]
        assert np.abs(chart(seen) - CHART).max() < 6

    def test_a_photo_has_the_colours_that_its_profile_describes(self, tmp_path):
        """The profile of a screen whose red and blue have changed places, under another name."""
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        for old, new in ((b"rXYZ", b"????"), (b"bXYZ", b"rXYZ"), (b"????", b"bXYZ")):
            profile = profile.replace(old, new)
        profile = profile.replace("sRGB".encode("utf-16-be"), "else".encode("utf-16-be"))
        red = Image.new("RGB", (64, 64), (255, 0, 0))
        red.save(tmp_path / "photo.png", icc_profile=profile)
        red.save(tmp_path / "broken.png", icc_profile=profile[:200])
        assert np.abs(read(tmp_path / "photo.png").frames[0].astype(int) - (0, 0, 255)).max() < 8
        assert np.array_equal(read(tmp_path / "broken.png").frames[0, 0, 0], (255, 0, 0))


class TestNames:
    def test_tags_of_an_old_camera_are_no_utf_8(self, tmp_path):
        path = written(tmp_path / "tagged.avi", counting(3), 10, "-metadata", "title=caf@", "-c:v", "ffv1")
        path.write_bytes(path.read_bytes().replace(b"caf@", b"caf\xe9"))
        assert numbers(read(path).frames) == [0, 1, 2]

    def test_neither_is_the_name_of_an_old_file(self, tmp_path):
        path = written(tmp_path / "clip.mp4", counting(3), 10, *LOSSLESS).rename(tmp_path / "caf\udce9.mp4")
        assert numbers(read(path).frames) == [0, 1, 2]
        (tmp_path / "0.png").write_bytes((CASES / "iphone_true.png").read_bytes())
        assert read(tmp_path).note.endswith("left out, as no picture: caf?.mp4")


class TestChanges:
    def test_a_recording_that_changes_its_size_midway_fills_every_frame(self, tmp_path):
        smaller, larger = counting(4), counting(8, 96, 128)[4:]
        parts = [
            written(tmp_path / "first.ts", smaller, 10, *LOSSLESS, "-bf", "0"),
            written(tmp_path / "then.ts", larger, 10, *LOSSLESS, "-bf", "0", "-output_ts_offset", "0.4"),
        ]
        (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
        clip = read(tmp_path / "both.ts", size=Size(64, 48), fps=10)
        assert numbers(clip.frames) == list(range(8))
        assert all(frame.min() == frame.max() for frame in clip.frames)


class TestFolders:
    @pytest.fixture
    def folder(self, tmp_path):
        for index, frame in enumerate(counting(4)):
            Image.fromarray(frame).save(tmp_path / f"{index}.png")
        return tmp_path

    def test_pictures_of_all_kinds_stand_beside_each_other(self, folder):
        Image.open(folder / "1.png").save(folder / "1.jfif", "JPEG")
        Image.open(folder / "2.png").save(folder / "2.avif", quality=100)
        (folder / "1.png").unlink()
        (folder / "2.png").unlink()
        clip = read(folder, size=Size(64, 48))
        assert numbers(clip.frames) == [0, 1, 2, 3]
        assert "left out" not in clip.note

    def test_what_is_left_out_is_said(self, folder):
        for name in ("a.psd", "b.txt", "c.mp4", "d.raw", ".hidden", "Thumbs.db"):
            (folder / name).write_bytes(b"?")
        assert read(folder).note.endswith("left out, as no picture: a.psd, b.txt, c.mp4 and 1 more")

    def test_measured_depths_are_shown_from_the_least_to_the_most(self, tmp_path):
        depth = np.linspace(2.5, 80, 256, dtype=np.float32)[None].repeat(256, 0)
        Image.fromarray(depth).save(tmp_path / "depth.tiff")
        seen = read(tmp_path / "depth.tiff", size=Size(256, 256)).frames[0, 0, :, 0]
        assert np.abs(seen.astype(int) - np.arange(256)).max() <= 1

    def test_what_was_not_measured_is_as_far_as_the_least(self, tmp_path):
        depth = np.linspace(2.5, 80, 256, dtype=np.float32)[None].repeat(256, 0)
        depth[:, 100:104] = np.nan, np.inf, -np.inf, 3e38
        Image.fromarray(depth).save(tmp_path / "depth.tiff")
        seen = read(tmp_path / "depth.tiff", size=Size(256, 256)).frames[0, 0, :, 0].astype(int)
        assert (seen[100:104] == 0).all()
        assert np.abs(np.delete(seen - np.arange(256), range(100, 104))).max() <= 1

    def test_pages_of_a_tiff_are_frames(self, tmp_path):
        first, *others = (Image.fromarray(frame) for frame in counting(3))
        first.save(tmp_path / "stack.tiff", save_all=True, append_images=others)
        assert numbers(read(tmp_path / "stack.tiff").frames) == [0, 1, 2]

    def test_a_photo_with_a_second_picture_inside_is_one(self, tmp_path):
        first, second = (Image.fromarray(frame) for frame in counting(4)[2:])
        first.save(tmp_path / "photo.jpg", "MPO", save_all=True, append_images=[second])
        assert numbers(read(tmp_path / "photo.jpg").frames) == [2]

    def test_a_still_before_the_animation_is_no_part_of_it(self, tmp_path):
        still, *moving = (Image.fromarray(frame) for frame in counting(4))
        still.save(tmp_path / "a.png", save_all=True, append_images=moving, default_image=True, duration=100)
        assert numbers(read(tmp_path / "a.png").frames) == [1, 2, 3]

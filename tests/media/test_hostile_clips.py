"""Clips that are broken, swollen or meant to harm: one sentence, in bounded time and memory, and Stop is heard."""

import io
import lzma
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.media.clip_files import CASES, LOSSLESS, bare_png, counting, numbers, read, repeating_mov, written
from text2video_zero.errors import UserError
from text2video_zero.generators import result_of
from text2video_zero.media import clip_reader
from text2video_zero.media.clip_reader import ClipReader
from text2video_zero.media.clips import file_hash, probe, reading
from text2video_zero.media.decoding.facts import Limits
from text2video_zero.requests.fields import Size

MUTATIONS = 120


def resident() -> int:
    """Megabytes that the idle decoder has held at most."""
    decoder = clip_reader.IDLE.get_nowait()
    clip_reader.IDLE.put(decoder)
    status = Path(f"/proc/{decoder._process.pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) >> 10 for line in status.splitlines() if line.startswith("VmHWM"))


def refused(path: Path, limits: Limits | None = None) -> str:
    """The sentence with which a clip is refused, opened and read under limits of its own."""

    def attempt() -> None:
        with ClipReader(path, limits or Limits()) as reader:
            result_of(reader.opening())
            list(reader.reading(range(4), 8, Size(64, 64)))

    with pytest.raises(UserError) as told:
        attempt()
    sentence = str(told.value)
    assert path.name in sentence
    assert str(path.parent) not in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


class TestSize:
    @pytest.mark.parametrize("shape", [(1, 250_000), (250_000, 1), (1, 1_000_000)])
    def test_only_what_is_seen_of_a_long_strip_is_scaled(self, shape, tmp_path):
        strip = bare_png(tmp_path / "strip.png", *shape)
        before = resident() if probe(strip) else 0
        for size in (None, Size(512, 512)):
            assert read(strip, size=size).frames.shape[0] == 1
        assert resident() - before < 64

    def test_of_videos_too(self, tmp_path):
        """A header that says more than any frame has."""
        path = written(tmp_path / "large.avi", counting(2), 8, "-c:v", "ffv1")
        wide = path.read_bytes().replace(struct.pack("<II", 64, 48), struct.pack("<II", 12_000, 12_000))
        path.write_bytes(wide)
        assert "12000x12000 pixels, more than 64 megapixels" in refused(path)

    @pytest.mark.parametrize("shape", [(178_956_970, 1), (13_000, 13_000)])
    def test_one_limit_for_the_pixels_of_a_picture(self, shape, tmp_path):
        sentence = refused(bare_png(tmp_path / "large.png", *shape))
        assert f"{shape[0]}x{shape[1]} pixels, more than 64 megapixels" in sentence

    def test_pixels_of_absurd_shape_count_as_they_would_be_shown(self, tmp_path):
        path = written(tmp_path / "wide.mov", counting(2, 2000, 64), 8, "-c:v", "png", "-vf", "setsar=3/1")
        shape = struct.pack(">4sII", b"pasp", 3, 1)
        assert path.read_bytes().count(shape) == 1
        path.write_bytes(path.read_bytes().replace(shape, struct.pack(">4sII", b"pasp", 30_000, 1)))
        assert "1920000x2000 pixels, more than 64 megapixels" in refused(path)

    @pytest.mark.parametrize("suffix", [".gif", ".webp", ".tiff", ".avif", ".png", ".zip", ".mkv"])
    def test_the_limit_is_that_of_every_kind(self, suffix, tmp_path):
        path = tmp_path / f"large{suffix}"
        frames = counting(2, 96, 96)
        if suffix == ".mkv":
            written(path, frames, 8, "-c:v", "ffv1")
        elif suffix == ".zip":
            with zipfile.ZipFile(path, "w") as archive:
                for index, frame in enumerate(frames):
                    packed = io.BytesIO()
                    Image.fromarray(frame).save(packed, "PNG")
                    archive.writestr(f"{path.name}-{index}.png", packed.getvalue())
        else:
            Image.fromarray(frames[0]).save(path, save_all=True, append_images=[Image.fromarray(frames[1])])
        assert read(path).frames.shape[0] == 2
        assert "cannot be read" in refused(path, Limits(pixels=64 * 64))

    def test_zip_bombs_are_not_unpacked(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("bomb.zip.png", bytes(2 << 20))
        assert "(it is larger than 1 MB)" in refused(tmp_path / "bomb.zip", Limits(member=1 << 20))


class TestLimits:
    def test_an_index_of_a_million_packets(self, tmp_path):
        path = repeating_mov(tmp_path / "endless.mov", 1000, 1000)
        assert path.stat().st_size < 8000
        before = resident() if probe(CASES / "sdr.mp4") else 0
        with ClipReader(path) as reader:
            info = result_of(reader.opening())
            assert info.frames == 1_000_000
            for first in (0, 999_990):
                pictures = reader.reading(range(first, first + 4), info.fps, Size(64, 64))
                assert sum(picture is not None for picture in pictures) == 4
            assert reader.packets < 2500
        assert resident() - before < 128

    def test_packets_that_show_nothing_end_some_time(self, tmp_path):
        path = written(tmp_path / "clip.mp4", counting(12), 10, *LOSSLESS)
        assert "more than 8 parts" in refused(path, Limits(packets=8))

    def test_memory(self, tmp_path):
        path = written(tmp_path / "large.mkv", np.zeros((2, 2160, 3840, 3), np.uint8), 10, "-c:v", "ffv1")
        assert read(path).frames.shape[0] == 2
        assert "cannot be read" in refused(path, Limits(memory=1 << 20))
        assert read(path).frames.shape[0] == 2

    def test_time(self, tmp_path):
        path = written(tmp_path / "clip.mp4", counting(12), 10, *LOSSLESS)
        with ClipReader(path, Limits(seconds=0)) as reader:
            reader._decoder.answer(60)  # what it has to say about the clip is lost on the way
            with pytest.raises(UserError, match=r"clip\.mp4 cannot be read \(it takes longer than 0 seconds\)"):
                result_of(reader.opening())
            ended = reader._decoder._process
            reader._decoder.owes = True
        assert ended.poll() is not None

    def test_a_reading_can_be_stopped_at_any_time(self, tmp_path):
        path = written(tmp_path / "clip.mp4", counting(12), 10, *LOSSLESS)
        for pauses in (0, 1, 5):
            run = reading(path, first_frame=0, frames=12, fps=10, size=None, native=Size(64, 64))
            for _ in range(pauses):
                next(run)
            run.close()
        assert numbers(read(path).frames) == list(range(12))

    def test_a_decoder_that_dies_is_told_and_replaced(self, tmp_path):
        path = written(tmp_path / "clip.mp4", counting(12), 10, *LOSSLESS)
        with ClipReader(path) as reader:
            result_of(reader.opening())
            reader._decoder._process.kill()
            reader._decoder._process.wait()
            with pytest.raises(UserError, match=r"clip\.mp4 cannot be read \(its decoder broke down"):
                list(reader.reading(range(12), 10, Size(64, 48)))
        assert numbers(read(path).frames) == list(range(12))

    def test_one_that_died_while_it_waited_is_not_asked(self, tmp_path):
        path = written(tmp_path / "clip.mp4", counting(12), 10, *LOSSLESS)
        probe(path)
        waiting = clip_reader.IDLE.get_nowait()
        waiting._process.kill()
        waiting._process.wait()
        clip_reader.IDLE.put(waiting)
        assert numbers(read(path).frames) == list(range(12))

    def test_one_that_says_nonsense_and_stays_is_ended(self, monkeypatch, tmp_path):
        path = written(tmp_path / "clip.mp4", counting(12), 10, *LOSSLESS)
        while not clip_reader.IDLE.empty():
            clip_reader.IDLE.get_nowait().close()
        begin = subprocess.Popen
        taken_over = [sys.executable, "-c", "import time; print('hm', flush=True); time.sleep(600)"]
        monkeypatch.setattr(clip_reader.subprocess, "Popen", lambda _, **how: begin(taken_over, **how))
        with ClipReader(path) as reader:
            with pytest.raises(UserError, match=r"clip\.mp4 cannot be read \(its decoder broke down"):
                result_of(reader.opening())
            assert reader._decoder._process.poll() is not None

    def test_it_is_found_by_a_python_that_was_given_no_file(self, tmp_path):
        """Which has the current folder among its places by no name: a notebook, or what comes on standard input."""
        path = written(tmp_path / "clip.mp4", counting(12), 10, *LOSSLESS)
        code = f"import pathlib, text2video_zero.media.clips as c\nprint(c.probe(pathlib.Path({str(path)!r})).fps)"
        root = Path(__file__).parents[2]
        done = subprocess.run([sys.executable], check=False, input=code, cwd=root, capture_output=True, text=True)
        assert (done.returncode, done.stdout.strip()) == (0, "10.0"), done.stderr

    def test_half_a_picture_is_none(self):
        """A process that ends within one."""
        decoder = clip_reader.Decoder()
        decoder.close()
        half = b'{"bytes": 12}\n' + bytes(5)
        decoder._process.stdout = io.BytesIO(half)
        decoder._listen()
        assert decoder.answer(0) == ({}, b"")


class TestZips:
    def test_one_with_a_password_is_told(self, tmp_path):
        path = tmp_path / "secret.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("secret.zip.png", (CASES / "iphone_true.png").read_bytes())
        content = bytearray(path.read_bytes())
        content[6] |= 1  # the flag of encryption, in the file's header and in the list at the end
        content[content.rindex(b"PK\1\2") + 8] |= 1
        path.write_bytes(content)
        assert "password" in refused(path)

    def test_names_that_lead_out_of_it_read_what_is_in_it(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
            for name in ("../../etc/0.png", "/1.png", "C:\\2.png"):
                archive.writestr(name, (CASES / "iphone_true.png").read_bytes())
        assert read(tmp_path / "out.zip", size=Size(64, 64)).frames.shape[0] == 3


class TestDevices:
    def test_what_is_no_file_is_refused_unopened(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.mp4")
        for path in (Path("/dev/zero"), tmp_path / "pipe.mp4"):
            for ask in (probe, read, file_hash):
                with pytest.raises(UserError, match=rf"{path.name} is no file: give an MP4"):
                    ask(path)

    def test_pipes_in_a_folder_are_no_pictures(self, tmp_path):
        os.mkfifo(tmp_path / "0.png")
        Image.fromarray(counting(2)[1]).save(tmp_path / "1.png")
        assert numbers(read(tmp_path).frames) == [1]
        assert file_hash(tmp_path)

    @pytest.mark.parametrize("name", ["a" * 300 + ".mp4", "a\0b.mp4", "\ud800.mp4"])
    def test_names_that_no_file_has(self, name):
        for ask in (probe, file_hash):
            with pytest.raises(UserError, match="There is no file") as told:
                ask(Path(name))
            assert len(str(told.value).encode()) < 200


class TestDamage:
    def test_seeded_mutations_are_read_or_refused_in_one_sentence(self, tmp_path):
        self.mutated(tmp_path, MUTATIONS, seed=0)

    @pytest.mark.slow
    def test_five_hundred_more_mutations(self, tmp_path):
        self.mutated(tmp_path, 500, seed=1)

    def mutated(self, tmp_path, count, seed):
        random = np.random.default_rng(seed)
        originals = [
            *sorted(path for path in CASES.iterdir() if path.suffix not in {".md", ".png"}),
            *self.more(tmp_path),
        ]
        outcomes = []
        for number in range(count):
            original = originals[number % len(originals)]
            content = bytearray(original.read_bytes())
            for _ in range(random.integers(1, 12)):
                at, length = int(random.integers(len(content))), int(random.integers(1, 9))
                content[at : at + length] = random.bytes(length)
            if number % 5 == 0:
                del content[int(random.integers(1, len(content))) :]
            path = tmp_path / f"mutant-{number}{original.suffix}"
            path.write_bytes(content)
            outcomes.append(self.read_or_refused(path))
        assert 0.2 < np.mean(outcomes) < 0.95

    def read_or_refused(self, path: Path) -> bool:
        try:
            return len(read(path, frames=4, fps=8).frames) > 0
        except UserError as error:
            sentence = str(error)
        assert path.name in sentence or ".png" in sentence
        assert "\n" not in sentence
        return False

    def more(self, folder: Path) -> list[Path]:
        """Clips of the kinds that the cases lack."""
        first, *others = (Image.fromarray(frame) for frame in counting(4))
        moving = {"save_all": True, "append_images": others, "duration": 100}
        for suffix, options in {
            ".gif": moving,
            ".webp": moving,
            ".png": moving,
            ".jpg": {},
            ".bmp": {},
            ".tiff": {"compression": "tiff_lzw"},
            ".tif": {"compression": "tiff_deflate"},
        }.items():
            first.save(folder / f"seed{suffix}", **options)
        for number, packing in enumerate((zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)):
            with zipfile.ZipFile(folder / f"seed{number}.zip", "w", packing) as archive:
                archive.write(folder / "seed.png", "1.png")
        return sorted(folder.glob("seed*"))

    def test_members_that_cannot_be_unpacked(self, tmp_path):
        path = tmp_path / "frames.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr("frames.zip.png", Path(CASES / "iphone_true.png").read_bytes())
        content = bytearray(path.read_bytes())
        content[60:80] = bytes(20)
        path.write_bytes(content)
        with (
            pytest.raises((lzma.LZMAError, zipfile.BadZipFile, EOFError, ValueError)),
            zipfile.ZipFile(path) as archive,
        ):
            archive.read("frames.zip.png")
        assert "cannot be read" in refused(path)

"""Frames on disk read like an array, hold next to nothing in memory, and leave nothing behind."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import tempfile
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2video_zero.evaluation.metrics import flow_warp_error
from text2video_zero.media.frames import StoredFrames
from text2video_zero.media.video import FORMATS, Video


def noise(frames=5, height=6, width=7):
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), np.uint8)


class TestReading:
    def test_it_looks_like_the_array_that_was_stored(self):
        stored = StoredFrames.of(noise())
        assert (len(stored), stored.shape, stored.ndim, stored.dtype) == (5, (5, 6, 7, 3), 4, np.uint8)
        assert np.array_equal(stored, noise())
        assert all(np.array_equal(one, other) for one, other in zip(stored, noise(), strict=True))

    @given(st.slices(5))
    def test_any_slice(self, part):
        assert np.array_equal(StoredFrames.of(noise())[part], noise()[part])

    @pytest.mark.parametrize("index", [0, 4, -1, -5, np.int64(3)])
    def test_any_number(self, index):
        assert np.array_equal(StoredFrames.of(noise())[index], noise()[index])

    @pytest.mark.parametrize("index", [5, -6])
    def test_numbers_beyond_the_end(self, index):
        with pytest.raises(IndexError):
            StoredFrames.of(noise())[index]

    def test_what_is_read_is_a_copy(self):
        stored = StoredFrames.of(noise())
        stored[2][:] = 0
        assert np.array_equal(stored, noise())

    def test_other_shapes_and_numbers(self):
        depths = np.random.default_rng(1).normal(size=(3, 4, 5)).astype(np.float32)
        assert np.array_equal(StoredFrames.of(depths), depths)

    def test_views_are_stored_as_they_look(self):
        assert np.array_equal(StoredFrames.of(noise()[:, :, ::-1]), noise()[:, :, ::-1])

    def test_a_picture_of_another_kind_is_a_bug(self):
        stored = StoredFrames.of(noise())
        for other in (noise()[0][1:], noise()[0].astype(float), noise()):
            with pytest.raises(ValueError, match="pictures must be uint8"):
                stored.append(other)
        assert np.array_equal(stored, noise())

    def test_a_clip_without_pictures_is_a_bug(self):
        with pytest.raises(ValueError, match="at least one"):
            StoredFrames.of([])


class TestLife:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        return tmp_path

    @pytest.mark.skipif(os.name != "posix", reason="elsewhere the file has a name while it is open")
    def test_no_file_can_be_left_behind(self, folder):
        stored = StoredFrames.of(noise())
        assert list(folder.iterdir()) == []
        assert len(stored) == 5

    def test_the_file_is_closed_with_the_last_reference(self):
        stored = StoredFrames.of(noise())
        file = stored._file
        video = Video(stored, 8, {})
        del stored
        assert not file.closed
        assert video.frames[0].any()
        number = file.fileno()
        del video, file
        gc.collect()
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(number)

    def test_it_can_be_sent_to_another_program(self):
        video = Video(StoredFrames.of(noise()), 8, {"seed": 1})
        copy = pickle.loads(pickle.dumps(video))  # noqa: S301
        video.frames.close()
        assert np.array_equal(copy.frames, noise())
        assert copy.settings == {"seed": 1}

    def test_a_full_disk_is_an_error_of_the_system(self, monkeypatch):
        stored = StoredFrames.of(noise())

        class Full:
            def seek(self, _):
                return 0

            def write(self, _):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(stored, "_file", Full())
        with pytest.raises(OSError, match="No space"):
            stored.append(noise()[0])


class TestUse:
    @pytest.mark.parametrize("suffix", FORMATS)
    def test_files_are_the_same_bytes_as_from_memory(self, suffix, tmp_path):
        frames = noise(4, 17, 23)
        for name, kind in (("array", frames), ("disk", StoredFrames.of(frames))):
            Video(kind, 8, {"seed": 1}).save(tmp_path / f"{name}{suffix}")
        assert (tmp_path / f"array{suffix}").read_bytes() == (tmp_path / f"disk{suffix}").read_bytes()

    def test_metrics_are_the_same(self):
        frames = noise(3, 32, 32)
        assert flow_warp_error(StoredFrames.of(frames)) == flow_warp_error(frames)

    @pytest.mark.parametrize("suffix", [".mp4", ".zip"])
    def test_saving_holds_a_few_frames_and_not_the_clip(self, suffix, tmp_path):
        peaks = {}
        for count in (16, 64):
            stored = StoredFrames.of(np.full((256, 256, 3), number, np.uint8) for number in range(count))
            Video(stored, 8, {}).save(tmp_path / f"first{suffix}")  # what is imported and cached the first time
            tracemalloc.start()
            Video(stored, 8, {}).save(tmp_path / f"clip{suffix}")
            peaks[count] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        one_frame = 256 * 256 * 3
        assert peaks[64] - peaks[16] < one_frame
        assert peaks[16] < 4 * one_frame

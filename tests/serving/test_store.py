"""Where videos are kept, and that a store which forgets removes nothing but its own."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from serving.jobs import complete
from serving.local import LocalRunner
from serving.store import FORMS, RECORDS, Guide, VideoStore
from tests.example_files import write_clip
from text2video_zero.errors import UserError
from text2video_zero.events import ControlMaps
from text2video_zero.job import Job
from text2video_zero.media.settings import read_settings
from text2video_zero.media.video import FramesKeptError, Video
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.requests import EdgeRequest, TextToVideoRequest

SHORT = TextToVideoRequest(prompt="a fox", frames=2, steps=4, seed=3)
DAY = 24 * 3600


@pytest.fixture
def video():
    return Video(np.full((2, 16, 16, 3), 90, np.uint8), 8, {"app": "text2video-zero", "request": SHORT.to_dict()})


@pytest.fixture
def forgetful(tmp_path):
    return VideoStore(tmp_path, keep_settings=False, keep_seconds=DAY)


def save(store, video, forms=(".mp4",)):
    """The files of a video that a store has just written."""
    *_, stored = store.save(SHORT, video, forms)
    return list(stored.files.values())


def aged(folder, days=3):
    """Let the records be older, as if the files had been written that long ago."""
    then = time.time() - days * DAY
    for record in (folder / RECORDS).iterdir():
        os.utime(record, (then, then))


def shown(folder):
    return sorted(path for path in folder.iterdir() if path.name != RECORDS)


def test_names_of_videos_are_unique_and_cannot_be_guessed(video, tmp_path):
    store = VideoStore(tmp_path)
    names = {path.stem for _ in range(3) for path in save(store, video)}
    assert len(names) == 3
    assert all(name.startswith("text-to-video-") and len(name.rsplit("-", 1)[1]) >= 16 for name in names)


def test_a_shared_store_writes_no_settings_into_files(video, forgetful):
    (stored,) = forgetful.save(SHORT, video, (".mp4",))
    assert stored.settings == video.settings
    with pytest.raises(UserError, match="no settings"):
        read_settings(stored.files[".mp4"])


def test_its_own_files_go_after_a_while_whoever_of_its_kind_looks(video, forgetful, tmp_path):
    old = [*save(forgetful, video, tuple(FORMS)), forgetful.save_guide(SHORT, ControlMaps(video.frames)).path]
    assert shown(tmp_path) == sorted(old)
    aged(tmp_path)
    later = save(VideoStore(tmp_path, keep_seconds=DAY), video)
    assert shown(tmp_path) == later
    assert [record.name for record in (tmp_path / RECORDS).iterdir()] == [later[0].name]
    again = save(forgetful, video)  # the first store goes on beside the second
    assert shown(tmp_path) == sorted(later + again)


def test_a_guide_makes_room_too(video, forgetful, tmp_path):
    forgetful.save_guide(SHORT, ControlMaps(video.frames))
    aged(tmp_path)
    new = forgetful.save_guide(SHORT, ControlMaps(video.frames))
    assert shown(tmp_path) == [new.path]


def test_files_of_others_stay_however_old(video, forgetful, tmp_path):
    kept = [tmp_path / name for name in ("holiday.mp4", "text-to-video-20200101-000000-0123456789abcdef.mp4", "a.zip")]
    for path in kept:
        path.write_bytes(b"a stranger's")
    kept += save(VideoStore(tmp_path), video)  # that one keeps for good
    for path in kept:
        os.utime(path, (0, 0))
    aged(tmp_path)
    new = save(forgetful, video)
    assert shown(tmp_path) == sorted(kept + new)


def test_a_file_that_somebody_changed_or_replaced_is_theirs(video, forgetful, tmp_path):
    changed, replaced, gone = (save(forgetful, video)[0] for _ in range(3))
    with changed.open("ab") as file:
        file.write(b"a note")
    content = replaced.read_bytes()
    replaced.unlink()
    (tmp_path / "copy").write_bytes(content)
    (tmp_path / "copy").rename(replaced)
    gone.unlink()
    aged(tmp_path)
    new = save(forgetful, video)
    assert shown(tmp_path) == sorted([changed, replaced, *new])
    assert [record.name for record in (tmp_path / RECORDS).iterdir()] == [new[0].name]


@pytest.mark.parametrize("damage", [b"", b"12 3", b"\xff\xfe not numbers"])
def test_a_damaged_record_lets_its_file_stay(video, forgetful, tmp_path, damage):
    first, second = (save(forgetful, video)[0] for _ in range(2))
    (tmp_path / RECORDS / first.name).write_bytes(damage)
    (tmp_path / RECORDS / "folder").mkdir()
    aged(tmp_path)
    new = save(VideoStore(tmp_path, keep_seconds=DAY), video)
    assert not second.exists()
    assert shown(tmp_path) == sorted([first, *new])


def test_lost_records_let_files_stay_and_new_ones_are_written(video, forgetful, tmp_path):
    first = save(forgetful, video)
    for record in (tmp_path / RECORDS).iterdir():
        record.unlink()
    second = save(forgetful, video)
    aged(tmp_path)
    third = save(forgetful, video)
    assert not second[0].exists()
    assert shown(tmp_path) == sorted(first + third)


def test_a_stopped_run_s_control_map_goes_too(manager, tiny_checkpoint, tiny_controlnets, forgetful, video, tmp_path):
    checkpoint = Checkpoint(str(tiny_checkpoint), controlnet=str(tiny_controlnets["edge"]))
    (tmp_path / "clips").mkdir()
    clip = write_clip(tmp_path / "clips", "gif")
    job = Job(EdgeRequest(prompt="a fox", clip=str(clip), frames=4, steps=4, seed=3), checkpoint)
    running = complete(job, LocalRunner(lambda: manager), forgetful)
    guide = next(event for event in running if isinstance(event, Guide))
    running.close()
    assert guide.path.exists()
    aged(tmp_path)
    save(forgetful, video)
    assert not guide.path.exists()


def test_frames_that_are_kept_for_want_of_an_encoder_go_too(video, forgetful, tmp_path, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setenv("IMAGEIO_FFMPEG_EXE", "/bin/false")
        with pytest.raises(FramesKeptError) as raised:
            save(forgetful, video)
    assert shown(tmp_path) == [raised.value.path]
    aged(tmp_path)
    new = save(forgetful, video)
    assert shown(tmp_path) == new


def test_frames_that_are_kept_elsewhere_are_nobody_s_to_remove(video, forgetful, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    monkeypatch.setattr(forgetful, "folder", tmp_path / "file")
    forgetful.folder.write_text("")  # a folder that takes nothing
    with pytest.raises(FramesKeptError):
        save(forgetful, video)
    assert not list((tmp_path / RECORDS).iterdir())


def test_a_store_that_keeps_for_good_writes_videos_alone(video, tmp_path):
    kept = save(VideoStore(tmp_path), video)
    assert list(tmp_path.iterdir()) == kept

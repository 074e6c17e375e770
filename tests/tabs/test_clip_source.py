"""What of a clip a run would use, as the page shows it."""

from __future__ import annotations

import asyncio
import base64
import io
import re
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio_client.utils import is_valid_file
from PIL import Image

import app
from serving.menu import ModelMenu
from serving.queue import JobQueue
from serving.runners.local import LocalRunner
from serving.store import JobStore
from tabs.form import CLIP_TYPES
from tabs.parts.clip_source import UsedPart, showing_used_part
from tests.example_files import write_clip
from tests.media.clip_files import hung_decoder


def show_used_part(*asked):
    """What the page ends up with."""
    *pauses, made = showing_used_part(*asked)
    assert all(isinstance(frames, int) for frames in pauses)
    return made


def picture_in(made):
    (data,) = re.findall(r'src="data:image/webp;base64,([^"]+)"', made)
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("form", ["mp4", "gif", "zip", "folder"])
def test_every_form_of_clip_is_shown_in_motion_with_the_part_that_is_used(tmp_path, form):
    path = str(write_clip(tmp_path, form))
    file, typed = ({"path": path}, "") if form != "folder" else (None, f" {path} ")
    made = show_used_part(2, 6, 8, file, typed)
    picture = picture_in(made)
    assert picture.n_frames == 6
    assert picture.width / picture.height == pytest.approx(96 / 64, rel=0.05)
    assert "Frames 2 to 7 are used" in made
    assert "The clip: 96x64, 1 s at 8 frames per second." in made


def test_a_clip_that_ends_early_shows_how_far_it_reaches(tmp_path):
    path = {"path": str(write_clip(tmp_path, "mp4"))}
    assert "Frames 4 to 9 are used" in show_used_part(4, 100, 8, path)
    assert "Frame 9 is used" in show_used_part(9, 8, 8, path)


def test_what_is_wrong_with_a_clip_is_told_in_its_place(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    assert 'class="note"' in show_used_part(0, 8, 8, {"path": str(tmp_path / "broken.mp4")})
    late = show_used_part(10, 8, 8, {"path": str(write_clip(tmp_path, "mp4"))})
    assert "First frame is 10, but the clip has only 10 frames" in late
    assert "&lt;b&gt;" in show_used_part(0, 8, 8, None, "/no/<b>")


def test_a_typed_path_is_read_as_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    name = write_clip(tmp_path, "mp4").name
    for typed in (f"~/{name}", f' "{tmp_path / name}" ', f"'~/{name}'"):
        assert "Frames 2 to 7 are used" in show_used_part(2, 6, 8, None, typed)
    assert "There is no file" in show_used_part(2, 6, 8, None, "~nobody-of-that-name/clip.mp4")


@pytest.mark.parametrize("name", ["a.MTS", "a.VOB", "a.m2ts", "a.heic", "a.avif", "a.jfif", "a.mkv", "a.zip", "a.mp4"])
def test_the_page_takes_the_files_of_cameras_and_phones(name):
    assert is_valid_file(name, list(CLIP_TYPES))


def test_what_is_done_to_a_clip_and_left_out_is_told_beside_it(tmp_path):
    folder = write_clip(tmp_path, "folder")
    (folder / "notes.txt").write_text("no picture")
    assert "; left out, as no picture: notes.txt." in show_used_part(2, 6, 8, None, str(folder))


def test_nothing_is_shown_before_there_is_a_clip_or_while_a_number_is_being_typed(tmp_path):
    assert show_used_part(0, 8, 8, None) == ""
    clip = {"path": str(write_clip(tmp_path, "mp4"))}
    assert [show_used_part(0, None, 8, clip), show_used_part(0, 0, 8, clip), show_used_part(-1, 8, 8, clip)] == [""] * 3


def asked(part, file, session="a page"):
    """What the page is told about a clip, as it comes."""
    return part.shown(SimpleNamespace(session_hash=session), 2, 6, 8, {"path": str(file)})


def test_whoever_asks_last_is_answered_and_ends_a_reading_that_takes_long(tmp_path):
    part, clip = UsedPart(), write_clip(tmp_path, "mp4")

    async def ask_twice():
        with hung_decoder() as decoder:
            first = asked(part, clip)
            waits = await anext(first)  # it still reads
            last = [told async for told in asked(part, clip)]
            other = [told async for told in asked(part, clip, "another page")]
            rest = [told async for told in first]
            return [waits, *rest], last, other, decoder.poll()

    given_up, last, other, ended = asyncio.run(ask_twice())
    assert given_up == [gr.skip()] * 2
    assert "Frames 2 to 7 are used" in last[-1]
    assert "Frames 2 to 7 are used" in other[-1]
    assert ended is not None


def test_leaving_the_page_ends_a_reading_that_takes_long(tmp_path):
    async def leave():
        with hung_decoder() as decoder:
            told = asked(UsedPart(), write_clip(tmp_path, "mp4"))
            await anext(told)
            await told.aclose()
            return decoder.poll()

    assert asyncio.run(leave()) is not None


@pytest.mark.parametrize("free", [True, False])
def test_a_path_of_the_serving_machine_can_be_typed_only_where_strangers_cannot(tmp_path, free):
    runner = LocalRunner(lambda: app.open_models(app.read_options(["--device", "cpu"])))
    page = app.build_app(JobQueue(runner, JobStore(tmp_path)), ModelMenu("toyland", free=free))
    names = {component["props"].get("elem_id") for component in page.get_config_file()["components"]}
    assert "edge-clip" in names
    assert ("edge-clip-path" in names) is free

"""Uploads to a shared page go with the last session that named them, and no others do."""

from __future__ import annotations

import os
import socket
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from gradio_client import Client
from PIL import Image

import app
from serving.visitors import uploads
from serving.visitors.limits import Limits
from tabs.services import Services
from tabs.tasks import CLIPS
from tests.served import served

CLIP = b"a clip, as far as a server is concerned"


@pytest.fixture(scope="module")
def queues():
    return []


@pytest.fixture(scope="module")
def address(tmp_path_factory, queues):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("uploaded")
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
        patch.setattr(uploads, "GRACE_SECONDS", 0.3)
        patch.setattr(uploads, "SWEEP_SECONDS", 0.1)
        patch.setattr(app, "LARGEST_UPLOAD", "100kb")
        with served("toyland", folder / "outputs", shared=True, limits=Limits(), queues=queues) as address:
            yield address


def uploaded(address, content=CLIP, name="mine.mp4"):
    answer = httpx.post(f"{address}gradio_api/upload", files={"files": (name, content)})
    return Path(answer.json()[0])


@contextmanager
def session(address, name):
    """A page that is open."""
    with httpx.stream("GET", f"{address}gradio_api/heartbeat/{name}", timeout=30) as alive:
        beats = alive.iter_lines()  # closes the connection when nobody holds it
        next(beats)
        yield name
        beats.close()


def ask(address, name, path):
    """What a page asks when a clip has been chosen on it, with all else as it is at first."""
    config = httpx.get(f"{address}config").json()
    files = {one["id"] for one in config["components"] if one["type"] == "file"}
    values = {one["id"]: one["props"].get("value") for one in config["components"]}
    asking = (one for one in config["dependencies"] if files & set(one["inputs"]) and one["queue"] is not False)
    entry = min(asking, key=lambda one: len(one["inputs"]))
    clip = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
    data = [clip if name in files else values[name] for name in entry["inputs"]]
    body = {"fn_index": entry["id"], "data": data, "session_hash": name}
    answer = httpx.post(f"{address}gradio_api/queue/join", json=body)
    assert answer.status_code == 200, answer.text


def goes(path, within=10.0):
    deadline = time.monotonic() + within
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not path.exists()


def test_an_upload_goes_with_its_session_and_not_before(address):
    path = uploaded(address)
    with session(address, "one"):
        ask(address, "one", path)
        assert not goes(path, within=1)
    assert goes(path)


def test_what_two_visitors_brought_goes_with_the_second(address):
    path = uploaded(address)
    assert uploaded(address) == path
    with session(address, "two"):
        ask(address, "two", path)
        with session(address, "three"):
            ask(address, "three", path)
        assert not goes(path, within=1)
    assert goes(path)


def test_a_session_that_is_back_in_a_moment_keeps_what_it_brought(address, monkeypatch):
    monkeypatch.setattr(uploads, "GRACE_SECONDS", 4)  # a moment of a busy machine
    path = uploaded(address, b"another clip")
    with session(address, "four"):
        ask(address, "four", path)
    with session(address, "four"):
        assert not goes(path, within=1)
    assert goes(path)


def test_what_no_page_ever_names_goes_after_a_while_and_what_one_names_does_not(address, monkeypatch):
    never, by_nobody, by_somebody = (uploaded(address, content) for content in (b"one", b"two", b"three"))
    ask(address, "was never there", by_nobody)
    with session(address, "seven"):
        ask(address, "seven", by_somebody)
        assert not goes(never, within=1)
        monkeypatch.setattr(uploads, "UNNAMED_SECONDS", 0)
        assert goes(never)
        assert goes(by_nobody)
        assert not goes(by_somebody, within=1)
    assert goes(by_somebody)


def test_an_upload_that_is_cut_off_goes_after_a_while(address, monkeypatch):
    """Gradio leaves what has come of it."""

    def kept():
        return {path for path in Path(os.environ["GRADIO_TEMP_DIR"]).iterdir() if path.is_file()}

    before, host = kept(), httpx.URL(address)
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="mine.mp4"\r\n\r\n' + bytes(50_000)
    asked = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host.netloc.decode()}\r\nContent-Length: 100000\r\n"
    with socket.create_connection((host.host, host.port)) as connection:
        connection.sendall(f"{asked}Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode() + head)
        deadline = time.monotonic() + 10
        while kept() == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (path,) = kept() - before
    assert not goes(path, within=1)
    monkeypatch.setattr(uploads, "UNNAMED_SECONDS", 0)
    assert goes(path)


def test_examples_and_files_that_were_not_uploaded_stay(address, tmp_path):
    example = next(iter(CLIPS.glob("*.mp4")))
    stays = uploaded(address, example.read_bytes(), example.name), tmp_path / "of the server.mp4"
    stays[1].write_bytes(CLIP)
    with session(address, "five"):
        for path in stays:
            ask(address, "five", path)
    time.sleep(1)
    assert all(path.exists() for path in stays)


def test_a_video_is_served_from_its_folder_alone_and_no_more_once_it_is_deleted(address, queues):
    client = Client(address, verbose=False, download_files=False)
    before = [*Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*.mp4")]
    video, _, _ = client.predict(prompt="a fox", frames=1, steps=4, api_name="/text-to-video")
    (entry,) = queues[0].of(Services.owner(SimpleNamespace(shared=True), client.session_hash))
    shown = video.get("video", video)
    assert Path(shown["path"]) == entry.standing.stored.files[".mp4"].resolve()
    assert [*Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*.mp4")] == before
    assert httpx.get(shown["url"]).content == Path(shown["path"]).read_bytes()
    queues[0].remove(entry)
    assert httpx.get(shown["url"]).status_code == 403


def test_no_visitor_names_the_folder_of_all_videos_as_a_clip(address, queues):
    folder = queues[0]._store.folder.resolve()
    Image.new("RGB", (64, 64), "red").save(folder / "of the owner.png")
    parameters = httpx.get(f"{address}gradio_api/info").json()["named_endpoints"]["/edge"]["parameters"]
    clip = {"path": str(folder), "meta": {"_type": "gradio.FileData"}}
    asked = {"prompt": "a fox", "frames": 1, "model": "toyland", "clip": clip}
    data = [asked.get(one["parameter_name"], one.get("parameter_default")) for one in parameters]
    asking = f"{address}gradio_api/call/edge"
    event = httpx.post(asking, json={"data": data}).json()["event_id"]
    told = httpx.get(f"{asking}/{event}", timeout=60).text
    assert "event: error" in told
    assert "Clip is empty: choose a file." in told


def test_what_is_too_large_to_be_brought_is_refused_and_not_kept(address):
    def kept():
        return sorted(path for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if path.is_file())

    before = kept()
    for size, status in ((100 * 1024, 200), (100 * 1024 + 1, 413)):
        answer = httpx.post(f"{address}gradio_api/upload", files={"files": ("mine.mp4", bytes(size))})
        assert answer.status_code == status
    assert len(kept()) == len(before) + 1


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"session_hash": 1}', b'"text"', b'{"data": [{"path": 1}]}'])
def test_what_is_no_question_is_gradio_s_to_refuse(address, body):
    answer = httpx.post(f"{address}gradio_api/queue/join", content=body)
    assert 400 <= answer.status_code < 500

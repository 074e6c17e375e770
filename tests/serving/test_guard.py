"""What a real server refuses before Gradio sees it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

import httpx
import pytest
from gradio import processing_utils
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from tests.served import served


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def address(tiny_checkpoint, outputs):
    with served(tiny_checkpoint, outputs) as url:
        yield url


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/process_recording",
        "gradio_api/PROCESS_RECORDING",
        "gradio_api/proxy=https://example.com/",
        "gradio_api/file=https://example.com/",
        "gradio_api/file=HTTP://example.com/",
        "gradio_api/file=%68ttps%3A//example.com/",
        "gradio_api/file/https://example.com/",
        "gradio_api/component_server",
        "gradio_api/vibe-code/",
        "gradio_api/deep_link",
        "gradio_api/dev/reload",
        "monitoring",
        "monitoring/summary",
    ],
)
def test_routes_without_a_use_answer_nothing(address, path):
    for method in ("GET", "POST"):
        answer = httpx.request(method, f"{address}{path}")
        assert (answer.status_code, answer.text) == (404, "There is nothing here.")


@pytest.mark.parametrize("name", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "[::2]", "[", ""])
def test_the_page_answers_to_no_name_but_its_own(address, name):
    answer = httpx.get(address, headers={"Host": name})
    assert answer.status_code == 403
    assert "start it with --allow-host" in answer.text


@pytest.mark.parametrize(
    ("name", "is_open"), [("a.html", False), ("a.svg", False), ("a.js", False), ("a.mp4", True), ("a.gif", True)]
)
def test_a_page_that_somebody_brings_as_a_clip_runs_no_scripts(address, outputs, name, is_open):
    (outputs / name).write_text("<script>alert(localStorage)</script>")
    answer = httpx.get(f"{address}gradio_api/file={(outputs / name).resolve()}")
    assert answer.status_code == 200
    assert answer.headers.get("content-security-policy") == (None if is_open else "sandbox")


def test_it_answers_to_its_own(address):
    assert httpx.get(address).status_code == 200
    assert httpx.get(address, headers={"Host": urlsplit(address).netloc.upper()}).status_code == 200


def test_what_waits_for_jobs_is_not_run_past_the_queue(address):
    config = httpx.get(f"{address}config").json()
    waiting = next(entry["id"] for entry in config["dependencies"] if entry["queue"] is not False)
    answer = httpx.post(f"{address}gradio_api/run/predict", json={"fn_index": waiting, "data": [], "session_hash": "a"})
    assert answer.status_code == 404


def test_a_page_below_a_path_answers_no_more_there(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_ROOT_PATH", "/below")
    with served(tiny_checkpoint, tmp_path) as address:
        for path in ("", "below/"):
            answer = httpx.get(f"{address}{path}gradio_api/proxy=https://example.com/")
            assert (answer.status_code, answer.text) == (404, "There is nothing here.")
        assert httpx.get(f"{address}below/config").status_code == 200


@pytest.fixture
def asked(monkeypatch):
    """A server that Gradio takes for a public one: its address, and what was asked of it."""
    paths = []

    class Noting(BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_error(404)

    monkeypatch.setattr(processing_utils, "PUBLIC_HOSTNAME_WHITELIST", ["127.0.0.1"])
    with HTTPServer(("127.0.0.1", 0), Noting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/me.png", paths
        server.shutdown()


def test_no_visitor_has_the_server_fetch_an_address(address, asked):
    elsewhere, paths = asked
    client = Client(address, verbose=False, download_files=False)
    with pytest.raises(AppError, match="is an address: download it, and choose the file"):
        client.predict(prompt="a fox", start_picture=handle_file(elsewhere), api_name="/text-to-video")
    assert paths == []

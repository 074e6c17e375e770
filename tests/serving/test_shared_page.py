"""One visitor of a shared page, served for real, keeps nobody else from it."""

from __future__ import annotations

import threading
import time

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from serving.jobs import Stopped
from serving.visitors.limits import Limits
from tabs.parts.clip_source import LOOKS_AT_ONCE
from tests.example_files import write_clip
from tests.served import came_from, served
from text2video_zero.errors import UserError

ENDPOINT = "/text-to-video"


def refuse():
    raise UserError("There is no clip.")


class TestOnAServer:
    @pytest.fixture(scope="class")
    @classmethod
    def queues(cls):
        return []

    @pytest.fixture(scope="class")
    @classmethod
    def address(cls, tmp_path_factory, queues):
        folder, limits = tmp_path_factory.mktemp("outputs"), Limits(waiting=3, neighbours=1)
        with served("toyland", folder, shared=True, limits=limits, patience=1.0, queues=queues) as url:
            yield url

    @pytest.fixture(scope="class")
    @classmethod
    def long_job(cls, address):
        """What to post for a job of many minutes."""
        config = httpx.get(f"{address}config").json()
        made = next(entry for entry in config["dependencies"] if entry["api_name"] == ENDPOINT[1:])
        asked = {"prompt": "a fox", "frames": 128, "steps": 100, "size": "128x128", "model": "toyland"}
        parameters = httpx.get(f"{address}gradio_api/info").json()["named_endpoints"][ENDPOINT]["parameters"]
        data = [asked.get(one["parameter_name"], one.get("parameter_default")) for one in parameters]
        return {"fn_index": made["id"], "data": data}

    @pytest.fixture
    def entries(self, queues):
        return lambda: list(queues[0]._entries.values())

    def post(self, address, job, session):
        headers = came_from("198.51.100.7")
        asked = {**job, "session_hash": session}
        return httpx.post(f"{address}gradio_api/queue/join", json=asked, headers=headers, timeout=60)

    def ended(self, entries):
        until = time.monotonic() + 120
        while not all(entry.standing.is_over for entry in entries()):
            assert time.monotonic() < until
            time.sleep(0.1)

    def test_seventeen_posts_of_one_visitor_keep_nobody_from_stop_previews_and_video(
        self, address, entries, long_job, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("serving.visitors.listeners.GRACE_SECONDS", 2)
        assert {self.post(address, long_job, f"nobody {number}").status_code for number in range(17)} == {200}
        assert sum(not entry.standing.is_over for entry in entries()) <= 3
        hers = Client(address, verbose=False, download_files=str(tmp_path / "hers"), headers=came_from("203.0.113.9"))
        stopped = hers.submit(prompt="a fox", frames=128, steps=100, api_name=ENDPOINT)
        next(iter(stopped))  # how it stands
        assert stopped.cancel()
        video, _, _ = hers.predict(prompt="a fox", frames=1, steps=4, api_name=ENDPOINT)
        assert video
        self.ended(entries)  # what nobody listens to ends by itself

    def test_what_one_address_posts_fills_gradio_s_queue_for_nobody_else(self, address, tmp_path, monkeypatch):
        """Looks at clips are taken few at a time; Gradio would take 256 of them from anybody."""
        looked = threading.Event()
        monkeypatch.setattr("tabs.parts.clip_source.reading", lambda *_, **__: looked.wait(60) and refuse())
        config = httpx.get(f"{address}config").json()
        look = next(one for one in config["dependencies"] if one["api_name"] == "shown")
        with write_clip(tmp_path, "gif").open("rb") as clip:
            (path,) = httpx.post(f"{address}gradio_api/upload", files={"files": clip}).json()
        data = [0, 8, 8, {"path": path, "meta": {"_type": "gradio.FileData"}}]

        def post(number, who):
            body = {"fn_index": look["id"], "data": data, "session_hash": f"{who} {number}"}
            return httpx.post(f"{address}gradio_api/queue/join", json=body, headers=came_from(who))

        answers = [post(number, "198.51.100.7") for number in range(40)]
        hers = post(0, "203.0.113.9")
        looked.set()
        refused = [answer for answer in answers if answer.status_code == 429]
        most = 40 - Limits().events
        assert most - LOOKS_AT_ONCE - 1 <= len(refused) <= most
        assert "Too much from your address waits" in refused[0].json()["detail"]
        assert hers.status_code == 200

    def test_a_connection_that_breaks_ends_the_job(self, address, entries, queues, long_job, monkeypatch):
        monkeypatch.setattr("serving.visitors.listeners.GRACE_SECONDS", 1)
        assert self.post(address, long_job, "left").status_code == 200
        with httpx.stream("GET", f"{address}gradio_api/queue/data?session_hash=left", timeout=60) as news:
            next(news.iter_lines())
            assert queues[0].listeners.hears("left", since=0)
        self.ended(entries)
        assert isinstance(entries()[-1].standing.state, Stopped)

    def test_what_is_too_large_is_refused_on_the_server(self, address):
        client = Client(address, verbose=False, download_files=False)
        for values in ({"frames": 512}, {"size": "2048x2048"}, {"steps": 999}):
            with pytest.raises(AppError, match="a shared page"):
                client.predict(**{"prompt": "a fox", "frames": 1, "steps": 4, **values}, api_name=ENDPOINT)

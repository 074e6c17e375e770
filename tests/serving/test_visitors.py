"""Many visitors: nothing grows with those who came."""

from __future__ import annotations

import httpx
import psutil
import pytest
from gradio_client import Client

from tests.served import program

ENDPOINT = "/text-to-video"
SESSIONS, WARM = 500, 20
MOST_GROWTH = 50e6  # bytes


class Page:
    """A page of the app as a browser opens it, without a browser: what it loads, asks at first, and holds open."""

    def __init__(self, address):
        self.address, self.client = address, httpx.Client(base_url=address, timeout=60)
        config = self.client.get("config").json()
        self.loading = [
            entry
            for entry in config["dependencies"]
            if entry["backend_fn"] and any(event == "load" for _, event in entry["targets"])
        ]
        assert self.loading
        self.values = {one["id"]: one["props"].get("value") for one in config["components"]}

    def view(self, session):
        """Open it and close it again."""
        self.client.get("")
        with self.client.stream("GET", f"gradio_api/heartbeat/{session}") as alive:
            next(alive.iter_lines())
            waiting = False
            for entry in self.loading:
                data = [self.values.get(name) for name in entry["inputs"]]
                body = {"fn_index": entry["id"], "data": data, "session_hash": session}
                waiting |= entry["queue"] is not False
                route = "run/predict" if entry["queue"] is False else "queue/join"
                answer = self.client.post(f"gradio_api/{route}", json=body)
                assert answer.status_code == 200, (entry["api_name"], data, answer.text)
            if waiting:
                with self.client.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as news:
                    assert any('"close_stream"' in line for line in news.iter_lines())


@pytest.mark.slow
def test_five_hundred_sessions_add_no_fifty_megabytes(tmp_path, record_property):
    with program(tmp_path, SPACE_ID="someone/space") as (process, address):
        page, memory = Page(address), psutil.Process(process.pid).memory_info
        Client(address, verbose=False, download_files=False).predict(prompt="a fox", frames=1, api_name=ENDPOINT)
        for number in range(WARM):
            page.view(f"warm {number}")
        before = memory().rss
        for number in range(SESSIONS):
            page.view(f"session {number}")
        grown = memory().rss - before
    record_property("megabytes", grown / 1e6)
    print(f"{SESSIONS} sessions added {grown / 1e6:.0f} MB to {before / 1e6:.0f}")  # noqa: T201 - a measurement
    assert grown < MOST_GROWTH

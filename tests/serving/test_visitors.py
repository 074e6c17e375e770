"""Many visitors, for a while: nothing grows with those who came, and nobody's job is lost or another's."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from tests.example_files import write_clip
from tests.served import came_from, program

ENDPOINT = "/text-to-video"
SESSIONS = 500
WARM = 60  # twice as many as a shared page keeps, at a megabyte each: those are no growth
MOST_GROWTH = 50e6  # bytes
VISITORS, SECONDS = 6, float(os.environ.get("VISITORS_SECONDS", "60"))
MOODS = {"made": 0.6, "stopped": 0.2, "left": 0.2}


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


# Imported by Python as it starts, also in the processes that the program starts.
TELLS_CONNECTIONS = """
import os, sys

def heard(event, told):
    if event in {"socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"}:
        address = told[0] if event.startswith("socket.get") else told[1]
        with open(os.environ["CONNECTIONS"], "a") as log:
            log.write(f"{address[0] if isinstance(address, tuple) else address}\\n")

sys.addaudithook(heard)
"""
OF_THIS_MACHINE = {"127.0.0.1", "::1", "localhost", "None"}
CONNECTS = "import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.1', 9))"  # and sends nothing


@pytest.mark.slow
def test_a_visit_has_the_server_connect_to_nobody(tmp_path):
    """Nor look a name up: the page is opened, two videos are made on Toyland, one from a clip, and fetched."""
    (tmp_path / "sitecustomize.py").write_text(TELLS_CONNECTIONS)
    log = tmp_path / "connections"
    variables = {"PYTHONPATH": str(tmp_path), "CONNECTIONS": str(log), "HF_ENDPOINT": "http://hub.invalid"}
    subprocess.run([sys.executable, "-c", CONNECTS], check=True, env=os.environ | variables)
    assert log.read_text() == "192.0.2.1\n"  # it would be heard
    log.write_text("")
    with program(tmp_path, SPACE_ID="someone/space", **variables) as (_, address):
        Page(address).view("a visitor")
        client = Client(address, verbose=False, download_files=str(tmp_path / "downloads"))
        clip = handle_file(write_clip(tmp_path, "mp4"))
        for endpoint, values in {ENDPOINT: {}, "/edge": {"clip": clip}}.items():
            video, _, _ = client.predict(prompt="a fox", frames=2, steps=4, **values, api_name=endpoint)
            assert Path(video).stat().st_size > 0
    assert set(log.read_text().split()) <= OF_THIS_MACHINE


class Visitor(threading.Thread):
    """Somebody who asks for videos, loses patience, and goes away in the middle, until it is time."""

    def __init__(self, address, number, folder):
        super().__init__(daemon=True)
        self.address, self.number = address, number
        self.headers = came_from(f"198.51.100.{number}")
        self.client = Client(address, verbose=False, download_files=str(folder), headers=self.headers)
        self.random, self.wrong, self.met = np.random.default_rng(number), [], dict.fromkeys(MOODS, 0)

    def walk(self, expected, until):
        self.expected, self.until = expected, until
        self.start()

    def run(self):
        try:
            while time.monotonic() < self.until:
                mood = self.random.choice(list(MOODS), p=list(MOODS.values()))
                getattr(self, mood)()
                self.met[mood] += 1
        except (AppError, httpx.HTTPError, AssertionError) as error:
            self.wrong.append(error)

    def video(self, seed):
        video, told, _ = self.client.predict(prompt="a fox", frames=2, steps=4, seed=seed, api_name=ENDPOINT)
        assert told == seed
        return Path(video).read_bytes()

    def made(self):
        seed = int(self.random.choice(list(self.expected)))
        assert self.video(seed) == self.expected[seed], seed

    def stopped(self):
        job = self.client.submit(prompt="a cat", frames=8, steps=60, seed=1, api_name=ENDPOINT)
        next(iter(job))
        time.sleep(self.random.random())
        job.cancel()

    def left(self):
        """As a browser that is closed: the connection goes, and nobody says why."""
        session = f"{self.number} {self.random.random()}"
        config = httpx.get(f"{self.address}config").json()
        made = next(entry for entry in config["dependencies"] if entry["api_name"] == ENDPOINT[1:])
        parameters = httpx.get(f"{self.address}gradio_api/info").json()["named_endpoints"][ENDPOINT]["parameters"]
        asked = {"prompt": "a panda", "frames": 8, "steps": 60, "model": "toyland"}
        data = [asked.get(one["parameter_name"], one.get("parameter_default")) for one in parameters]
        body = {"fn_index": made["id"], "data": data, "session_hash": session}
        assert httpx.post(f"{self.address}gradio_api/queue/join", json=body, headers=self.headers).status_code == 200
        with httpx.stream("GET", f"{self.address}gradio_api/queue/data", params={"session_hash": session}) as news:
            next(news.iter_lines())


@pytest.mark.slow
def test_visitors_who_stop_and_leave_for_a_minute_lose_no_job_and_leave_nothing(tmp_path):
    flags = ("--limit", "minute=10000", "--trust-proxy", "127.0.0.1")
    with program(tmp_path, *flags, SPACE_ID="someone/space") as (process, address):
        visitors = [Visitor(address, number, tmp_path / f"visitor {number}") for number in range(1, VISITORS + 1)]
        expected = {seed: visitors[seed].video(seed) for seed in range(3)}
        assert len(set(expected.values())) == 3
        server = psutil.Process(process.pid)
        threads, children = server.num_threads(), len(server.children())
        until, memory = time.monotonic() + SECONDS, []
        for visitor in visitors:
            visitor.walk(expected, until)
        while any(visitor.is_alive() for visitor in visitors):
            memory.append(server.memory_info().rss)
            time.sleep(0.5)
        assert [visitor.wrong for visitor in visitors] == [[]] * VISITORS
        met = {mood: sum(visitor.met[mood] for visitor in visitors) for mood in MOODS}
        assert min(met.values()) > 0, met
        deadline = time.monotonic() + 120
        while server.cpu_percent(interval=1) > 20:  # nobody waits for a video any more, and none is made
            assert time.monotonic() < deadline
        middle, end = memory[len(memory) // 2] / 1e6, memory[-1] / 1e6
        print(f"{met} in {SECONDS:.0f} s; {middle:.0f} MB half-way, {end:.0f} at the end")  # noqa: T201 - a measurement
        half, quarter = len(memory) // 2, len(memory) // 4
        third, last = (statistics.median(part) for part in (memory[half:-quarter], memory[-quarter:]))
        assert last < 1.05 * third
        assert len(server.children()) <= children
        assert server.num_threads() <= threads + 8  # the server's own pools keep some for the next
        process.terminate()
        assert process.wait(timeout=30) == 0
        assert [path for path in tmp_path.iterdir() if path.name.startswith("text2video-zero")] == []

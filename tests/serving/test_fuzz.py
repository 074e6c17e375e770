"""Whatever a stranger sends, a shared page answers without falling down and tells nothing of its machine."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import httpx
import pytest

from serving.visitors.limits import Limits
from tests.served import served

VALUES = (
    None,
    "",
    "a fox",
    "\u202e\ud83d\x00 %s {{7*7}} <script>",
    "x" * 20_000,
    "../../etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "https://example.com/a.mp4",
    -1,
    0,
    1,
    2**63,
    -1e308,
    "NaN",
    True,
    [],
    [[[]]],
    {},
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
    {"path": "/", "meta": {"_type": "gradio.FileData"}},
    {"path": "http://127.0.0.1:1/", "meta": {"_type": "gradio.FileData"}},
    {"video": {"path": "../app.py", "meta": {"_type": "gradio.FileData"}}},
)
BODIES = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"data": 1}',
    b'{"data": [], "fn_index": 99999}',
    b'{"fn_index": -1}',
)
FILES = ("/etc/passwd", "app.py", "../app.py", "%2e%2e/app.py", "/proc/self/environ", "/", "", "C:\\boot.ini", "%00")
TRACE = re.compile(r"Traceback|File \"|site-packages|\.py\", line")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def client(folder):
    with (
        served("toyland", folder, shared=True, patience=1, limits=Limits(frames=1, steps=4)) as address,
        # A connection each: after an error of its own uvicorn closes the one that it was on.
        httpx.Client(base_url=address, timeout=60, headers={"connection": "close"}) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def endpoints(client):
    """Name -> number of its parameters."""
    named = client.get("gradio_api/info").json()["named_endpoints"]
    return {name: len(one["parameters"]) for name, one in named.items()}


def tells_nothing(answer: httpx.Response, folder) -> None:
    """An answer shows no bug and no place of this machine. Its status may be 500, which is Gradio's for any error."""
    assert not TRACE.search(answer.text), answer.text[:500]
    for place in (folder, Path.cwd(), Path.home()):
        assert str(place) not in answer.text, (answer.request.url, answer.request.content[:200], answer.text[:500])


def called(client, name, data) -> httpx.Response:
    """What comes of a call in the end: the stream of its events, or why there is none."""
    begun = client.post(f"gradio_api/call{name}", content=json.dumps({"data": data}))
    if begun.status_code != 200:
        return begun
    return client.get(f"gradio_api/call{name}/{begun.json()['event_id']}")


def fuzz(client, endpoints, folder, seed: int, calls: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same calls each time
    for _ in range(calls):
        name = chance.choice(list(endpoints))
        count = endpoints[name] + chance.choice((0, 0, 0, 0, -1, 1, 5))
        tells_nothing(called(client, name, [chance.choice(VALUES) for _ in range(max(count, 0))]), folder)
    for _ in range(calls):
        body = chance.choice(BODIES)
        if chance.random() < 0.5:
            body = json.dumps({"data": [chance.choice(VALUES)], "fn_index": chance.randrange(400), "session_hash": "s"})
        route = chance.choice(["queue/join", "run/predict", *(f"call{name}" for name in endpoints)])
        headers = {"content-type": "application/json"}
        tells_nothing(client.post(f"gradio_api/{route}", content=body, headers=headers), folder)
        tells_nothing(client.get(f"gradio_api/file={chance.choice(FILES)}"), folder)


def test_what_nobody_meant_is_refused_in_peace_and_what_is_meant_is_made(client, endpoints, folder):
    fuzz(client, endpoints, folder, 0, 60)
    asked = {"prompt": "a fox", "frames": 1, "steps": 4, "seed": 1}
    answer = client.post("gradio_api/call/v2/text-to-video", json=asked)
    made = client.get(f"gradio_api/call/text-to-video/{answer.json()['event_id']}")
    assert "event: complete" in made.text


@pytest.mark.slow
def test_nor_does_a_thousand_times_more(client, endpoints, folder):
    fuzz(client, endpoints, folder, 1, 1_000)

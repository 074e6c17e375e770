"""ZeroGPU: what its package refuses in our words, how long a job may take, and jobs in the processes that it forks."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import yaml

import app
from serving.options import read_options
from serving.runners import spaces
from serving.runners.local import LocalRunner
from serving.runners.spaces import SENTENCES, ZeroGPURunner, in_our_words, is_zero_gpu
from text2video_zero.errors import UserError
from text2video_zero.job import Job, build_job
from text2video_zero.models.catalogue import TOYLAND
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.requests import TextToVideoRequest
from text2video_zero.requests.presets import DRAFT

ROOT = Path(__file__).resolve().parents[2]
needs_spaces = pytest.mark.skipif(importlib.util.find_spec("spaces") is None, reason="the spaces package is missing")


class PackageError(Exception):
    """As the package raises them: Gradio's error with a title."""

    def __init__(self, title, message):
        super().__init__(message)
        self.title, self.message = title, message


class TestOurWords:
    @pytest.mark.parametrize(
        ("title", "message", "sentence"),
        [
            (
                "ZeroGPU quota exceeded",
                "You have exceeded your free ZeroGPU quota (60s requested vs. 9s left). Try again in 3:20:01. ",
                (
                    "asks for 60 seconds of GPU, and 9 are left of your quota at Hugging Face: ask for fewer frames or "
                    "steps, log in there, or come back in 3:20:01."
                ),
            ),
            ("ZeroGPU quota exceeded", "Space app has reached its GPU limit. ", "is used up: log in there"),
            ("ZeroGPU illegal duration", "The requested GPU duration (900s) is larger", "asks for 900 seconds of GPU"),
            ("ZeroGPU queue timeout", "No GPU was available after 60s", "No GPU was free within a minute"),
            ("ZeroGPU client error", "No GPU was available", "No GPU was free: try again"),
            ("ZeroGPU client error", "Expired ZeroGPU proxy token", "load it again"),
            ("ZeroGPU pending credits exceeded", "You have too many ZeroGPU credits", "wait until some of them"),
            ("ZeroGPU worker error", "GPU task aborted", "The GPU was taken back before"),
        ],
    )
    def test_what_the_package_refuses_is_told_with_its_remedy(self, title, message, sentence):
        with pytest.raises(UserError, match=re.escape(sentence)), in_our_words():
            raise PackageError(title, message)

    def test_a_bug_stays_a_bug(self):
        for error in (PackageError("ZeroGPU worker error", "ZeroDivisionError"), ZeroDivisionError()):
            with pytest.raises(type(error)), in_our_words():
                raise error

    @needs_spaces
    def test_these_are_the_titles_of_the_installed_package(self):
        folder = Path(importlib.util.find_spec("spaces").origin).parent / "zero"
        source = "".join((folder / name).read_text() for name in ("client.py", "wrappers.py"))
        for title, sign, _ in SENTENCES:
            assert f'"{title}"' in source
            assert sign in source


def test_off_zero_gpu_nothing_changes_whether_the_package_is_there_or_not(monkeypatch):
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    monkeypatch.setitem(sys.modules, "spaces", None)
    assert not is_zero_gpu()
    assert isinstance(app.open_runner(read_options([])), LocalRunner)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert is_zero_gpu()
    with pytest.raises(UserError, match=r"On ZeroGPU the package spaces is needed: add it to requirements\.txt"):
        app.open_runner(read_options([]))


def test_a_job_asks_for_the_gpu_by_its_frames_steps_and_size(monkeypatch, manager, tiny_checkpoint):
    pytest.importorskip("spaces")
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    checkpoint = Checkpoint(str(tiny_checkpoint))
    runner = ZeroGPURunner(lambda: manager, checkpoint)

    def seconds(**values):
        return runner.seconds(Job(TextToVideoRequest(prompt="a fox", **values), checkpoint))

    assert seconds(frames=8, steps=50) < seconds(frames=16, steps=50) < seconds(frames=16, steps=100)
    assert spaces.BEGINNING_SECONDS_OF_OTHERS < seconds(frames=2, steps=4) < 20
    first = build_job("text-to-video", {"prompt": "a fox"}, model=TOYLAND.name, preset=DRAFT)
    assert runner.seconds(first) <= 10
    before = seconds(frames=64, steps=50)
    for _ in range(5):
        runner.pace.learn(Job(TextToVideoRequest(prompt="a fox", frames=8, steps=50), checkpoint), 400.0)
    assert seconds(frames=64, steps=50) > 2 * before
    assert is_zero_gpu() is False
    *_, finished = runner.run(Job(TextToVideoRequest(prompt="a fox", frames=2, steps=4, seed=3), checkpoint))
    assert len(finished.video.frames) == 2


LENT = 1000


class ControlPlane(BaseHTTPRequestHandler):
    """Lends a GPU for LENT seconds at most; calls: what was asked, on the server."""

    def do_POST(self):
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        self.server.calls.append((path, query))
        status, answer = 200, {}
        if path == "/schedule" and int(query["durationSeconds"][0]) > LENT:
            status, answer = 429, {"left": 60, "wait": 3600}
        elif path == "/schedule":
            answer = {"idle": False, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": "allowed"}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def run(tiny_checkpoint, tmp_path_factory):
    """What the program tells, and what it asked of the control plane."""
    folder = tmp_path_factory.mktemp("zero")
    (folder / "cgroup").write_text("0::/space\n")
    plane = ThreadingHTTPServer(("127.0.0.1", 0), ControlPlane)
    plane.calls = []
    threading.Thread(target=plane.serve_forever, daemon=True).start()
    variables = {
        "SPACES_ZERO_GPU": "true",
        "SPACES_ZERO_DEVICE_API_URL": f"http://127.0.0.1:{plane.server_port}",
        "ZEROGPU_PROC_SELF_CGROUP_PATH": str(folder / "cgroup"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HOME": str(folder),
    }
    command = [sys.executable, "-m", "tests.serving.on_zero_gpu", str(tiny_checkpoint), str(folder / "jobs")]
    ran = subprocess.run(
        command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=380
    )
    plane.shutdown()
    plane.server_close()
    assert ran.returncode == 0, ran.stderr[-4000:]
    return json.loads(ran.stdout.splitlines()[-1]), plane.calls


@needs_spaces
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ZeroGPU is Linux")
class TestForked:
    def test_the_first_model_lies_on_the_device_that_is_packed_at_the_launch(self, run):
        assert run[0]["placed"] == {"kind": "cuda", "device": "cuda:0", "packed": True}

    def test_a_job_comes_back_from_the_forked_process_as_it_is_here(self, run, manager, tiny_checkpoint):
        request = TextToVideoRequest(prompt="a fox", frames=2, steps=4, seed=3)
        *_, here = LocalRunner(lambda: manager).run(Job(request, Checkpoint(str(tiny_checkpoint))))
        assert np.array_equal(np.asarray(run[0]["frames"], np.uint8), np.asarray(here.video.frames))
        assert {"Waiting for a GPU", "Decoding"} < set(run[0]["stages"])

    def test_a_stopped_job_gives_the_gpu_back_and_the_next_one_works(self, run):
        assert run[0]["after a stop"]
        paths = [path for path, _ in run[1]]
        lent = len([1 for path, query in run[1] if path == "/schedule" and int(query["durationSeconds"][0]) <= LENT])
        assert paths.count("/release") == lent

    def test_a_mistake_and_a_spent_quota_are_told_in_our_sentences(self, run):
        assert "missing" in run[0]["mistake"]
        assert "clip.gif" in run[0]["mistake in the call"]
        assert "Your quota of GPU time at Hugging Face is used up" in run[0]["no quota"]
        left = r"asks for \d+ seconds of GPU, and 60 are left of your quota at Hugging Face: .* come back in 1:00:00\."
        assert re.search(left, run[0]["no quota left"])

    def test_a_job_asks_in_its_visitor_s_name_also_out_of_the_queue(self, run):
        assert run[0]["queued"] == "Done"
        assert run[0]["kept"] == 0
        asked = [query for path, query in run[1] if path == "/schedule"]
        in_her_name = [
            int(query["durationSeconds"][0]) <= LENT for query in asked if query.get("token") == ["e30.e30.e30"]
        ]
        assert in_her_name == [True, False]  # the queued one, and the one that was refused

    def test_longer_videos_ask_for_more(self, run):
        eight, many = run[0]["seconds"]
        assert eight < many


def test_the_space_is_set_up_as_zero_gpu_lists_it():
    _, front_matter, _ = (ROOT / "README.md").read_text().split("---\n", 2)
    said = yaml.safe_load(front_matter)
    pins = (ROOT / "requirements.txt").read_text()
    assert said["sdk"] == "gradio"
    assert f"gradio=={said['sdk_version']}" in pins.splitlines()
    assert said["python_version"] == "3.12.12"  # of those that it has the one that diffusers takes
    assert "torch==2.11.0" in pins.splitlines()

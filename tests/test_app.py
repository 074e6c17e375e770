from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

import app
from serving.jobs import Interrupted
from serving.store import JobStore
from tests.media.clip_files import described_video
from tests.served import program, served
from tests.tiny_models import write_lora
from text2video_zero.job import fields_with_defaults
from text2video_zero.media.settings import read_settings
from text2video_zero.requests import REQUESTS, TextToVideoRequest

ENDPOINT = "/text-to-video"
MOST_STEPS = {name: spec.maximum for name, _, spec in TextToVideoRequest.declarations()}["steps"]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def queues():
    """What takes the queue of the page."""
    return []


@pytest.fixture(scope="module")
def address(tiny_checkpoint, outputs, queues):
    with served(tiny_checkpoint, outputs, queues=queues) as url:
        yield url


@pytest.fixture(scope="module")
def client(address, tmp_path_factory):
    return Client(address, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


def predict(client, **values):
    return client.predict(**({"prompt": "a fox", "frames": 2, "steps": 4} | values), api_name=ENDPOINT)


def test_every_task_is_an_endpoint_with_each_field_by_name_and_nothing_else_is(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert sorted(endpoints) == sorted(f"/{task}" for task in REQUESTS)
    for task, request in REQUESTS.items():
        names = [parameter["parameter_name"] for parameter in endpoints[f"/{task}"]["parameters"]]
        assert names == ["model", "loras", *(name for name, _, _ in request.declarations())]
        assert [value["label"] for value in endpoints[f"/{task}"]["returns"]] == ["Video", "Seed", "Settings"]


def test_the_endpoint_s_parameters_have_the_declared_defaults_and_types(client):
    endpoint = client.view_api(return_format="dict", print_info=False)["named_endpoints"][ENDPOINT]
    parameters = {parameter["parameter_name"]: parameter for parameter in endpoint["parameters"]}
    declared = {name: default for name, default, _ in TextToVideoRequest.declarations()}
    left_out = dict.fromkeys([*fields_with_defaults("text-to-video"), "start_picture"])  # model and speed decide
    assert left_out.keys() > {"steps", "guidance_scale", "sampler", "motion_from", "pan_x"}
    assert {name: parameters[name]["parameter_default"] for name in declared} == declared | {"size": ""} | left_out
    assert all(parameters[name]["parameter_has_default"] for name in left_out)
    types = {name: parameter["python_type"]["type"] for name, parameter in parameters.items()}
    assert (types["prompt"], types["frames"], types["fps"], types["seed"]) == ("str", "int", "int", "int")
    assert (types["pan_x"], types["motion"], types["steps"]) == ("float", "bool", "int")


def test_a_program_gets_a_playable_video_whose_settings_make_it_again(client):
    video, seed, settings = predict(client, fps=5, seed=-1)
    assert 0 <= seed < 2**32
    assert settings["request"] | {"seed": seed, "size": "64x64", "frames": 2, "fps": 5} == settings["request"]
    assert read_settings(Path(video)) == settings
    facts = described_video(Path(video))
    assert [facts[name] for name in ("codec", "size", "fps", "frames")] == ["h264", (64, 64), 5, 2]
    again, _, _ = predict(client, **settings["request"])
    assert Path(again).read_bytes() == Path(video).read_bytes()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"prompt": " "}, "Prompt is empty: write what you want to see."),
        ({"size": "500x300"}, "Size is 500x300, but sides must be multiples of 8: use 496x304."),
        ({"size": "wide"}, "The size 'wide' is not of the form WIDTHxHEIGHT: write for example 512x512."),
        ({"steps": 3}, f"Steps is 3, out of range: give a whole number from 4 to {MOST_STEPS:g}."),
        ({"fps": 99}, "Frames per second is 99, out of range: give a whole number from 1 to 60."),
        ({"sampler": "Magic"}, "Sampler is 'Magic': choose one of DDIM, DPM++ 2M, UniPC, Euler, DDIM trailing, LCM."),
        ({"frames": None}, "Frames is None: give a whole number from 1 to 512."),
        ({"motion": "yes"}, "Motion is 'yes': choose yes (true) or no (false)."),
        ({"loras": "a-style:much"}, "The weight 'much' of the LoRA 'a-style' is no number"),
        ({"model": ""}, "Model is empty: choose one of toyland"),
        ({"model": "/no/such/model.safetensors"}, "does not exist"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(client, values, sentence):
    with pytest.raises(AppError, match=re.escape(sentence)) as caught:
        predict(client, **values)
    assert "Traceback" not in str(caught.value)


def test_loras_are_added_and_recorded(client, tiny_checkpoint, tmp_path):
    ink, wool = (
        write_lora(tmp_path / f"{name}.safetensors", tiny_checkpoint, seed=seed)
        for seed, name in enumerate(("ink", "wool"))
    )
    _, _, settings = predict(client, loras=f"{ink}:0.5\n\n {wool} ", seed=3)
    assert settings["loras"] == ["ink:0.5", "wool:1"]
    assert "loras" not in predict(client, seed=3)[2]


def test_a_bug_is_told_without_its_details_which_the_log_has(client, monkeypatch, caplog):
    from text2video_zero import generate

    def broken(*_):
        raise ZeroDivisionError("inner detail")

    monkeypatch.setattr(generate, "generate", broken)
    with pytest.raises(AppError, match="Something went wrong, the log has the details") as caught:
        predict(client)
    assert "inner detail" not in str(caught.value)
    assert "ZeroDivisionError: inner detail" in caplog.text
    assert "in broken" in caplog.text  # the traceback leads to where it happened


def test_two_programs_at_once_both_get_their_video(address, client, tmp_path):
    second = Client(address, verbose=False, download_files=str(tmp_path))
    answers = []
    threads = [
        threading.Thread(target=lambda who=who, seed=seed: answers.append(predict(who, seed=seed)))
        for who, seed in ((client, 1), (second, 2))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(seed for _, seed, _ in answers) == [1, 2]
    assert len({Path(video).read_bytes() for video, _, _ in answers}) == 2


def test_a_cancelled_run_stops_within_a_step_and_the_next_one_works(client, outputs):
    kept = len(list(outputs.rglob("*.mp4")))
    job = client.submit(prompt="a fox", frames=8, steps=MOST_STEPS, api_name=ENDPOINT)
    next(iter(job))
    job.cancel()
    began = time.monotonic()
    video, _, _ = predict(client)
    assert video
    assert time.monotonic() - began < 20
    assert len(list(outputs.rglob("*.mp4"))) == kept + 1


def test_a_job_that_the_page_s_owner_stops_or_takes_out_of_the_queue_is_no_answer_without_a_video(client, queues):
    (queue,) = queues
    stopped = client.submit(prompt="a fox", frames=8, steps=MOST_STEPS, api_name=ENDPOINT)
    next(iter(stopped))
    waits = client.submit(prompt="a cat", api_name=ENDPOINT)
    while not queue.waiting(""):
        time.sleep(0.05)
    queue.empty("")
    queue.stop(next(entry for entry in queue.of("") if not entry.standing.is_over))
    for job in (stopped, waits):
        with pytest.raises(AppError, match=re.escape("Stopped before the video was made.")):
            job.result(timeout=60)


def test_the_page_is_up_before_diffusers_is_imported(tmp_path):
    program = (
        "import sys, app\n"
        "from pathlib import Path\n"
        "store = app.open_store(Path(sys.argv[1]), shared=False, keep_settings=True)\n"
        "runner = app.LocalRunner(lambda: app.open_models(app.read_options(['--device', 'cpu'])))\n"
        "app.build_app(app.JobQueue(runner, store), app.ModelMenu('toyland', free=True))\n"
        "assert 'diffusers' not in sys.modules\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    subprocess.run(command, check=True, cwd=Path(app.__file__).parent, timeout=120)


def test_a_mistake_on_the_command_line_ends_with_one_line_and_status_2(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SPACE_ID", "someone/space")
    assert app.main(["--model", "someone/some-model"]) == 2
    assert "not offered here" in capsys.readouterr().err
    monkeypatch.delenv("SPACE_ID")
    (tmp_path / "file").touch()
    assert app.main(["--output-dir", str(tmp_path / "file" / "videos")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_mcp_server_is_refused_where_a_password_is_asked_and_where_its_package_is_missing(capsys, monkeypatch):
    assert app.main(["--mcp", "--auth", "ann:pw"]) == 2
    assert "--mcp asks nobody for a password, and this page does" in capsys.readouterr().err
    monkeypatch.setenv("TEXT2VIDEO_MCP", "1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "mcp" else object())
    assert app.main([]) == 2
    assert 'run pip install "gradio[mcp]==' in capsys.readouterr().err


def test_a_port_in_use_is_told_in_one_line(address, capsys, tmp_path):
    port = address.rstrip("/").rsplit(":", 1)[1]
    assert app.main(["--port", port, "--output-dir", str(tmp_path)]) == 2
    assert f"Port {port} on 127.0.0.1 is in use" in capsys.readouterr().err


def begun(address, tmp_path, **values):
    """A program that waits for a long job, which is being computed."""
    client = Client(address, verbose=False, download_files=str(tmp_path / "downloads"))
    job = client.submit(**({"prompt": "a fox", "frames": 64, "steps": 100} | values), api_name=ENDPOINT)
    while not ((status := job.status()).progress_data and (status.progress_data[0].index or 0) > 0):
        assert not job.done(), job.result()
        time.sleep(0.1)
    return client


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_an_end_that_python_drops_is_heard_all_the_same(ending, monkeypatch):
    handlers = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    told = app.told_to_end()
    thing = Thing()
    _watched = weakref.ref(thing, lambda _: handlers[ending](ending, None))
    del thing  # the interruption comes in the callback, and Python drops it
    assert told.is_set()
    with pytest.raises(KeyboardInterrupt):
        handlers[ending](ending, None)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_is_ended_while_it_imports_gradio_ends_at_once(tmp_path, ending):
    """As the first process of a container it would hear no signal that it has no handler for."""
    (tmp_path / "gradio.py").write_text("import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(60)\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(app.__file__).parent}"}
    command = [sys.executable, app.__file__, "--output-dir", "kept"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as process:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(ending)
        assert process.wait(20) == 0


class Thing:
    """Something that can be referred to weakly."""


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_is_ended_in_mid_job_ends_cleanly_and_leaves_no_stranger_s_video(tmp_path, ending):
    with program(tmp_path, SPACE_ID="someone/space") as (process, address):
        predict(Client(address, verbose=False, download_files=str(tmp_path / "downloads")))
        made = list(tmp_path.glob("text2video-zero-*/**/*.mp4"))
        (upload,) = httpx.post(f"{address}gradio_api/upload", files={"files": ("mine.mp4", b"a clip")}).json()
        assert next(tmp_path.glob("text2video-zero-uploads-*")) in Path(upload).parents
        begun(address, tmp_path)
        process.send_signal(ending)
        assert process.wait(10) == 0  # then `docker stop` kills
    assert made
    assert list(tmp_path.glob("text2video-zero-*")) == []
    complaints = (tmp_path / "complaints").read_text()
    assert "terminate called" not in complaints
    assert "Traceback" not in complaints


@pytest.mark.slow
def test_what_a_killed_program_leaves_goes_at_the_next_start_and_its_job_can_be_gone_on_with(tmp_path):
    kept = tmp_path / "kept"
    with program(tmp_path, "--output-dir", str(kept)) as (process, address):
        begun(address, tmp_path)
        process.kill()
        process.wait()
    (folder,) = kept.iterdir()
    half = folder / f".{'0a' * 8}.mp4"
    half.touch()  # as if it had been killed while it saved
    maps = list(tmp_path.glob("text2video-zero-maps-*"))
    assert maps
    assert JobStore(kept).jobs()[0][1].state == Interrupted()
    with program(tmp_path, "--output-dir", str(kept)) as (process, address):
        predict(Client(address, verbose=False, download_files=str(tmp_path / "downloads")))
        assert not half.exists()
        assert not any(path.exists() for path in maps)

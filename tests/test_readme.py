"""What README tells a person to type works as it stands there."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import app
from text2video_zero.__main__ import build_parser

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON, ENGINE, PAGE = ".venv/bin/python", ".venv/bin/python -m text2video_zero ", ".venv/bin/python app.py"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands():
    """Those of the blocks, and those that stand within a sentence."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if line]
    prose = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    lines += re.findall(r"`((?:make|\.venv/bin/[^\s`]+) [^`]+)`", prose)
    return [re.sub(r"\s+# .*", "", line) for line in lines]


def rehearse(command):
    """Let make tell what it would do."""
    subprocess.run(["make", "-n", *shlex.split(command)[1:]], cwd=ROOT, check=True, capture_output=True)


def read(command):
    """Let the program read its options."""
    if command.startswith(PAGE):
        app.read_options(shlex.split(command.removeprefix(PAGE)))
    else:
        build_parser().parse_args(shlex.split(command.removeprefix(ENGINE)))


def find_parts(_):
    """Find what the command works on; tests/test_packaging.py looks into it."""
    assert (ROOT / "Dockerfile").is_file()


# What cannot run here: a sign of it, why, and what is checked instead.
LIGHTER = (
    (r"^make ", "serves without end, trains, or runs these tests", rehearse),
    (r"^docker ", "wants Docker and the network", find_parts),
    (r"app\.py --share", "opens a public address", read),
    (r"app\.py --mcp", "serves without end, and wants a further package", read),
    ("-m text2video_zero verify", "wants a video that is there", read),
    ("-m text2video_zero text-to-video --model sd-1.5", "downloads 2 GB", read),
    ("-m text2video_zero evaluate --model sd-1.5", "downloads 2 GB", read),
    ("--model ./my-model.safetensors", "is a file of the person's", read),
)
SERVING = [command for command in commands() if re.fullmatch(r"\S+ app.py( --model \S+)?", command)]
LIGHT = {command: check for command in commands() for sign, _, check in LIGHTER if re.search(sign, command)}
RUN = [command for command in commands() if command not in {*LIGHT, *SERVING}]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder as a fresh clone's; what commands write stays in it."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "assets" / "readme").mkdir(parents=True)
    for name in ("app.py", "model_manager.py", "serving", "tabs", "text2video_zero", "assets/clips", "assets/toyland"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def environment(**values):
    without = {"PYTHONPATH", "GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT"}
    return {name: value for name, value in os.environ.items() if name not in without} | {
        "HF_HUB_OFFLINE": "1",
        **values,
    }


def call(argv, clone):
    called = subprocess.run(argv, cwd=clone, env=environment(), capture_output=True, text=True, check=False)
    assert called.returncode == 0, called.stderr
    return called.stdout


@contextmanager
def served(command, clone):
    """The page's address, while the command runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv, log = shlex.split(command), clone / "served.log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            argv, cwd=clone, env=environment(GRADIO_SERVER_PORT=str(port)), stdout=output, stderr=output
        ) as page,
    ):
        try:
            end = time.monotonic() + 300
            while "is ready at" not in log.read_text():
                assert page.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            page.terminate()


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_kind_of_command_is_there():
    assert SERVING
    assert len(RUN) > 8
    assert all(any(re.search(sign, command) for command in LIGHT) for sign, *_ in LIGHTER)


@pytest.mark.parametrize("command", LIGHT)
def test_what_cannot_run_here_is_well_formed(command):
    if command.startswith("make ") and shutil.which("make") is None:
        pytest.skip("there is no make")
    LIGHT[command](command)


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN)
def test_runs(command, clone):
    argv = shlex.split(command)
    assert argv[0] == PYTHON
    assert call(argv, clone)
    if "--output" in argv:
        assert (clone / argv[argv.index("--output") + 1]).stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("command", SERVING)
def test_serves(command, clone):
    with served(command, clone) as address:
        assert httpx.get(address, timeout=60).status_code == 200


@pytest.mark.slow
def test_the_programs_run(clone):
    engine, client = blocks("python")
    (clone / "panda.mp4").unlink(missing_ok=True)
    call([PYTHON, "-c", engine], clone)
    assert (clone / "panda.mp4").stat().st_size > 0
    with served(PAGE, clone) as address:
        call([PYTHON, "-c", client.replace("http://127.0.0.1:7860", address)], clone)


def test_every_promise_of_security_names_tests_that_are_there():
    named = re.findall(r"`(tests/\S+\.py)::(\w+)`", (ROOT / "docs/SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) > 15
    for path, name in named:
        assert re.search(rf"^ *(async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), name

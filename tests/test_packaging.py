"""What a fresh clone is set up by: the files agree with each other and with what is installed."""

import fnmatch
import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from text2video_zero import __version__

ROOT = Path(__file__).resolve().parent.parent
PINS = [
    line
    for name in ("requirements.txt", "requirements-dev.txt")
    for line in (ROOT / name).read_text().splitlines()
    if line and not line.startswith(("#", "-r "))
]
TARGETS = ("demo", "test", "test-fast", "test-slow", "test-gpu", "lint", "bench", "toyland", "clean")


@pytest.mark.parametrize("pin", PINS)
def test_requirements_are_exact_and_the_installed_ones(pin):
    name, version = re.fullmatch(r"([A-Za-z0-9-]+)==([0-9][0-9.]*)", pin).groups()
    assert importlib.metadata.version(name).partition("+")[0] == version


def test_one_version_and_one_licence():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert (ROOT / "LICENSE").read_text().startswith(f"{project['license']} License")


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("target", TARGETS)
def test_make_knows(target):
    dry = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert dry.returncode == 0, dry.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_names_the_python_that_is_too_old(tmp_path):
    (tmp_path / "old-python").write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.2\nexit 1\n')
    (tmp_path / "old-python").chmod(0o755)
    argv = ["make", "demo", f"PYTHON={tmp_path}/old-python", f"VENV={tmp_path}/venv"]
    made = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode != 0
    assert "Python 3.11 or newer is needed, but" in made.stderr
    assert "is Python 3.8.2" in made.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_ci_script_is_a_script():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    subprocess.run(["bash", "-n", ".ci/run"], cwd=ROOT, check=True)


class TestContainer:
    def test_everything_it_copies_is_here(self):
        dockerfile = (ROOT / "Dockerfile").read_text()
        copied = re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", dockerfile, re.MULTILINE)
        assert copied
        assert all((ROOT / source).exists() for sources in copied for source in sources.split())

    @pytest.mark.parametrize(
        "needed", ["app.py", "model_manager.py", "requirements.txt", "text2video_zero", "tabs", "serving", "assets"]
    )
    def test_nothing_that_the_app_needs_is_left_out(self, needed):
        lines = (ROOT / ".dockerignore").read_text().splitlines()
        assert not any(fnmatch.fnmatch(needed, line) for line in lines if line and not line.startswith("#"))

    def test_torch_is_found_in_the_requirements(self):
        # As the Dockerfile's grep does, for an index of CPU-only wheels.
        assert [pin.split("==")[0] for pin in PINS if re.match(r"torch(vision)?==", pin)] == ["torch", "torchvision"]
        assert "grep -E '^torch(vision)?=='" in (ROOT / "Dockerfile").read_text()

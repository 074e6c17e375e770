"""What a fresh clone is set up by: the files agree with each other and with what is installed."""

import fnmatch
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from text2video_zero import __version__

ROOT = Path(__file__).resolve().parent.parent
PINS = [
    line
    for name in ("requirements.txt", "requirements-dev.txt")
    for line in (ROOT / name).read_text().splitlines()
    if line and not line.startswith(("#", "-r "))
]
LOCKED = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
TARGETS = ("demo", "test", "test-browser", "test-slow", "test-gpu", "lint", "bench", "toyland", "lock", "clean")


@pytest.mark.parametrize("pin", PINS)
def test_requirements_are_exact_and_the_installed_ones(pin):
    name, version = re.fullmatch(r"([A-Za-z0-9-]+)(?:\[[\w,-]+\])?==([0-9][0-9.]*)", pin).groups()
    assert importlib.metadata.version(name).partition("+")[0] == version


class TestLock:
    def locked(self):
        """The versions for this machine, by name."""
        requirements = [Requirement(line) for line in LOCKED]
        here = [one for one in requirements if one.marker is None or one.marker.evaluate()]
        return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in here}

    def test_holds_exact_versions_and_no_address(self):
        assert LOCKED
        assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*(?: ; .+)?", line) for line in LOCKED)

    def test_every_requirement_and_all_that_it_brings_along_is_locked_as_installed(self):
        locked, seen = self.locked(), set()
        waiting = [Requirement(pin) for pin in PINS]
        while waiting:
            wanted = waiting.pop()
            name = canonicalize_name(wanted.name)
            assert wanted.specifier.contains(locked[name], prereleases=True), wanted
            assert importlib.metadata.version(name).partition("+")[0] == locked[name]
            for line in importlib.metadata.requires(name) or ():
                further = Requirement(line)
                needed = further.marker is None or any(
                    further.marker.evaluate({"extra": extra}) for extra in (wanted.extras or {""})
                )
                if needed and (name, line) not in seen:
                    seen.add((name, line))
                    waiting.append(further)

    @pytest.mark.parametrize("user", ["Makefile", "Dockerfile"])
    def test_is_what_is_installed_by(self, user):
        text = (ROOT / user).read_text()
        installs = [line for line in text.splitlines() if re.search(r"pip install(?! .*--no-deps)", line)]
        assert installs
        assert all("--constraint requirements.lock" in line for line in installs)


def test_one_version_and_one_licence():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert (ROOT / "LICENSE").read_text().startswith(f"{project['license']} License")


def test_extras_are_of_the_versions_that_the_tests_run_with():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras.keys() == {"mcp", "ray", "spaces"}
    pins = {pin.replace("gradio[mcp]", "gradio") for pins in extras.values() for pin in pins}
    assert pins <= set(PINS)


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


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_removes_an_environment_that_debian_left_half_made(tmp_path):
    broken = '#!/bin/sh\n[ "$2" != pip ] && [ "$2" != ensurepip ]\n'
    (tmp_path / "broken").write_text(broken)
    (tmp_path / "debians-python").write_text(
        '#!/bin/sh\n[ "$1" = -c ] && exit 0\n'
        f'mkdir -p "$3/bin" && touch "$3/pyvenv.cfg" && cp "{tmp_path}/broken" "$3/bin/python"\n'
        'chmod +x "$3/bin/python"; echo "ensurepip is not available."; exit 1\n'
    )
    (tmp_path / "debians-python").chmod(0o755)
    argv = ["make", "demo", f"PYTHON={tmp_path}/debians-python", f"VENV={tmp_path}/venv", "UV="]
    for _ in range(2):  # the second one met the ruins of the first
        made = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        assert made.returncode != 0
        assert "apt install python3-venv" in made.stderr
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
        "needed", ["app.py", "model_manager.py", "requirements.lock", "text2video_zero", "tabs", "serving", "assets"]
    )
    def test_nothing_that_the_app_needs_is_left_out(self, needed):
        lines = (ROOT / ".dockerignore").read_text().splitlines()
        assert not any(fnmatch.fnmatch(needed, line) for line in lines if line and not line.startswith("#"))

    def test_what_is_to_be_kept_lies_in_the_volume(self):
        dockerfile = (ROOT / "Dockerfile").read_text()
        assert 'VOLUME ["/data"]' in dockerfile
        assert "HF_HOME=/data/" in dockerfile
        assert "--output-dir /data/outputs" in dockerfile
        assert ":/data " in (ROOT / "README.md").read_text()

    def test_torch_is_found_in_the_requirements(self):
        # As the Dockerfile's grep does, for an index of CPU-only wheels.
        assert [pin.split("==")[0] for pin in PINS if re.match(r"torch(vision)?==", pin)] == ["torch", "torchvision"]
        assert "grep -E '^torch(vision)?=='" in (ROOT / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory):
    """The folder of programs of a fresh environment: the wheel, and beside it the packages of this environment."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    lib = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    (Path(lib) / "shared.pth").write_text(sysconfig.get_path("purelib"))
    installer = (
        ["uv", "pip", "install", "--offline", "--python", str(python)]
        if shutil.which("uv")
        else [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index"]
    )
    subprocess.run([*installer, "--no-deps", str(wheel)], check=True, capture_output=True)
    return python.parent


@pytest.mark.slow
class TestWheel:
    def call(self, program, *argv, cwd):
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
        called = subprocess.run([program, *argv], cwd=cwd, env=env, capture_output=True, text=True, check=False)
        assert called.returncode == 0, called.stderr
        return called.stdout

    def test_holds_what_runs_and_nothing_else(self, wheel):
        names = zipfile.ZipFile(wheel).namelist()
        rooms = [ROOT / room for room in ("text2video_zero", "serving", "tabs")]
        modules = {str(path.relative_to(ROOT)) for room in rooms for path in room.rglob("*.py")}
        assert {name for name in names if name.endswith(".py")} == modules | {"app.py", "model_manager.py"}
        assert {"text2video_zero/py.typed", "tabs/look/style.css", "tabs/look/page.js"} <= set(names)
        assert "text2video_zero/assets/toyland/model_index.json" in names

    def test_works_from_an_empty_folder(self, programs, tmp_path):
        assert self.call(programs / "text2video-zero", "--version", cwd=tmp_path) == f"text2video_zero {__version__}\n"
        asked = ("text-to-video", "--prompt", "a red fox", "--frames", "2", "--steps", "4", "--size", "64x64")
        video = self.call(programs / "text2video-zero", *asked, "--quiet", cwd=tmp_path).strip()
        assert (tmp_path / video).stat().st_size > 0
        home = self.call(programs / "python", "-c", "import text2video_zero as it; print(it.__file__)", cwd=tmp_path)
        assert Path(home).is_relative_to(programs.parent)

    def test_the_page_finds_its_models(self, programs, tmp_path):
        (tmp_path / "models" / "mine").mkdir(parents=True)
        (tmp_path / "models" / "mine" / "model_index.json").write_text("{}")
        told = self.call(programs / "text2video-zero-app", "--check", cwd=tmp_path).splitlines()
        assert "Model toyland: here" in told
        assert "Model mine: here, in models/" in told

"""Carry out the Dockerfile's steps without Docker, and use what they make as a container is used.

    python .ci/docker_steps.py                                      installs everything, as `docker build` does
    python .ci/docker_steps.py --installed                          takes what is installed beside this Python
    python .ci/docker_steps.py --build-arg TORCH_INDEX=ADDRESS      as for `docker build`

A fresh folder is the root, in namespaces of its own. In place of the base image are this machine's system folders,
read-only, a bare /etc, and a new environment of this Python. What is not seen here: whether the base image has what the
steps call, layers, and the GPU. Exits with 77 where the machine lends no namespaces.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import socket
import string
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).resolve().parent.parent
SKIPPED = 77
NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64")
SETTINGS = (
    "alternatives",
    "ld.so.cache",
    "login.defs",
    "nsswitch.conf",
    "hosts",
    "resolv.conf",
    "ssl",
    "pip.conf",
    "xdg",
)
PYTHON = "/opt/python"
PATH = f"{PYTHON}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STOP_SECONDS = 10  # what `docker stop` waits
VIDEO = """
from gradio_client import Client
client = Client("http://127.0.0.1:{port}", verbose=False, download_files=False)
client.predict(prompt="a red fox", frames=2, steps=4, api_name="/text-to-video")
"""


def read_dockerfile() -> list[tuple[str, str]]:
    """The instructions: name and the rest, each on one line."""
    text = re.sub(r"^\s*#.*\n", "", (HERE / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines if line.strip())]


def ignored(patterns: Sequence[str]) -> re.Pattern[str]:
    """What .dockerignore keeps out of the build: `*` and `?` within a folder's name, `**` any folders."""
    kinds = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = ([kinds.get(part) or re.escape(part) for part in re.split(r"(\*\*/?|\*|\?)", one)] for one in patterns)
    return re.compile("|".join(f"(?:{''.join(part)})" for part in parts))


def copy_context(target: Path) -> None:
    """Copy what `docker build` would see of this folder."""
    lines = (HERE / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line.strip().strip("/") for line in lines if line.strip() and not line.startswith("#")]
    if any(pattern.startswith("!") for pattern in patterns):
        sys.exit("This script knows no exceptions in .dockerignore.")
    left_out = ignored(patterns)

    def which(folder: str, names: list[str]) -> set[str]:
        inside = Path(folder).relative_to(HERE)
        return {name for name in names if left_out.fullmatch((inside / name).as_posix())}

    shutil.copytree(HERE, target, symlinks=True, ignore=which)


def mount(*words: str | Path) -> None:
    """Call mount."""
    subprocess.run(["mount", *words], check=True)


def bind(source: Path, root: Path) -> None:
    """Show a file or folder of this machine at its own place in the root, read-only."""
    target = root / source.relative_to("/")
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount("--bind", source, target)
    mount("-o", "remount,bind,ro", target)


def lay_base(root: Path) -> None:
    """What every image begins with: system folders, an /etc with root alone in it, /dev, /proc and /sys."""
    for name in SYSTEM:
        folder = Path("/", name)
        if folder.is_symlink():
            (root / name).symlink_to(folder.readlink())
        elif folder.is_dir():
            bind(folder, root)
    for name in SETTINGS:
        if Path("/etc", name).exists():
            bind(Path("/etc", name), root)
    for name, line in {
        "passwd": "root:x:0:0:root:/root:/bin/sh",
        "group": "root:x:0:",
        "shadow": "root:*:1::::::",
    }.items():
        (root / "etc" / name).write_text(f"{line}\n", encoding="utf-8")
    for name in ("dev", "proc", "tmp", "root", "var/mail"):
        (root / name).mkdir(parents=True)
    mount("-t", "proc", "proc", root / "proc")
    mount("-t", "tmpfs", "tmpfs", root / "dev")
    (root / "dev" / "shm").mkdir()
    for name in ("tmp", "dev/shm"):
        (root / name).chmod(0o1777)
    for name in ("null", "zero", "full", "random", "urandom"):
        (root / "dev" / name).touch()
        mount("--bind", f"/dev/{name}", root / "dev" / name)
    bind(Path("/sys"), root)


def site_folders() -> list[Path]:
    """Where the packages lie that this Python imports."""
    return [Path(entry) for entry in sys.path if entry.endswith("-packages") and Path(entry).is_dir()]


@dataclass
class Image:
    """What the instructions have made so far.

    root: its folder on this machine.  given: build arguments by name.  environment: of all that runs in it.
    noted: instructions that say how it is to be used.
    """

    root: Path
    context: Path
    given: dict[str, str]
    arguments: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH, "HOME": "/root"})
    user: str = "0"
    folder: str = "/"
    noted: dict[str, str] = field(default_factory=dict)

    def called(self, *command: str) -> list[str]:
        """The command that this machine runs so that the command runs in the image."""
        return [
            "chroot",
            f"--userspec={self.user}:{self.user}",
            str(self.root),
            "env",
            f"--chdir={self.folder}",
            *command,
        ]

    def run(self, *command: str, **variables: str) -> None:
        """Run a command in the image; ends the script where it fails."""
        if subprocess.run(self.called(*command), env=self.environment | variables, check=False).returncode:
            sys.exit(f"FAILED: {shlex.join(command)}")

    def outside(self, path: str) -> Path:
        """Where a path of the image, or one from its working folder, lies on this machine."""
        return self.root / os.path.normpath(Path(self.folder, path)).lstrip("/")

    def add_python(self, *, installed: bool) -> None:
        """This Python's, without packages; installed: with those that it has here."""
        shown = [Path(sys.base_prefix), *(site_folders() if installed else ())]
        for folder in shown:
            if not folder.is_relative_to("/usr"):
                bind(folder, self.root)
        self.run(str(Path(sys.executable).resolve()), "-m", "venv", PYTHON)
        self.run("pip", "uninstall", "--quiet", "--yes", "setuptools")  # Python 3.12 and newer have none
        if installed:
            (own,) = self.outside(f"{PYTHON}/lib").glob("python3*/site-packages")
            (own / "installed.pth").write_text("".join(f"{one}\n" for one in site_folders()), encoding="utf-8")
            self.environment["PIP_NO_INDEX"] = "1"

    def carry_out(self, name: str, rest: str) -> None:
        """One instruction of those that our Dockerfile uses."""
        if name not in {"RUN", "ENTRYPOINT", "HEALTHCHECK"}:
            rest = string.Template(rest).safe_substitute(self.arguments | self.environment)
        if name == "ARG":
            argument, _, usual = rest.partition("=")
            self.arguments[argument] = self.given.get(argument, "".join(shlex.split(usual)))
        elif name == "ENV":
            self.environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif name == "RUN":
            self.run("/bin/sh", "-c", rest, **self.arguments, **registry())
        elif name == "COPY":
            self.copy(shlex.split(rest))
        elif name == "WORKDIR":
            self.folder = str(Path(self.folder, rest))
            self.outside(".").mkdir(parents=True, exist_ok=True)
        elif name == "USER":
            self.user = rest
            people = [line.split(":") for line in self.outside("/etc/passwd").read_text(encoding="utf-8").splitlines()]
            self.environment["HOME"] = next(home for _, _, user, _, _, home, _ in people if user == rest)
        elif name in {"FROM", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"}:
            self.noted[name] = rest
        else:
            sys.exit(f"This script does not know {name}.")

    def copy(self, words: list[str]) -> None:
        """COPY: what is copied is root's or that of --chown; a folder that was there stays whose it was."""
        flags = [word for word in words if word.startswith("--")]
        if any(not flag.startswith("--chown=") for flag in flags):
            sys.exit(f"This script does not know COPY {' '.join(flags)}.")
        user, group = (int(part) for part in (flags[0].removeprefix("--chown=") if flags else "0:0").split(":"))
        *sources, target = (word for word in words if word not in flags)
        for source in sources:
            if (self.context / source).is_dir():
                copied = [entry.relative_to(self.context / source) for entry in (self.context / source).rglob("*")]
                shutil.copytree(self.context / source, self.outside(target), symlinks=True, dirs_exist_ok=True)
            else:
                copied = [Path(source).name]
                shutil.copy2(self.context / source, self.outside(target))
            for path in copied:
                os.chown(self.outside(target) / path, user, group, follow_symlinks=False)


def registry() -> dict[str, str]:
    """How this machine reaches the package registry; variables and, among SETTINGS, files."""
    return {
        name: value
        for name, value in os.environ.items()
        if re.match(r"PIP_|https?_proxy|no_proxy", name, re.IGNORECASE)
    }


def seconds_of(flag: str, health: str) -> int:
    """A duration of HEALTHCHECK."""
    return int(re.findall(rf"--{flag}=(\d+)s", health)[0])


def part_from_machine() -> None:
    """What starts from now on has a network of its own, with nobody on it, and is a container's first process."""
    new_network, new_processes = 0x40000000, 0x20000000
    if ctypes.CDLL(None, use_errno=True).unshare(new_network | new_processes):
        raise OSError(ctypes.get_errno(), "unshare")
    set_flags, up_and_running = 0x8914, 0x41
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sH22x", b"lo", up_and_running))


def until_healthy(image: Image, process: subprocess.Popen[bytes]) -> float:
    """Seconds until HEALTHCHECK's command says that it is; ends the script where Docker would call it unhealthy."""
    health = image.noted["HEALTHCHECK"]
    command = json.loads(health.partition("CMD")[2])
    begun, patience = (
        time.monotonic(),
        seconds_of("start-period", health) + 3 * seconds_of("interval", health),
    )
    while time.monotonic() - begun < patience and process.poll() is None:
        asked = subprocess.run(
            image.called(*command),
            env=image.environment,
            capture_output=True,
            timeout=seconds_of("timeout", health),
            check=False,
        )
        if asked.returncode == 0:
            return time.monotonic() - begun
        time.sleep(1)
    sys.exit(f"FAILED: not healthy after {time.monotonic() - begun:.0f} s; exit code {process.poll()}")


def strays(image: Image, since: float) -> Iterator[str]:
    """What the user wrote where it does not outlive the container, but for caches and temporary files."""
    caches = {"__pycache__", "matplotlib", "fontconfig"}  # the last two are of packages that only the tests need
    for top in ("home", "opt", "var", "root", "etc"):
        for path in (image.root / top).rglob("*"):
            if not caches & set(path.parts) and path.is_file() and path.stat().st_mtime > since:
                yield f"/{path.relative_to(image.root)}"


def use(image: Image) -> None:
    """Start the entry point, wait until it is healthy, make a video, stop it, and look what is left."""
    (volume,), entry = json.loads(image.noted["VOLUME"]), json.loads(image.noted["ENTRYPOINT"])
    mine = image.outside(f"{volume}/models/mine")
    mine.mkdir()
    (mine / "model_index.json").write_text("{}", encoding="utf-8")
    part_from_machine()
    since = time.time()
    first = 'mount -t proc proc "$0" && exec "$@"'
    process = subprocess.Popen(
        ["sh", "-c", first, str(image.root / "proc"), *image.called(*entry)],
        env=image.environment | {"TEXT2VIDEO_PRIVATE": "1"},
    )
    print(f"Healthy after {until_healthy(image, process):.0f} s.", flush=True)
    user = Path(f"/proc/{process.pid}").stat().st_uid
    checked = subprocess.run(
        image.called(*entry, "--check"), env=image.environment, capture_output=True, text=True, check=False
    )
    if process.poll() is not None:
        sys.exit(f"FAILED: the entry point ended with {process.returncode}")
    image.run("python", "-c", VIDEO.format(port=image.noted["EXPOSE"]))
    process.send_signal(signal.SIGTERM)
    code = process.wait(STOP_SECONDS)
    videos = list(image.outside(f"{volume}/outputs").rglob("*.mp4"))
    found = {
        f"runs as {user}": str(user) == image.user,
        f"sees a model in {volume}/models": "Model mine: here, in models/" in checked.stdout,
        f"leaves its video in {volume}/outputs": len(videos) == 1 and str(videos[0].stat().st_uid) == image.user,
        f"ends with {code} at SIGTERM": code == 0,
        f"writes nowhere else: {list(strays(image, since))}": not list(strays(image, since)),
    }
    for what, good in found.items():
        print(f"{'ok' if good else 'FAILED'}: it {what}")
    if not all(found.values()):
        sys.exit(1)


def build_and_use(folder: Path, options: argparse.Namespace) -> None:
    """All of it, in an empty folder; runs in the namespaces."""
    os.umask(0o022)
    root, context = folder / "root", folder / "context"
    root.mkdir()
    copy_context(context)
    lay_base(root)
    image = Image(root, context, dict(pair.split("=", 1) for pair in options.build_arg))
    image.add_python(installed=options.installed)
    for name, rest in read_dockerfile():
        begun = time.monotonic()
        image.carry_out(name, rest)
        print(f"{time.monotonic() - begun:6.1f} s  {name} {rest}", flush=True)
    use(image)


def main() -> None:
    """Enter the namespaces, and do it there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--installed", action="store_true")
    parser.add_argument("--build-arg", action="append", default=[])
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        build_and_use(options.inside, options)
        return
    if shutil.which("unshare") is None:
        print("Skipped: namespaces are Linux's, and this machine has no unshare.")
        sys.exit(SKIPPED)
    tried = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        print(f"Skipped: namespaces are root's, and this machine lends none: {tried.stderr.strip()}")
        sys.exit(SKIPPED)
    # What is mounted is seen in the namespaces alone, and gone with them: the folder that is removed holds none of it.
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        inside = [*NAMESPACES, sys.executable, __file__, *sys.argv[1:], "--inside", folder]
        code = subprocess.run(inside, check=False).returncode
    sys.exit(code)


if __name__ == "__main__":
    main()

"""Tell which locked packages have known holes, as far as the service that knows them can be reached.

It tells and fails nothing: a hole that is found today is not the fault of today's change.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
SECONDS = 90  # for each step
ASKING = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json", "--requirement", str(LOCK)]


def asked() -> list[dict[str, Any]]:
    """What pip-audit says of each package; raises OSError, ValueError, KeyError or SubprocessError."""
    if shutil.which("uvx"):
        return _answer(["uvx", "pip-audit"])
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=SECONDS)
        pip = [f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "pip-audit"]
        subprocess.run(pip, check=True, timeout=SECONDS)
        return _answer([f"{folder}/bin/pip-audit"])


def _answer(command: list[str]) -> list[dict[str, Any]]:
    told = subprocess.run([*command, *ASKING], capture_output=True, timeout=SECONDS, check=False)
    return json.loads(told.stdout)["dependencies"]


def main() -> None:
    """Print what is known."""
    try:
        packages = asked()
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        print(f"Known holes were not looked for: pip-audit cannot be run ({type(error).__name__}).")
        return
    known = [package for package in packages if "vulns" in package]
    if not known:
        print("Known holes were not looked for: the service that knows them cannot be reached.")
        return
    holes = [(one["name"], one["version"], hole["id"]) for one in known for hole in one["vulns"]]
    print(f"{len(known)} of {len(packages)} locked packages were looked up: {len(holes)} known holes.")
    for name, version, hole in holes:
        print(f"  {name} {version}: {hole}")


if __name__ == "__main__":
    main()

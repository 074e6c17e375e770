"""`python -m benchmarks.start`: what a person waits for who starts the app, opens its page and asks for a first video.

The app is started as at home, in a process of its own, on the CPU and with Toyland; Chromium is open already, as a
browser is. She writes a prompt as soon as the page lets her and clicks at once, while the app is still importing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from statistics import median
from typing import Any

import httpx

from benchmarks.click import CLICK_UNTIL_IT_PLAYS, PROMPT, TASK
from tests.browsing import chromium
from tests.served import free_port

ANSWERS, USABLE, PLAYS, ALL = "the page answers", "a prompt can be written", "from the click until it plays", "all"
LOOK_AGAIN_SECONDS = 0.05
SCREEN = {"width": 1280, "height": 900}


def stages(browser: Any) -> dict[str, float]:
    """Seconds of each stage of one start, in their order."""
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryDirectory() as folder, browser.new_context(viewport=SCREEN) as context:
        started = time.time()
        command = [sys.executable, "app.py", "--device", "cpu", "--port", str(port), "--output-dir", folder]
        app = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 - our own
        try:
            _wait_for(address)
            answers = time.time()
            page = context.new_page()
            page.goto(address)
            page.locator(f"{TASK}-prompt textarea").fill(PROMPT)
            usable = time.time()
            clicked, plays = page.evaluate(CLICK_UNTIL_IT_PLAYS)
        finally:
            app.terminate()
            app.wait()
    return {ANSWERS: answers - started, USABLE: usable - answers, PLAYS: plays - clicked, ALL: plays - started}


def _wait_for(address: str) -> None:
    while True:
        try:
            httpx.get(address, timeout=5)
        except httpx.TransportError:
            time.sleep(LOOK_AGAIN_SECONDS)
        else:
            return


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description="Time what a first visit takes.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with chromium() as browser:
        seen = [stages(browser) for _ in range(rounds)]
    print("| stage | median | range |", "|---|---|---|", sep="\n")
    for name in seen[0]:
        seconds = [one[name] for one in seen]
        print(f"| {name} | {median(seconds):.1f} | {min(seconds):.1f} to {max(seconds):.1f} |")


if __name__ == "__main__":
    main()

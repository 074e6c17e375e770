"""`python -m benchmarks.click`: what a person waits for, in a real browser, from the click to the playing video.

The page is served as at home, on Toyland, and opened in Chromium. Every round clicks once with each preset; the first
round, in which the model is loaded, stands by itself. A stage is what passes until the next one begins.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from serving.runners.local import LocalRunner
from tests.browsing import chromium, opened
from tests.served import on_the_cpu, served
from text2video_zero.events import Finished, Progress
from text2video_zero.requests.presets import BALANCED, DRAFT, PRESETS

if TYPE_CHECKING:
    from collections.abc import Generator

    from text2video_zero.events import Event
    from text2video_zero.job import Job

TASK = "#text-to-video"
PROMPT = "a red panda dancing in the snow"
CLICK, PAGE, WRITING = "click, until the job begins", "page, until the video plays", "writing files, until the page"
# Clicks, and resolves with the times, in seconds since 1970, of the click and of when another video plays. The video
# itself tells: to look for it at each of the browser's frames has the browser draw frames.
CLICK_UNTIL_IT_PLAYS = f"""() => new Promise((resolve) => {{
    const before = document.querySelector("{TASK}-video video")?.currentSrc, clicked = Date.now() / 1000;
    document.addEventListener("playing", function told({{ target }}) {{
        if (!target.matches("{TASK}-video video") || target.currentSrc === before) return;
        document.removeEventListener("playing", told, true);
        resolve([clicked, Date.now() / 1000]);
    }}, true);
    document.querySelector("{TASK}-run").click();
}})"""


class TimedRunner(LocalRunner):
    """Notes when each stage of the latest job began."""

    def __init__(self) -> None:
        """Nothing has run yet."""
        super().__init__(on_the_cpu)
        self.began: dict[str, float] = {}

    def run(self, job: Job) -> Generator[Event]:
        """Run a job."""
        self.began = {"preparing": time.time()}
        for event in super().run(job):
            if isinstance(event, Progress):
                self.began.setdefault(event.stage.lower(), time.time())
            elif isinstance(event, Finished):
                self.began[WRITING] = time.time()
            yield event


def stages(page: Any, runner: TimedRunner) -> dict[str, float]:
    """Seconds of each stage of one click, in their order."""
    clicked, playing = page.evaluate(CLICK_UNTIL_IT_PLAYS)
    marks = {CLICK: clicked, **runner.began, "plays": playing}
    ends = list(marks.values())[1:]
    return {name: end - begin for (name, begin), end in zip(marks.items(), ends, strict=False)} | {
        "all": playing - clicked
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.click", description="Time what a person waits for.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", default=PROMPT, help="default: %(default)s, whose subject moves")
    options = parser.parse_args()
    runner = TimedRunner()
    times: dict[str, list[dict[str, float]]] = {DRAFT: [], BALANCED: []}
    with (
        tempfile.TemporaryDirectory() as folder,
        served("toyland", Path(folder), runner=runner) as address,
        chromium() as browser,
        opened(browser, address, width=1280, height=900) as page,
    ):
        page.locator(f"{TASK}-prompt textarea").fill(options.prompt)
        for _ in range(1 + options.rounds):
            for preset, seen in times.items():
                page.locator(f"{TASK}-setting-presets").get_by_text(PRESETS[preset].title, exact=True).click()
                page.wait_for_timeout(2000)  # until the fields are filled
                seen.append(stages(page, runner))
                page.locator(f"{TASK}-status").get_by_text("Done in").wait_for()
                page.wait_for_timeout(1000)  # until all forms of the video are there
    print("| preset | stage | first | median | range |", "|---|---|---|---|---|", sep="\n")
    for preset, (first, *later) in times.items():
        for name in first:
            seconds = [one[name] for one in later if name in one]
            told = f"{median(seconds):.2f} | {min(seconds):.2f} to {max(seconds):.2f}" if seconds else "|"
            print(f"| {preset} | {name} | {first[name]:.2f} | {told} |")


if __name__ == "__main__":
    main()

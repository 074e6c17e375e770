"""The real app on a free port, over real components of tiny size."""

from __future__ import annotations

import inspect
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from model_manager import ModelManager
from serving.estimates import Pace
from serving.menu import ModelMenu
from serving.queue import JobQueue
from serving.runners.local import LocalRunner
from serving.store import JobStore
from serving.visitors.limits import Limits
from text2video_zero.events import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from gradio import Blocks

    from tabs.run import Run
    from text2video_zero.events import Event
    from text2video_zero.job import Job


class TinyPace(Pace):
    """Tiny models have the shape of Stable Diffusion 1.x, and a thousandth of its work.

    It learns nothing: by the short jobs of a slow machine the page would ask before long ones.
    """

    def __init__(self) -> None:
        super().__init__({"sd1": 1e-4})

    def learn(self, job: Job, seconds: float) -> None:
        """Go on as before."""


def on_the_cpu() -> ModelManager:
    """Where the tests' models run."""
    return ModelManager("cpu")


def run_of(page: Blocks, task: str) -> Run:
    """What is behind a tab's buttons and its endpoint, whose handler a program knows by another name."""
    handler = next(one.fn for one in page.fns.values() if one.api_name == task)
    return inspect.unwrap(handler).__self__.run


class UnhurriedRunner(LocalRunner):
    """A computer that takes its time over each step: a job that a test looks at lasts, however slow the page is."""

    def __init__(self, seconds_a_step: float) -> None:
        super().__init__(on_the_cpu)
        self._seconds = seconds_a_step

    def run(self, job: Job) -> Generator[Event]:
        for event in super().run(job):
            yield event
            if isinstance(event, Progress):
                time.sleep(self._seconds)


@contextmanager
def served(
    model: str | Path,
    folder: Path,
    *,
    shared: bool = False,
    limits: Limits | None = None,
    patience: float | None = None,
    auth: list[tuple[str, str]] | None = None,
    queues: list[JobQueue] | None = None,
    runner: LocalRunner | None = None,
) -> Iterator[str]:
    """Serve the app with a known model or a checkpoint as its default one; yields the address.

    shared: as for people who do not know one another; a model can then be chosen from the list alone.
    limits, patience: of the queue.  auth: names and passwords.  queues: takes the queue, for those who look in.
    runner: of its own.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from app import build_app, launch_options

    store = JobStore(folder)
    runner = runner or LocalRunner(on_the_cpu)
    queue = JobQueue(runner, store, TinyPace(), patience=patience, limits=limits)
    if queues is not None:
        queues.append(queue)
    demo = build_app(queue, ModelMenu(str(model), free=not shared), shared=shared)
    options = launch_options(queue, store, ("127.0.0.1",))
    _, address, _ = demo.launch(
        server_name="127.0.0.1", server_port=free_port(), auth=auth, prevent_thread_lock=True, **options
    )
    runner.open()
    queue.open()
    try:
        yield address
    finally:
        demo.close(verbose=False)
        queue.close()


def came_from(address: str) -> dict[str, str]:
    """The header of a proxy on this machine, which is trusted."""
    return {"X-Forwarded-For": address}


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def program(tmp_path: Path, *flags: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The app as a program of its own, as its owner starts it; yields the process and the address.

    What it complains of is written into `complaints` in the folder, which has its temporary files as well.
    """
    command = [sys.executable, "app.py", "--device", "cpu", "--port", str(free_port()), *flags]
    environment = os.environ | {"TMPDIR": str(tmp_path), "TEXT2VIDEO_SAFETY_CHECKER": "0"} | variables
    with (tmp_path / "complaints").open("w") as complaints:
        process = subprocess.Popen(
            command,
            cwd=Path(__file__).resolve().parent.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )
    try:
        yield process, next(line for line in process.stdout or () if "is ready at" in line).split()[-1]
    finally:
        process.kill()
        process.communicate()

"""The real app on a free port, over real components of tiny size."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from model_manager import ModelManager
from serving.estimates import Pace
from serving.local import LocalRunner
from serving.menu import ModelMenu
from serving.queue import JobQueue
from serving.store import JobStore

if TYPE_CHECKING:
    from collections.abc import Iterator

TINY_PACE = Pace({"sd1": 1e-4})
"""Tiny models have the shape of Stable Diffusion 1.x, and a thousandth of its work."""


@contextmanager
def served(model: str | Path, folder: Path, *, shared: bool = False) -> Iterator[str]:
    """Serve the app with a known model or a checkpoint as its default one; yields the address.

    shared: as for people who do not know one another; a model can then be chosen from the list alone.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from app import build_app, launch_options

    store = JobStore(folder)
    runner = LocalRunner(lambda: ModelManager("cpu"))
    queue = JobQueue(runner, store, TINY_PACE)
    demo = build_app(queue, ModelMenu(str(model), free=not shared), shared=shared)
    options = launch_options(store, ("127.0.0.1",)) | {"server_name": "127.0.0.1", "server_port": free_port()}
    _, address, _ = demo.launch(prevent_thread_lock=True, **options)
    runner.open()
    queue.open()
    try:
        yield address
    finally:
        demo.close(verbose=False)
        queue.close()


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

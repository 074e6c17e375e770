"""The real app on a free port, over real components of tiny size."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from model_manager import ModelManager
from serving.local import LocalRunner
from serving.menu import ModelMenu
from serving.store import VideoStore

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def served(model: str | Path, folder: Path) -> Iterator[str]:
    """Serve the app with a known model or a checkpoint as its default one; yields the address."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from app import build_app, launch_options

    store = VideoStore(folder)
    runner = LocalRunner(lambda: ModelManager("cpu"))
    demo = build_app(runner, store, ModelMenu(str(model), free=True))
    options = launch_options(store) | {"server_name": "127.0.0.1", "server_port": _free_port()}
    _, address, _ = demo.launch(prevent_thread_lock=True, **options)
    runner.open()
    try:
        yield address
    finally:
        demo.close(verbose=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

"""The app: `python app.py` serves it. A table of contents: what is offered, who runs it, the page."""

from __future__ import annotations

import argparse
import html
import ipaddress
import logging
import os
import secrets
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.local import LocalRunner
from serving.menu import ModelMenu
from serving.queue import JobQueue
from serving.store import JobStore
from text2video_zero.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import gradio as gr

    from model_manager import ModelManager

HOUR, DAY = 3600, 24 * 3600
QUEUE_LENGTH = 256  # of Gradio's events, most of which wait for nothing; jobs have a queue of their own
PATIENCE = 120  # seconds that a shared page works for somebody who has left
TITLE = "Text2Video-Zero"
INTRODUCTION = "Write what you want to see: a picture model films it, without ever having seen a video."


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the app until it is stopped; returns the exit status."""
    # Before gradio is imported, which would ask its makers' server for news otherwise.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    options = read_options(argv)
    try:
        if options.check:
            print("\n".join(open_models(options).self_check()))
        else:
            serve(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; what it leaves open, Gradio's own variables or a careful default decide."""
    parser = argparse.ArgumentParser(prog="app.py", description="Serve Text2Video-Zero as a web page.")
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), help="address to serve on")
    parser.add_argument("--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT", "7860")))
    parser.add_argument("--device", help="cuda, cuda:1, mps or cpu; the best there is if left out")
    parser.add_argument("--dtype", help="float16, bfloat16 or float32; float16 on CUDA, else float32, if left out")
    parser.add_argument("--compile", action="store_true", help="compile models: minutes at first, faster afterwards")
    parser.add_argument("--model", default="toyland", help="chosen at first: a name, folder, .safetensors or Hub id")
    parser.add_argument(
        "--output-dir", type=Path, help="folder of finished videos; outputs, or if shared a temporary one"
    )
    parser.add_argument("--share", action="store_true", help="also serve on a public gradio.live address")
    parser.add_argument("--auth", action="append", metavar="USER:PASSWORD", help="ask for a password; may be repeated")
    parser.add_argument("--any-model", action="store_true", help="a shared app, too, loads any model that is typed")
    parser.add_argument(
        "--safety-checker",
        action=argparse.BooleanOptionalAction,
        help="make no video of which it blocks a frame; on for a shared app, off otherwise",
    )
    parser.add_argument(
        "--no-history", action="store_true", help="keep no prompts and settings, neither in videos nor beside them"
    )
    parser.add_argument("--check", action="store_true", help="tell what there is to work with, and exit")
    return parser.parse_args(argv)


def serve(options: argparse.Namespace) -> None:
    """Put the page up, then import what is slow, then wait until the server is stopped."""
    shared = is_shared(options)
    menu = ModelMenu(options.model, free=options.any_model or not shared)
    store = open_store(options.output_dir, shared=shared, keep_settings=not (shared or options.no_history))
    runner = LocalRunner(lambda: open_models(options))
    queue = JobQueue(runner, store, patience=PATIENCE if shared else None)
    demo = build_app(queue, menu, shared=shared)
    try:
        _, url, public_url = demo.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            auth=credentials(options),
            run_history=False,  # the strip below the tabs has what was made
            prevent_thread_lock=True,
            **launch_options(store),
        )
    except OSError as error:
        raise UserError(f"Port {options.port} on {options.host} cannot be had: give another with --port.") from error
    print(f"{TITLE} is ready at {public_url or url}", flush=True)
    runner.open()
    queue.open()
    demo.block_thread()


def build_app(queue: JobQueue, menu: ModelMenu, *, shared: bool = False) -> gr.Blocks:
    """The page with its tabs; nothing is loaded and nothing served yet."""
    import gradio as gr

    from tabs.page import build_page

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(HOUR, DAY)) as demo:
        build_page(demo, queue, menu, header, shared=shared)
    return demo.queue(max_size=QUEUE_LENGTH)


def header(device: str = "") -> str:
    """The head of the page as HTML; the device joins when it is known."""
    place = f'<span class="device">{html.escape(device)}</span>' if device else ""
    return f"<header><h1>{TITLE}</h1><p>{INTRODUCTION}</p>{place}</header>"


def launch_options(store: JobStore) -> dict[str, Any]:
    """What every launch of the page needs, the tests' too."""
    from tabs.look.theme import PAGE, STYLE, build_theme

    return {
        "theme": build_theme(),
        "css_paths": STYLE,
        "js": PAGE.read_text(encoding="utf-8"),
        "allowed_paths": [str(store.folder.resolve())],
        "footer_links": ["api", "settings"],
        "ssr_mode": False,
        "enable_monitoring": False,
        "quiet": True,
        # Gradio would ask itself for the page and refuse to start when a slow machine takes three seconds to answer.
        "_frontend": False,
    }


def is_shared(options: argparse.Namespace) -> bool:
    """Whether people other than the one at this machine can reach the page."""
    return options.share or "SPACE_ID" in os.environ or not _is_loopback(options.host)


def wants_check(options: argparse.Namespace) -> bool:
    """Whether the safety checker looks at videos before they are shown: where others see them, unless told not to."""
    return is_shared(options) if options.safety_checker is None else options.safety_checker


def credentials(options: argparse.Namespace) -> list[tuple[str, str]] | None:
    """Names and passwords; a public address without any gets a password that is printed."""
    if options.auth:
        pairs = [tuple(pair.split(":", 1)) for pair in options.auth]
        if any(len(pair) != 2 or not all(pair) for pair in pairs):
            raise UserError("--auth wants a name and a password: write for example --auth ann:her-password.")
        return pairs
    if options.share:
        password = secrets.token_urlsafe(12)
        print(f"Log in as guest with the password {password}", flush=True)
        return [("guest", password)]
    return None


def open_store(folder: Path | None, *, shared: bool, keep_settings: bool) -> JobStore:
    """Where videos are kept: for good in a folder of one's own, for a day where strangers make them."""
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="text2video-zero-")) if shared else Path("outputs")
    try:
        return JobStore(folder, keep_settings=keep_settings, keep_seconds=DAY if shared else None)
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be made: name another with --output-dir.") from error


def open_models(options: argparse.Namespace) -> ModelManager:
    """The model manager; importing it takes seconds, so the page is up before."""
    from model_manager import ModelManager

    return ModelManager(
        options.device, dtype=options.dtype, compiled=options.compile, check_safety=wants_check(options)
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    sys.exit(main())

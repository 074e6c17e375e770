"""The app: `python app.py` serves it. A table of contents: what is offered, who runs it, the page."""

from __future__ import annotations

import functools
import gc
import html
import importlib.util
import logging
import os
import secrets
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from serving.menu import ModelMenu, Offer, lacking
from serving.options import is_shared, known_hosts, read_options, trusted_proxies, wants_check
from serving.queue import JobQueue
from serving.runners.local import LocalRunner
from serving.runners.ray_pool import RayRunner
from serving.runners.spaces import VisitorsQueue, ZeroGPURunner, is_zero_gpu
from serving.store import JobStore
from serving.visitors.limits import Limits
from tabs.gradio_import import import_gradio
from text2video_zero.errors import UserError
from text2video_zero.imports import hide_bars, sharing_cores
from text2video_zero.job import build_job
from text2video_zero.media.files import folder_of_this_program

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    import gradio as gr

    from model_manager import ModelManager
    from serving.jobs import Runner
    from text2video_zero.models.checkpoints import Checkpoint

LOOK_AGAIN_SECONDS = 0.1  # how often it is asked whether somebody has ended the program
HOUR, DAY = 3600, 24 * 3600
QUEUE_LENGTH = 256  # of Gradio's events, most of which wait for nothing; jobs have a queue of their own
MOST_EVENTS = 200  # that run at once, most of which wait for a job; one visitor can begin a part of them alone
MOST_SESSIONS = 30  # whose state is kept, a megabyte each; it lasts from a click to what follows at once
MOST_TIMED = "200"  # events of which Gradio remembers how long they took, and counts them up after each event
LARGEST_UPLOAD = "200mb"  # from people who share the page
GRACE_SECONDS = 1  # for pages that are open when the program ends; Gradio would wait for them, for five
PATIENCE = 120  # seconds that a shared page works for somebody who has left
TITLE = "Text2Video-Zero"
INTRODUCTION = "Write what you want to see: a picture model films it, without ever having seen a video."


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the app until it is stopped; returns the exit status."""
    # Before gradio is imported, which would ask its makers' server for news otherwise.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", MOST_TIMED)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio's, which asks the page itself whether it is up
    try:
        options = read_options(argv)
        if options.check:
            print("\n".join(open_models(options).self_check()))
        else:
            serve(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


def serve(options: argparse.Namespace) -> None:
    """Put the page up, then import what is slow, then wait until the server is stopped."""
    shared, told = is_shared(options), told_to_end()
    # Mistakes in these are told before anything is begun.
    limits, hosts, proxies = Limits.read(options.limit or ()), known_hosts(options), trusted_proxies(options)
    free = options.any_model or not shared
    offer = None if free else offered_to_strangers(options)
    menu = menu_of(options.model, free=free, offer=offer)
    auth = credentials(options)
    if options.mcp:
        check_mcp(asks_password=auth is not None)
    store = open_store(options.output_dir, shared=shared, keep_settings=not (shared or options.no_history))
    remove_uploads = own_upload_folder() if shared else None
    try:
        runner = open_runner(options)
        queue = open_queue(runner, store, limits if shared else None)
        demo = build_app(queue, menu, shared=shared)
        url = launched(demo, options, auth, launch_options(queue, store, hosts, proxies))
        print(f"{TITLE} is ready at {url}", flush=True)
        try:
            runner.open()
            queue.open()
            make_ready(runner, options.model)
            while not told.is_set():
                time.sleep(LOOK_AGAIN_SECONDS)
        finally:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # no traceback of each page that is cut off
            demo.close(verbose=False)
            queue.close()
            runner.close()
    finally:
        if shared and options.output_dir is None:  # strangers' videos, which nobody finds again
            shutil.rmtree(store.folder, ignore_errors=True)
        if remove_uploads is not None:
            remove_uploads()


def own_upload_folder() -> Callable[[], None] | None:
    """Have Gradio keep strangers' uploads in a folder that goes with the program; returns what removes it.

    Of one that is killed it goes at the next start. None where the owner has chosen a folder.
    """
    if "GRADIO_TEMP_DIR" in os.environ:
        return None
    folder, remove = folder_of_this_program("text2video-zero-uploads-")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return remove


def told_to_end() -> threading.Event:
    """What is set once somebody ends the program: by Ctrl-C, or as `docker stop` does.

    Both also interrupt what the main thread is at; but Python drops an interruption that comes while it clears away
    objects, as it does again and again while PyTorch is imported.
    """
    told = threading.Event()

    def end(_number: int, _frame: object) -> None:
        told.set()
        raise KeyboardInterrupt

    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, end)
    return told


def launched(
    demo: gr.Blocks, options: argparse.Namespace, auth: list[tuple[str, str]] | None, others: dict[str, Any]
) -> str:
    """Serve the page, and return its address; raises UserError where the port cannot be had."""
    try:
        _, url, public_url = demo.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            auth=auth,
            auth_message=f"<b>{TITLE}</b>{INTRODUCTION}",
            mcp_server=options.mcp,
            run_history=False,  # the strip below the tabs has what was made
            prevent_thread_lock=True,
            **others,
        )
    except OSError as error:
        raise UserError(
            f"Port {options.port} on {options.host} is in use or not permitted: give another with --port."
        ) from error
    demo.server.config.timeout_graceful_shutdown = GRACE_SECONDS
    return public_url or url


def open_runner(options: argparse.Namespace) -> Runner:
    """Who computes: this process, workers, or a GPU that is borrowed for each job."""
    opening = functools.partial(open_models, options)
    if options.workers:
        return RayRunner(options.workers, opening, gpus=options.device != "cpu")
    return ZeroGPURunner(opening, first_checkpoint(options.model)) if is_zero_gpu() else LocalRunner(opening)


def menu_of(model: str, *, free: bool = True, offer: Offer | None = None) -> ModelMenu:
    """The models to choose from; on ZeroGPU, where a visitor's quota is a few minutes a day, drafts come first."""
    return ModelMenu(model, free=free, offer=offer, hurried=is_zero_gpu())


def first_checkpoint(model: str) -> Checkpoint:
    """What the first job will ask for, if its person changes nothing but the prompt.

    Of somebody, whom a ControlNet may draw; a job without one shares all the rest.
    """
    menu = menu_of(model)
    return build_job(menu.task, {"prompt": "a person"}, model=model, preset=menu.first_preset(model)).checkpoint


def make_ready(runner: Runner, model: str) -> None:
    """Load the model that the page begins with while whoever opens it still writes; never by a download."""
    from text2video_zero.models.hub import Hub

    checkpoint = first_checkpoint(model)
    if isinstance(runner, LocalRunner) and not lacking(checkpoint, Hub()):
        runner.make_ready(checkpoint)


def open_queue(runner: Runner, store: JobStore, limits: Limits | None) -> JobQueue:
    """The queue of jobs; where others reach the page they have limits, and what nobody waits for any more is left."""
    patience = PATIENCE if limits else None
    if isinstance(runner, ZeroGPURunner):
        return VisitorsQueue(runner, store, patience=patience, limits=limits)
    return JobQueue(runner, store, patience=patience, limits=limits)


def build_app(queue: JobQueue, menu: ModelMenu, *, shared: bool = False) -> gr.Blocks:
    """The page with its tabs; nothing is loaded and nothing served yet."""
    import_gradio()
    import gradio as gr

    from tabs.page import build_page

    refuse_downloads()
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(HOUR, DAY)) as demo:
        # Not past the queue: what waits for a job would then hold a thread of the server. And while the page is empty:
        # Gradio makes its server anew then, for all that the page has.
        demo.queue(max_size=QUEUE_LENGTH, api_open=False)
        build_page(demo, queue, menu, header, shared=shared)
    return demo


def refuse_downloads() -> None:
    """Have Gradio fetch nothing from the net: a file that is an address has no largest size, and no use here."""
    import gradio as gr
    from gradio import processing_utils

    async def refused(url: str) -> NoReturn:
        raise gr.Error(f"{url[:200]} is an address: download it, and choose the file.", print_exception=False)

    if not hasattr(processing_utils, "async_ssrf_protected_get"):
        raise RuntimeError("Gradio fetches files by another function now: refuse that one.")
    processing_utils.async_ssrf_protected_get = refused


def offered_to_strangers(options: argparse.Namespace) -> Offer:
    """What visitors may have: what is here, and the models that the owner names."""
    from text2video_zero.models.hub import Hub

    return Offer(frozenset((options.model, *(options.offer or ()))), Hub())


def header(device: str = "") -> str:
    """The head of the page as HTML; the device joins when it is known."""
    place = f'<span class="device">{html.escape(device)}</span>' if device else ""
    return f"<header><h1>{TITLE}</h1><p>{INTRODUCTION}</p>{place}</header>"


def launch_options(
    queue: JobQueue, store: JobStore, hosts: Sequence[str] = (), proxies: Sequence[str] = ()
) -> dict[str, Any]:
    """What every launch of the page needs, the tests' too.

    hosts: names by which the page may be called; any, where there are none.
    proxies: addresses and networks whose X-Forwarded-For tells where a request comes from.
    """
    import gradio as gr
    from starlette.middleware import Middleware
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

    from serving.visitors.door import Door
    from serving.visitors.guard import Guard
    from serving.visitors.head import Head
    from serving.visitors.uploads import Uploads
    from tabs.about import PICTURES
    from tabs.look.theme import LOGIN, PAGE, STYLE, build_theme
    from tabs.tasks import CLIPS

    # From where they are: a copy in Gradio's cache would be served after the video is deleted.
    gr.set_static_paths(store.folder.resolve())
    examples = [path.name for path in CLIPS.rglob("*")]
    return {
        "theme": build_theme(),
        "css_paths": STYLE,
        "js": PAGE.read_text(encoding="utf-8"),
        "allowed_paths": [str(folder.resolve()) for folder in (store.folder, PICTURES, CLIPS)],
        "max_file_size": LARGEST_UPLOAD if queue.limits else None,
        "footer_links": ["api", "settings"],
        "ssr_mode": False,
        "enable_monitoring": False,
        "app_kwargs": {
            "middleware": [
                Middleware(ProxyHeadersMiddleware, trusted_hosts=list(proxies)),
                Middleware(Guard, hosts=hosts),
                Middleware(Door, listeners=queue.listeners, limits=queue.limits),
                *([Middleware(Uploads, presence=queue.presence, kept=examples)] if queue.limits else []),
                Middleware(Head, title=TITLE, about=INTRODUCTION, style=LOGIN.read_text(encoding="utf-8")),
            ]
        },
        "max_threads": MOST_EVENTS,
        "state_session_capacity": MOST_SESSIONS,
        "quiet": True,
        # Gradio would ask itself for the page and refuse to start when a slow machine takes three seconds to answer.
        "_frontend": False,
    }


def credentials(options: argparse.Namespace) -> list[tuple[str, str]] | None:
    """Names and passwords; where others reach the page and none is given, one that is printed. A Space has its own."""
    if options.auth:
        pairs = [(name, password) for name, _, password in (pair.partition(":") for pair in options.auth)]
        if not all(name and password for name, password in pairs):
            raise UserError("--auth wants a name and a password: write for example --auth ann:her-password.")
        return pairs
    if is_shared(options) and "SPACE_ID" not in os.environ:
        password = secrets.token_urlsafe(12)
        print(f"Log in as guest with the password {password}", flush=True)
        return [("guest", password)]
    return None


def check_mcp(*, asks_password: bool) -> None:
    """Raises UserError where programs cannot be served by MCP: Gradio's server for it lets in whoever reaches it."""
    if asks_password:
        raise UserError(
            "--mcp asks nobody for a password, and this page does: leave --mcp out, or serve the page to yourself "
            "alone, on 127.0.0.1 or with --private, and without --auth."
        )
    if importlib.util.find_spec("mcp") is None:
        raise UserError('--mcp needs the package mcp, which is not installed: run pip install "gradio[mcp]==6.31.0".')


def open_store(folder: Path | None, *, shared: bool, keep_settings: bool) -> JobStore:
    """Where videos are kept: for good in a folder of one's own, for a day where strangers make them."""
    if folder is None:
        folder = folder_of_this_program("text2video-zero-videos-")[0] if shared else Path("outputs")
    try:
        return JobStore(folder, keep_settings=keep_settings, keep_seconds=DAY if shared else None)
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be made or written into: name another with --output-dir."
        ) from error


def open_models(options: argparse.Namespace) -> ModelManager:
    """The model manager; importing it takes seconds, so the page is up before."""
    with sharing_cores():
        from model_manager import ModelManager

    hide_bars()
    return ModelManager(
        options.device, dtype=options.dtype, compiled=options.compile, check_safety=wants_check(options)
    )


if __name__ == "__main__":
    status = main()
    gc.freeze()  # Python would look through all that PyTorch has brought, for seconds, for what is let go anyway
    sys.exit(status)

"""The page: the tabs, one for each task, and below them what was made."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import gradio as gr

from tabs.after import AfterRun, connect_loader
from tabs.form import IN_TURN, QUIETLY, Update
from tabs.parts import strip as strip_module
from tabs.parts.controls import STORAGE_SECRET
from tabs.parts.strip import build_strip
from tabs.run import Run, followed
from tabs.services import Services
from tabs.tab import build_tab
from tabs.tasks import TABS
from text2video_zero.requests import InstructPix2PixRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serving.menu import ModelMenu
    from serving.queue import Entry, JobQueue


def build_page(
    page: gr.Blocks, queue: JobQueue, menu: ModelMenu, header: Callable[[str], str], *, shared: bool
) -> None:
    """Render the tabs and the strip, and connect them. Call inside the page.

    header: the head of the page as HTML, by the device that jobs run on, which is blank while it is not known.
    """
    visitor = gr.BrowserState(None, storage_key="text2video-zero-visitor", secret=STORAGE_SECRET)
    strip = build_strip(queue)
    services = Services(queue, menu, shared, page, visitor, strip)
    with gr.Row(elem_classes="head"):
        head = gr.HTML(header(""))
        loader = gr.UploadButton(
            "Load settings", size="sm", file_types=[".mp4", ".gif", ".zip", ".json"], scale=0, elem_id="load-settings"
        )
    with gr.Tabs(elem_id="tasks", overflow_behavior="wrap") as tabs:
        runs = {tab.request.task: build_tab(tab, services) for tab in TABS}
    strip.made.render()
    page.load(lambda: header(queue.runner.describe_device()), None, head, **QUIETLY)
    page.load(lambda known: known or secrets.token_hex(16), visitor, visitor, **QUIETLY)
    page.load(lambda known: strip.listed(services.owner(known)), visitor, strip.made, **QUIETLY)
    _connect_strip(services, tabs, runs)
    for run in runs.values():
        AfterRun(run, runs[InstructPix2PixRequest.task], tabs).connect()
    connect_loader(loader, runs, tabs)


def _connect_strip(services: Services, tabs: gr.Tabs, runs: Mapping[str, Run]) -> None:
    """What can be done with a video that was made."""
    strip, queue = services.strip, services.queue

    def act(chosen: gr.EventData, visitor: str | None) -> Update:
        owner = services.owner(visitor)
        entry = queue.find(str(chosen.job), owner)
        page: Update = {}
        if entry is not None:
            run = runs[entry.job.request.task]
            match chosen.act:
                case strip_module.DELETE:
                    queue.remove(entry)
                case strip_module.STOP:
                    queue.stop(entry)
                case strip_module.GO_ON:
                    queue.go_on(entry)
                    page = _shown(run, entry, tabs)
                case strip_module.SHOW:
                    page = _shown(run, entry, tabs)
                case strip_module.AGAIN:
                    page = _shown(run, entry, tabs) | run.controls.filled_by(entry.job)
                case _:  # what no button of ours says
                    pass
        return {strip.made: strip.listed(owner), **page}

    forms = [run.controls for run in runs.values()]
    outputs = [state for form in forms for state in (form.followed, form.refill)]
    strip.made.click(act, services.visitor, [strip.made, tabs, *outputs], **IN_TURN)


def _shown(run: Run, entry: Entry, tabs: gr.Tabs) -> Update:
    """The tab of a job, which follows it."""
    return {tabs: gr.Tabs(selected=run.request.task), run.controls.followed: followed([entry])}

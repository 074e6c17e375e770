"""The page: the tabs, one for each task and one about the method, and below them what was made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from tabs.about import build_about
from tabs.after import AfterRun, connect_loader
from tabs.endpoint import Endpoint
from tabs.form import IN_TURN, QUIETLY, Update
from tabs.parts import strip as strip_module
from tabs.parts.controls import STORAGE_SECRET, build_states
from tabs.parts.strip import build_strip
from tabs.run import Run, followed
from tabs.services import Services
from tabs.tab import build_tab
from tabs.tasks import TABS
from text2video_zero.requests import InstructPix2PixRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serving.line import Entry
    from serving.menu import ModelMenu
    from serving.queue import JobQueue


MAKE_VISITOR = """(known) => known || [...crypto.getRandomValues(new Uint8Array(16))]
    .map((byte) => byte.toString(16).padStart(2, "0")).join("")"""


def build_page(
    page: gr.Blocks, queue: JobQueue, menu: ModelMenu, header: Callable[[str], str], *, shared: bool
) -> None:
    """Render the tabs and the strip, and connect them. Call inside the page.

    header: the head of the page as HTML, by the device that jobs run on, which is blank while it is not known.
    """
    visitor = gr.BrowserState(None, storage_key="text2video-zero-visitor", secret=STORAGE_SECRET)
    strip = build_strip(queue)
    states = {tab.request.task: build_states(tab.request.task) for tab in TABS}
    with gr.Row(elem_classes="head"):
        head = gr.HTML(header(""))
        loader = gr.UploadButton(
            "Load settings",
            size="sm",
            file_types=[".mp4", ".gif", ".webm", ".zip", ".json"],
            scale=0,
            elem_id="load-settings",
        )
    services = Services(queue, menu, shared, page, visitor, strip, head)
    with gr.Tabs(elem_id="tasks", overflow_behavior="wrap"):
        runs = {
            tab.request.task: build_tab(tab, services, states[tab.request.task], comes_first=tab is TABS[0])
            for tab in TABS
        }
        build_about()
    strip.render()
    for run in runs.values():
        AfterRun(run, runs[InstructPix2PixRequest.task]).connect()
        Endpoint(run).connect()
    page.load(lambda: header(queue.runner.describe_device()), None, head, **QUIETLY)
    page.load(None, visitor, visitor, js=MAKE_VISITOR, api_visibility="private")
    _connect_arrival(services, runs)
    _connect_strip(services, runs)
    connect_loader(loader, runs)


def _connect_arrival(services: Services, runs: Mapping[str, Run]) -> None:
    """Whoever comes to the page, or comes back, sees what was made, and each tab follows what it followed last."""

    def arrive(visitor: str | None, request: gr.Request, *jobs: Any) -> Update:
        services.arrived(visitor, request)
        owner = services.owner(visitor)
        page: Update = {services.strip.made: services.strip.listed(owner)}
        for run, ids in zip(runs.values(), jobs, strict=True):
            if entries := run.found(ids, owner):
                page[run.controls.states.followed] = followed(entries)
        return page

    states = [run.controls.states for run in runs.values()]
    services.page.load(
        arrive,
        [services.visitor, *(state.jobs for state in states)],
        [services.strip.made, *(state.followed for state in states)],
        **IN_TURN,
    )


def _connect_strip(services: Services, runs: Mapping[str, Run]) -> None:
    """What can be done with a video that was made."""
    strip, queue = services.strip, services.queue
    whole_queue = {
        strip_module.PAUSE: queue.pause,
        strip_module.RESUME: queue.resume,
        strip_module.EMPTY: queue.empty,
    }

    def act(chosen: gr.EventData, visitor: str | None) -> Update:
        owner = services.owner(visitor)
        entry = queue.find(str(chosen.job), owner)
        page: Update = {}
        if chosen.act in whole_queue:
            whole_queue[chosen.act](owner)
        if entry is not None:
            run = runs[entry.job.request.task]
            match chosen.act:
                case strip_module.DELETE:
                    queue.remove(entry)
                case strip_module.STOP:
                    queue.stop(entry)
                case strip_module.NEXT:
                    queue.prefer(entry)
                case strip_module.GO_ON:
                    # Not asked first, as Run and Vary are: whoever began it was, about all of it, and less is left.
                    queue.go_on(entry)
                    page = _shown(run, entry)
                case strip_module.SHOW:
                    page = _shown(run, entry)
                case strip_module.AGAIN:
                    page = _shown(run, entry) | run.controls.filled_by(entry.job)
                case _:  # what no button of ours says
                    pass
        return {strip.made: strip.listed(owner), **page}

    states = [run.controls.states for run in runs.values()]
    outputs = [state for each in states for state in (each.followed, each.refill, each.brought)]
    strip.made.click(act, services.visitor, [strip.made, *outputs], **IN_TURN)


def _shown(run: Run, entry: Entry) -> Update:
    """The tab of a job, which follows it."""
    return run.controls.shown_tab() | {run.controls.states.followed: followed([entry])}

"""One tab from one record: `build_tab` lays out the form and the result and connects them.

The page of a tab is `Controls` on the left and `Result` on the right; tabs/run.py says what happens between
a click and a video.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import gradio as gr

from tabs.endpoint import Endpoint
from tabs.form import QUIETLY, required, rows, sections, sizes, widget
from tabs.parts.clip_source import build_clip_source
from tabs.parts.controls import STORAGE_SECRET, Controls, build_batch, build_buttons, build_followed
from tabs.parts.examples import build_examples, connect_examples
from tabs.parts.model_choice import build_model_choice
from tabs.parts.presets import build_presets, connect_presets
from tabs.parts.result import build_result
from tabs.run import Run
from text2video_zero.job import defaults_of
from text2video_zero.requests.fields import BASICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tabs.form import Field
    from tabs.parts.presets import Presets
    from tabs.services import Services
    from text2video_zero.requests import FieldSpec, Request

WORDS = ("negative_prompt", "quality_prompt")
"""Basics that are rarely changed; they stand among the groups that open."""

PAPER = "https://arxiv.org/abs/2303.13439"


@dataclass(frozen=True)
class Tab:
    """What a task's tab shows beyond the declared fields of its request.

    about: what the task does, in one sentence.  placeholder: a prompt that it takes.
    section: of the paper, that describes it.
    examples: field values that fill the form; every example names the same fields.
    only_with: field -> value -> the fields that mean something with that value alone.
    """

    request: type[Request]
    about: str
    placeholder: str
    section: str
    examples: tuple[Mapping[str, object], ...] = ()
    presets: Presets | None = None
    only_with: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=lambda: MappingProxyType({}))


def build_tab(tab: Tab, services: Services) -> Run:
    """Render a tab and connect it. Call inside gr.Tabs."""
    task, request = tab.request.task, tab.request
    services = replace(services, menu=services.menu.of_task(task))
    defaults = defaults_of(task, services.menu.default)
    declared = {name: (defaults[name], spec) for name, _, spec in request.declarations()}
    first = required(request)
    with gr.Tab(request.title, id=task), gr.Row(elem_classes="columns"):
        with gr.Column(elem_classes="ask"):
            gr.HTML(introduction(tab), elem_classes="about-slot")
            source = None
            if "clip" in first:
                source = build_clip_source(declared["clip"][1], task, free=services.menu.free)
            fields = {name: source.file if name == "clip" else widget(name, *declared[name], task) for name in first}
            fields["prompt"].placeholder = tab.placeholder
            note = gr.HTML(elem_id=f"{task}-words-note", elem_classes="note-slot")
            buttons = build_buttons(request)
            examples = build_examples(tab.examples, fields, task)
        with gr.Column(elem_classes="result"):
            result = build_result(request)
        seed_buttons = [gr.Button("Random", render=False), gr.Button("Last", render=False)]
        with gr.Column(elem_classes="settings"):
            settings = build_presets(task)
            presets = tab.presets.build(task, defaults) if tab.presets else None
            later = sections(request, leave_out=first)
            with gr.Group():
                basics = [name for name in later.pop(BASICS) if name not in WORDS]
                fields |= _build_fields(basics, declared, task, seed_buttons)
                _build_seconds(fields["frames"], fields["fps"], task)
        with gr.Column(elem_classes="more"):
            choice = build_model_choice(task, services.menu)
            for section, names in {"Wording": [name for name in WORDS if name in declared], **later}.items():
                with gr.Accordion(section, open=False):
                    fields |= _build_fields(names, declared, task, seed_buttons)
            batch = build_batch(task)
        fields["size"].choices = sizes(services.menu.native_side(services.menu.default))
        followed, jobs = build_followed(task)
        ordered = {name: fields[name] for name in declared}
        controls = Controls(choice.model, choice.loras, ordered, buttons, batch, source, followed, jobs)
        run = Run(request, services, controls, result)
        run.connect()
        Endpoint(run).connect()
        if source is not None:
            source.connect(fields)
        connect_examples(examples, tab.examples, fields)
        choice.connect(request, fields, note)
        connect_presets(task, settings, choice.model, fields)
        if tab.presets:
            tab.presets.connect(presets, fields)
        _connect_memory(tab, services, controls)
        _connect_only_with(tab, defaults, fields)
        _connect_seed(seed_buttons, fields["seed"], result.seed)
    return run


def introduction(tab: Tab) -> str:
    """What the task does, as HTML, with where to read more."""
    return f'<p class="about">{tab.about} <a href="{PAPER}" target="_blank" rel="noopener">Paper, {tab.section}</a></p>'


def _build_fields(
    names: list[str],
    declared: Mapping[str, tuple[Any, FieldSpec]],
    task: str,
    seed_buttons: list[gr.Button],
) -> dict[str, Field]:
    fields = {}
    for row in rows({name: declared[name][1] for name in names}):
        with gr.Row():
            for name in row:
                fields[name] = widget(name, *declared[name], task, seed_buttons if name == "seed" else None)
    return fields


def _build_seconds(frames: gr.Number, fps: gr.Number, task: str) -> None:
    """How long the video plays: follows frames and speed, and sets the frames; both within the browser."""
    with frames.parent:
        seconds = gr.Number(
            round(frames.value / fps.value, 2),
            label="Seconds",
            minimum=0.1,
            step=0.5,
            elem_id=f"{task}-seconds",
            interactive=True,
        )
    follow = "(frames, fps) => (frames && fps ? Number((frames / fps).toFixed(2)) : 0)"
    gr.on([frames.change, fps.change], None, [frames, fps], seconds, js=follow, api_visibility="private")
    lead = "(seconds, fps) => Math.max(1, Math.round(seconds * fps))"
    seconds.input(None, [seconds, fps], frames, js=lead, api_visibility="private")


def _connect_only_with(tab: Tab, defaults: Mapping[str, Any], fields: Mapping[str, Field]) -> None:
    """Show of the fields that hang on a choice those of the chosen value."""
    for chooser, table in tab.only_with.items():
        names = [name for of_value in table.values() for name in of_value]
        for name in names:
            fields[name].visible = name in table[defaults[chooser]]
        fields[chooser].change(
            lambda value, table=table, names=names: [gr.update(visible=name in table.get(value, ())) for name in names],
            fields[chooser],
            [fields[name] for name in names],
            **QUIETLY,
        )


def _connect_memory(tab: Tab, services: Services, controls: Controls) -> None:
    """The browser keeps what was entered, but for the clip, and fills it in when the page is loaded again."""
    key = f"text2video-zero-form-{tab.request.task}-{services.menu.default}"  # other defaults, another form
    kept = gr.BrowserState(None, storage_key=key, secret=STORAGE_SECRET)
    widgets = [widget for name, widget in controls.inputs.items() if name != "clip"]
    gr.on(
        [*(widget.input for widget in widgets), controls.buttons.run.click],
        None,
        widgets,
        kept,
        js="(...values) => [values]",
        api_visibility="private",
    )
    services.page.load(
        None,
        [kept, *widgets],
        widgets,
        js="(kept, ...now) => (kept?.length === now.length ? kept : now)",
        api_visibility="private",
    )


def _connect_seed(buttons: list[gr.Button], seed: Field, seed_used: gr.Number) -> None:
    """Back to a drawn seed, or on to the one that was drawn last; both within the browser."""
    random, last = buttons
    random.click(None, outputs=seed, js="() => -1", api_visibility="private")
    last.click(None, seed_used, seed, js="(used) => used ?? -1", api_visibility="private")

"""One tab from one record: `build_tab` lays out the form and the result and connects them.

The page of a tab is `Controls` on the left and `Result` on the right; tabs/run.py says what happens between
a click and a video.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from tabs.clip_source import build_clip_source
from tabs.controls import Controls
from tabs.examples import build_examples, connect_examples
from tabs.form import QUIETLY, Field, required, rows, sections, widget
from tabs.model_defaults import build_presets, connect_model_defaults, connect_presets
from tabs.result import build_result
from tabs.run import Run
from tabs.vocabulary import unknown_words_note, word_list
from text2video_zero.job import defaults_of
from text2video_zero.requests import ControlledRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serving.jobs import Runner
    from serving.menu import ModelMenu
    from serving.store import VideoStore
    from text2video_zero.requests import FieldSpec, Request

BASICS = "Basics"
OPEN_SECTIONS = {"Clip", "Control"}
"""What a person who brings a clip sets first."""


@dataclass(frozen=True)
class Presets:
    """Named values for some fields, offered as a row of buttons.

    table: name -> field -> value; every entry names the same fields.
    """

    label: str
    help: str
    table: Mapping[str, Mapping[str, object]]

    @property
    def fields(self) -> list[str]:
        """The fields that the presets fill."""
        return list(next(iter(self.table.values())))

    def matching(self, values: Mapping[str, object]) -> str | None:
        """The entry that holds these values, None if there is none."""
        return next((name for name, preset in self.table.items() if dict(preset) == dict(values)), None)


@dataclass(frozen=True)
class Tab:
    """What a task's tab shows beyond the declared fields of its request.

    examples: field values that fill the form; every example names the same fields.
    """

    request: type[Request]
    examples: tuple[Mapping[str, object], ...] = ()
    presets: Presets | None = None


@dataclass(frozen=True)
class Services:
    """What the tabs need from the rest of the program."""

    runner: Runner
    store: VideoStore
    menu: ModelMenu


def build_tab(tab: Tab, services: Services) -> None:
    """Render a tab and connect it. Call inside gr.Tabs."""
    task = tab.request.task
    services = replace(services, menu=services.menu.of_task(task))
    defaults = defaults_of(task, services.menu.default)
    declared = {name: (defaults[name], spec) for name, _, spec in tab.request.declarations()}
    first = required(tab.request)
    with gr.Tab(tab.request.title, id=task), gr.Row(elem_classes="columns"):
        with gr.Column(elem_classes="ask"):
            source, fields = None, dict[str, Field]()
            if "clip" in first:
                source = build_clip_source(declared["clip"][1], task, free=services.menu.free)
                fields["clip"] = source.file
            fields |= {name: widget(name, *declared[name], task) for name in first if name not in fields}
            note = gr.HTML(elem_id=f"{task}-words-note", elem_classes="note-slot")
            start, show_maps, stop = _build_buttons(tab.request)
            examples = build_examples(tab.examples, fields, task)
        with gr.Column(elem_classes="result"):
            result = build_result(tab.request)
        seed_buttons = [gr.Button("Random", render=False), gr.Button("Last", render=False)]
        with gr.Column(elem_classes="settings"):
            settings, presets = build_presets(task), _build_presets(tab, defaults)
            later = sections(tab.request, leave_out=first)
            with gr.Group():
                fields |= _build_fields(later.pop(BASICS, []), declared, task, seed_buttons)
            model, loras = _build_model(task, services.menu), _build_loras(task, services.menu)
            words = _build_words(task, services.menu)
            for section, names in later.items():
                with gr.Accordion(section, open=section in OPEN_SECTIONS):
                    fields |= _build_fields(names, declared, task, seed_buttons)
        controls = Controls(model, loras, {name: fields[name] for name in declared}, start, show_maps, stop, source)
        Run(tab.request, services.runner, services.store, services.menu, controls, result).connect()
        if source is not None:
            source.connect(fields)
        connect_examples(examples, tab.examples, fields)
        _connect_words(services.menu, model, fields["prompt"], note, words)
        connect_model_defaults(tab.request, services.menu, model, fields, partial(_model_info, services.menu))
        connect_presets(task, settings, model, fields)
        _connect_presets(tab, presets, fields)
        _connect_seed(seed_buttons, fields["seed"], result.seed)


def _build_buttons(request: type[Request]) -> tuple[gr.Button, gr.Button | None, gr.Button]:
    """Start, show the control maps alone where there are any, and stop."""
    task, show_maps = request.task, None
    with gr.Row(elem_classes="actions"):
        start = gr.Button("Make the video", variant="primary", elem_id=f"{task}-run", scale=3, min_width=100)
        if issubclass(request, ControlledRequest):
            show_maps = gr.Button("Show control map", elem_id=f"{task}-show-maps", scale=2, min_width=90)
        stop = gr.Button("Stop", variant="stop", interactive=False, elem_id=f"{task}-stop", scale=1, min_width=60)
    return start, show_maps, stop


def _build_fields(
    names: list[str],
    declared: Mapping[str, tuple[Any, FieldSpec]],
    task: str,
    seed_buttons: list[gr.Button],
) -> dict[str, Field]:
    fields: dict[str, Field] = {}
    for row in rows({name: declared[name][1] for name in names}):
        with gr.Row():
            for name in row:
                fields[name] = widget(name, *declared[name], task, seed_buttons if name == "seed" else None)
    return fields


def _build_model(task: str, menu: ModelMenu) -> gr.Dropdown:
    return gr.Dropdown(
        menu.names(),
        value=menu.default,
        label="Model",
        info=_model_info(menu, menu.default),
        allow_custom_value=menu.free,
        elem_id=f"{task}-model",
        interactive=True,
    )


def _build_loras(task: str, menu: ModelMenu) -> gr.Textbox | None:
    if not menu.free:
        return None
    return gr.Textbox(
        "",  # without a value, programs would have to give one
        label="LoRAs",
        info="On top of the model, one per line: a .safetensors file, a name in models/ or a Hub id, and perhaps a "
        "weight, such as owner/name:0.8.",
        lines=2,
        max_lines=6,
        elem_id=f"{task}-loras",
    )


def _model_info(menu: ModelMenu, model: str) -> str:
    note = menu.note(model) or "a model of your own"
    own = " Or type a folder, a .safetensors file or a Hub id." if menu.free else ""
    return f"{note[0].upper()}{note[1:]}.{own}"


def _build_words(task: str, menu: ModelMenu) -> tuple[gr.Accordion, gr.HTML]:
    known = word_list(menu, menu.default)
    with gr.Accordion("Words this model knows", open=False, visible=bool(known), elem_id=f"{task}-words") as accordion:
        return accordion, gr.HTML(known)


def _build_presets(tab: Tab, values: Mapping[str, object]) -> gr.Radio | None:
    if tab.presets is None:
        return None
    return gr.Radio(
        list(tab.presets.table),
        value=tab.presets.matching({name: values[name] for name in tab.presets.fields}),
        label=tab.presets.label,
        info=tab.presets.help,
        elem_id=f"{tab.request.task}-presets",
        elem_classes="chips",
        interactive=True,
    )


def _connect_words(
    menu: ModelMenu,
    model: gr.Dropdown,
    prompt: Field,
    note: gr.HTML,
    words: tuple[gr.Accordion, gr.HTML],
) -> None:
    gr.on(
        [prompt.change, model.change],
        lambda model, prompt: unknown_words_note(menu, model, prompt),
        [model, prompt],
        note,
        queue=False,
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )
    accordion, shown_list = words

    def list_words(model: str) -> tuple[Any, str]:
        known = word_list(menu, model)
        return gr.update(visible=bool(known)), known

    model.change(
        list_words,
        model,
        [accordion, shown_list],
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )


def _connect_presets(tab: Tab, radio: gr.Radio | None, fields: Mapping[str, Field]) -> None:
    """A preset fills its fields; a field that moves, by hand or with the model, shows which preset still fits."""
    if tab.presets is None or radio is None:
        return
    presets, names = tab.presets, tab.presets.fields
    widgets = [fields[name] for name in names]
    radio.input(lambda preset: [presets.table[preset][name] for name in names], radio, widgets, **QUIETLY)
    gr.on(
        [moved.change for moved in widgets],
        lambda *values: presets.matching(dict(zip(names, values, strict=True))),
        widgets,
        radio,
        **QUIETLY,
    )


def _connect_seed(buttons: list[gr.Button], seed: Field, seed_used: gr.Number) -> None:
    """Back to a drawn seed, or on to the one that was drawn last; both within the browser."""
    random, last = buttons
    random.click(None, outputs=seed, js="() => -1", api_visibility="private")
    last.click(None, seed_used, seed, js="(used) => used ?? -1", api_visibility="private")

"""One tab from one record: `build_tab` lays out the form and the stage and connects them.

The page of a tab is `Controls` on the left and `Result` on the right; tabs/run.py says what happens between
a click and a video.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from serving.jobs import FORMS
from tabs import stage
from tabs.form import required, rows, sections, widget
from tabs.run import Run
from tabs.suiting import connect_suiting
from tabs.words import unknown_words_note, word_list

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradio.components import Component

    from serving.jobs import Runner, VideoStore
    from serving.menu import ModelMenu
    from text2video_zero.requests import FieldSpec, Request

BASICS = "Basics"


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


@dataclass(frozen=True)
class Controls:
    """The widgets of the form; `fields` in the order of the request's declaration."""

    model: gr.Dropdown
    fields: dict[str, Component]
    run: gr.Button
    stop: gr.Button

    @property
    def inputs(self) -> dict[str, Component]:
        """Every value of a run by its name."""
        return {"model": self.model, **self.fields}


@dataclass(frozen=True)
class Result:
    """The widgets that a run fills."""

    stage: gr.HTML
    video: gr.Video
    control_maps: gr.HTML
    status: gr.HTML
    downloads: dict[str, gr.DownloadButton]
    seed: gr.Number
    settings: gr.JSON

    @property
    def outputs(self) -> list[Component]:
        """All of them, for events that fill some."""
        return [
            self.stage,
            self.video,
            self.control_maps,
            self.status,
            *self.downloads.values(),
            self.seed,
            self.settings,
        ]


def build_tab(tab: Tab, services: Services) -> None:
    """Render a tab and connect it. Call inside gr.Tabs."""
    task = tab.request.task
    services = replace(services, menu=services.menu.of_task(task))
    suited = services.menu.defaults(services.menu.default)
    declared = {name: (suited.get(name, default), spec) for name, default, spec in tab.request.declarations()}
    first = required(tab.request)
    with gr.Tab(tab.request.title, id=task), gr.Row(elem_classes="columns"):
        with gr.Column(elem_classes="ask"):
            fields = {name: widget(name, *declared[name], task) for name in first}
            note = gr.HTML(elem_id=f"{task}-words-note", elem_classes="note-slot")
            with gr.Row(elem_classes="actions"):
                start = gr.Button("Make the video", variant="primary", elem_id=f"{task}-run", scale=3, min_width=120)
                stop = gr.Button(
                    "Stop", variant="stop", interactive=False, elem_id=f"{task}-stop", scale=1, min_width=80
                )
            _build_examples(tab, fields)
        with gr.Column(elem_classes="result"):
            result = _build_result(task)
        seed_buttons = [gr.Button("Random", render=False), gr.Button("Last", render=False)]
        with gr.Column(elem_classes="settings"):
            presets = _build_presets(tab, {name: default for name, (default, _) in declared.items()})
            later = sections(tab.request, leave_out=first)
            with gr.Group():
                fields |= _build_fields(later.pop(BASICS, []), declared, task, seed_buttons)
            model = _build_model(task, services.menu)
            words = _build_words(task, services.menu)
            for section, names in later.items():
                with gr.Accordion(section, open=False):
                    fields |= _build_fields(names, declared, task, seed_buttons)
        controls = Controls(model, {name: fields[name] for name in declared}, start, stop)
        Run(tab.request, services.runner, services.store, services.menu, controls, result).connect()
        _connect_words(services.menu, model, fields[first[0]], note, words)
        connect_suiting(tab.request, services.menu, model, fields, partial(_model_info, services.menu))
        _connect_presets(tab, presets, fields)
        _connect_seed(seed_buttons, fields["seed"], result.seed)


def _build_fields(
    names: list[str],
    declared: Mapping[str, tuple[Any, FieldSpec]],
    task: str,
    seed_buttons: list[gr.Button],
) -> dict[str, Component]:
    fields = {}
    for row in rows({name: declared[name][1] for name in names}):
        with gr.Row():
            for name in row:
                fields[name] = widget(name, *declared[name], task, seed_buttons if name == "seed" else None)
    return fields


def _build_examples(tab: Tab, fields: Mapping[str, Component]) -> None:
    """Rows that fill the form and run nothing."""
    if tab.examples:
        names = list(tab.examples[0])
        gr.Examples(
            [[example[name] for name in names] for example in tab.examples],
            [fields[name] for name in names],
            label="Try",
            elem_id=f"{tab.request.task}-examples",
            api_visibility="private",
        )


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


def _build_result(task: str) -> Result:
    picture = gr.HTML(stage.empty(), elem_id=f"{task}-stage")
    video = gr.Video(
        label="Video",
        show_label=False,
        visible=False,
        autoplay=True,
        loop=True,
        interactive=False,
        buttons=["download"],
        elem_id=f"{task}-video",
        elem_classes="stage-video",
    )
    control_maps = gr.HTML(visible=False, elem_id=f"{task}-control-maps")
    status = gr.HTML(stage.READY, elem_id=f"{task}-status", elem_classes="status-slot")
    with gr.Row(elem_classes="downloads"):
        downloads = {
            form: gr.DownloadButton(
                label, size="sm", interactive=False, min_width=80, elem_id=f"{task}-download-{form[1:]}"
            )
            for form, label in FORMS.items()
        }
    with gr.Accordion("How this video was made", open=False):
        seed = gr.Number(label="Seed", precision=0, interactive=False, elem_id=f"{task}-seed-used")
        settings = gr.JSON(label="Settings", elem_id=f"{task}-settings")
    return Result(picture, video, control_maps, status, downloads, seed, settings)


def _connect_words(
    menu: ModelMenu,
    model: gr.Dropdown,
    prompt: Component,
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


def _connect_presets(tab: Tab, radio: gr.Radio | None, fields: Mapping[str, Component]) -> None:
    """A preset fills its fields; a field that moves, by hand or with the model, shows which preset still fits."""
    if tab.presets is None:
        return
    presets, names = tab.presets, tab.presets.fields
    widgets = [fields[name] for name in names]
    quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    radio.input(lambda preset: [presets.table[preset][name] for name in names], radio, widgets, **quiet)
    gr.on(
        [moved.change for moved in widgets],
        lambda *values: presets.matching(dict(zip(names, values, strict=True))),
        widgets,
        radio,
        **quiet,
    )


def _connect_seed(buttons: list[gr.Button], seed: Component, seed_used: gr.Number) -> None:
    """Back to a drawn seed, or on to the one that was drawn last; both within the browser."""
    random, last = buttons
    random.click(None, outputs=seed, js="() => -1", api_visibility="private")
    last.click(None, seed_used, seed, js="(used) => used ?? -1", api_visibility="private")

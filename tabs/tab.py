"""One tab from one record: `build_tab` lays out the form and the result and connects them.

The page of a tab is `Controls` on the left and `Result` on the right; tabs/run.py says what happens between
a click and a video.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import gradio as gr

from tabs.form import QUIETLY, Field, required, sections, shown, sizes, the, widget
from tabs.parts.camera_pad import build_camera_pad, connect_camera_pad
from tabs.parts.clip_source import build_clip_source
from tabs.parts.controls import Controls, build_batch, build_buttons
from tabs.parts.examples import build_examples, connect_examples
from tabs.parts.model_choice import build_model_choice
from tabs.parts.presets import build_presets, build_setting_presets
from tabs.parts.result import build_result
from tabs.run import Run
from text2video_zero.job import defaults_of, preset_values
from text2video_zero.requests.fields import BASICS
from text2video_zero.requests.presets import BALANCED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serving.menu import ModelMenu
    from tabs.parts.controls import States
    from tabs.parts.model_choice import ModelChoice
    from tabs.parts.presets import Chips, Presets
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
    examples: field values that fill the form, one set at least; every example names the same fields.
    only_with: field -> value -> the fields that mean something with that value alone.
    """

    request: type[Request]
    about: str
    placeholder: str
    section: str
    examples: tuple[Mapping[str, object], ...]
    presets: Presets | None = None
    only_with: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=lambda: MappingProxyType({}))


def build_tab(tab: Tab, services: Services, states: States, *, comes_first: bool) -> Run:
    """Render a tab and connect it. Call inside gr.Tabs. comes_first: whether the page opens with it."""
    task, request = tab.request.task, tab.request
    services = replace(services, menu=services.menu.of_task(task))
    declared = _declared(request, services.menu)
    first = required(request)
    with gr.Tab(request.title, id=task) as opened, gr.Row(elem_classes="columns"):
        left, right = gr.Column(elem_classes="left"), gr.Column(elem_classes="right")
        with left, gr.Column(elem_classes="ask"):
            gr.HTML(introduction(tab), elem_classes="about-slot")
            source, fields = None, dict[str, Field]()
            if "clip" in first:
                source = build_clip_source(declared["clip"][1], task, free=services.menu.free)
                fields["clip"] = source.file
            fields |= {name: widget(name, *declared[name], task) for name in first if name not in fields}
            the(gr.Textbox, fields, "prompt").placeholder = tab.placeholder
            note = gr.HTML(elem_id=f"{task}-words-note", elem_classes="note-slot")
            buttons = build_buttons(request)
            examples = build_examples(tab.examples, task)
        with right, gr.Column(elem_classes="result"):
            result = build_result(request)
        settings = _Settings.build(tab, services.menu, declared, left, right)
        fields |= settings.fields
        ordered = {name: fields[name] for name in declared}
        choice = settings.choice
        controls = Controls(
            choice.model,
            choice.loras,
            ordered,
            buttons,
            settings.batch,
            source,
            settings.chips,
            states,
            f"text2video-zero form {task} {services.menu.default}",  # another model has other defaults
        )
        run = Run(request, services, controls, result)
        run.connect(opened.select, *([services.head.change] if comes_first else []))
        if source is not None:
            source.connect(fields, services.queue.limits)
        connect_examples(examples, tab.examples, controls)
        choice.connect(request, controls, note)
        _connect_seed(fields["seed"], settings.seed_buttons, result.seed)
        _connect_form(services, controls, task)
        _connect_only_with(tab, fields)
        if settings.pad is not None:
            connect_camera_pad(settings.pad, controls)
    return run


def _declared(request: type[Request], menu: ModelMenu) -> dict[str, tuple[Any, FieldSpec]]:
    """Field -> its default with the model and the preset that are chosen at first, and its declaration."""
    defaults = defaults_of(request.task, menu.default)
    if (preset := menu.first_preset(menu.default)) != BALANCED:
        defaults |= preset_values(request.task, menu.default, preset)
    return {name: (defaults[name], spec) for name, _, spec in request.declarations()}


@dataclass(frozen=True)
class _Settings:
    """What a tab has beside the fields that come first.

    fields: the others.  chips: rows of presets that fill some.  seed_buttons: back to a drawn seed, or on to the last.
    pad: for the camera's path, None for tasks whose camera is the clip's.
    """

    fields: dict[str, Field]
    choice: ModelChoice
    chips: tuple[Chips, ...]
    batch: dict[str, gr.Textbox | gr.Slider]
    seed_buttons: list[gr.Button]
    pad: gr.HTML | None

    @classmethod
    def build(
        cls,
        tab: Tab,
        menu: ModelMenu,
        declared: Mapping[str, tuple[Any, FieldSpec]],
        left: gr.Column,
        right: gr.Column,
    ) -> _Settings:
        """Lay them out: what is often changed below the prompt; model and groups below the video: no side is empty."""
        task = tab.request.task
        seed_buttons = [gr.Button("Random", render=False), gr.Button("Last", render=False)]
        groups = sections(tab.request, leave_out=required(tab.request))
        basics = groups.pop(BASICS)
        groups = {"Wording": [name for name in basics if name in WORDS], **groups}
        with left, gr.Column(elem_classes="settings"):
            chips = (build_setting_presets(task, menu.first_preset(menu.default)),)
            if tab.presets:
                defaults = {name: default for name, (default, _) in declared.items()}
                chips += (build_presets(task, tab.presets, defaults),)
            with gr.Group(elem_classes="basics"):
                shown_names = [name for name in basics if name not in WORDS]
                at = shown_names.index("fps") + 1
                fields = _build_fields(shown_names[:at], declared, task)
                _build_seconds(the(gr.Number, fields, "frames"), the(gr.Number, fields, "fps"), task)
                fields |= _build_fields(shown_names[at:], declared, task, seed_buttons)
        pad = None
        with right, gr.Column(elem_classes="more"):
            choice = build_model_choice(task, menu)
            for section, names in groups.items():
                with gr.Accordion(section, open=False):
                    if "camera_keys" in names:
                        pad = build_camera_pad(task)
                    fields |= _build_fields(names, declared, task)
            batch = build_batch(task)
        the(gr.Dropdown, fields, "size").choices = sizes(menu.native_side(menu.default))
        return cls(fields, choice, chips, batch, seed_buttons, pad)


def introduction(tab: Tab) -> str:
    """What the task does, as HTML, with where to read more."""
    return f'<p class="about">{tab.about} <a href="{PAPER}" target="_blank" rel="noopener">Paper, {tab.section}</a></p>'


def _build_fields(
    names: Sequence[str],
    declared: Mapping[str, tuple[Any, FieldSpec]],
    task: str,
    seed_buttons: list[gr.Button] | None = None,
) -> dict[str, Field]:
    """Render them one after the other; the style sheet has them in pairs, which costs the page no components."""
    return {name: widget(name, *declared[name], task, seed_buttons if name == "seed" else None) for name in names}


def _build_seconds(frames: gr.Number, fps: gr.Number, task: str) -> None:
    """Render how long the video plays: follows frames and speed, and sets the frames; both within the browser."""
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


def _connect_only_with(tab: Tab, fields: Mapping[str, Field]) -> None:
    """Show of the fields that hang on a choice those of the chosen value."""
    for chooser, table in tab.only_with.items():
        names = [name for of_value in table.values() for name in of_value]
        for name in names:
            fields[name].visible = name in table[str(fields[chooser].value)]
        fields[chooser].change(
            lambda value, table=table, names=names: [gr.update(visible=name in table.get(value, ())) for name in names],
            fields[chooser],
            [fields[name] for name in names],
            **QUIETLY,
        )


def _connect_seed(seed: Field, buttons: list[gr.Button], seed_used: gr.Number) -> None:
    """The buttons at the seed change it, which they do within the browser."""
    random, last = buttons
    random.click(None, outputs=seed, js="() => -1", api_visibility="private")
    last.click(None, seed_used, seed, js="(used) => used ?? -1", api_visibility="private")


def _connect_form(services: Services, controls: Controls, task: str) -> None:
    """Let the browser fill the form, keep what is entered but for files, and fill that in when the page comes again.

    Gradio looks every target, input and output of an event up by a walk through the whole page, and after an event of
    the server's it looks all up again that were outputs of any before. So what is entered is noted in one event of the
    browser's own, once a person pauses; it also takes the mark off the presets that set what she has changed.
    """
    widgets = controls.filled_widgets
    key, names, tab = json.dumps(controls.kept_as), json.dumps(list(widgets)), json.dumps(task)
    entered = {name: widget for name, widget in controls.inputs.items() if name not in controls.files}
    noting = controls.buttons.noting
    initial = {name: shown(widget.value) for name, widget in entered.items()}
    sets = {chips.radio.elem_id: list(chips.fields) for chips in controls.chips}
    note = ", ".join(map(json.dumps, (noting.elem_id, controls.kept_as, list(entered), initial, sets)))
    noting.click(
        None,
        list(entered.values()),
        [chips.radio for chips in controls.chips],
        js=f"(...values) => forms.note(values, {note})",
        api_visibility="private",
    )
    outputs, states = list(widgets.values()), controls.states
    fill = f"(asked) => forms.fill({key}, {names}, {tab}, asked)"
    states.refill.change(None, states.refill, outputs, js=fill, api_visibility="private")
    states.brought.change(controls.bring, states.brought, controls.brought_widgets, **QUIETLY)
    services.page.load(None, None, outputs, js=f"() => forms.kept({key}, {names})", api_visibility="private")

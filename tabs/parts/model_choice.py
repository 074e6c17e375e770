"""The model of a tab: its choice, LoRAs on top, the words that it knows, and what follows the model in the form."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from tabs.form import QUIETLY, Update, sizes
from text2video_zero.job import defaults_of
from text2video_zero.models.catalogue import MODELS_FOLDER
from text2video_zero.models.speeds import FULL_QUALITY, SPEED_FIELDS
from text2video_zero.prompts.syntax import read_prompt
from text2video_zero.requests import TextToVideoRequest
from text2video_zero.requests.movement import movement_in, says_movement
from text2video_zero.requests.presets import DRAFT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serving.menu import ModelMenu
    from tabs.form import Field
    from tabs.parts.controls import Controls
    from text2video_zero.requests import Request


@dataclass(frozen=True)
class ModelChoice:
    """The widgets of a model.

    loras: a line each; None where only the models on offer may be loaded.
    lora_files: adds one of those that lie in models/; None likewise.
    words: the list of words that it knows, and the accordion around it; seen with models that have one.
    """

    menu: ModelMenu
    model: gr.Dropdown
    loras: gr.Textbox | None
    lora_files: gr.Dropdown | None
    words: tuple[gr.Accordion, gr.HTML]

    def connect(self, request: type[Request], controls: Controls, note: gr.HTML) -> None:
        """Choosing a model fills in its defaults and sizes, and lists its words.

        note: says which words of the prompt the model has never seen.
        """
        self._connect_words(controls.fields["prompt"], note)
        self._connect_description(controls.fields)
        self._connect_defaults(request, controls)
        if self.loras is not None and self.lora_files is not None:
            _connect_lora_files(self.lora_files, self.loras, self.menu, controls.kept_as)

    def _connect_words(self, prompt: Field, note: gr.HTML) -> None:
        menu, model = self.menu, self.model
        gr.on(
            [prompt.change, model.change],
            lambda model, prompt: unknown_words_note(menu, model, prompt),
            [model, prompt],
            note,
            trigger_mode="always_last",
            **QUIETLY,
        )

    def _connect_description(self, fields: Mapping[str, Field]) -> None:
        """Show what hangs on the model: its note, its words, its speeds and its sizes.

        Of what is typed and is no model, here and below, nothing is shown; the run says what is wrong with it.
        """
        menu, model, speed = self.menu, self.model, fields.get("speed")

        def describe(name: str) -> Update:
            if not menu.finds(name):
                return gr.skip()
            known, speeds, side = word_list(menu, name), menu.speeds(name), menu.native_side(name)
            accordion, words = self.words
            choice = {speed: gr.update(visible=len(speeds) > 1)} if speed else {}
            return {
                model: gr.update(info=info_of(menu, name)),
                accordion: gr.update(visible=bool(known)),
                words: known,
                fields["size"]: gr.update(choices=sizes(side)),
                **choice,
            }

        outputs = [model, *self.words, fields["size"], *([speed] if speed else [])]
        model.change(describe, model, outputs, **QUIETLY)

    def _connect_defaults(self, request: type[Request], controls: Controls) -> None:
        """Choosing a model, a speed or a preset fills in what goes with it."""
        menu, fields, settings = self.menu, controls.fields, controls.settings
        speed, refill = fields.get("speed"), controls.states.refill
        by_speed = [name for name in SPEED_FIELDS if speed and name in fields]
        by_model = [name for name in fields if any(name in known.defaults for known in menu.models)]

        def defaults(names: list[str], model: str | None, chosen: str) -> dict[str, Any]:
            values = defaults_of(request.task, model or "", chosen)
            return {name: values[name] for name in names}

        def fill_for_model(model: str | None, preset: str | None, chosen: str = FULL_QUALITY) -> Update:
            if preset is not None:  # the same preset, for the other model
                if preset == DRAFT:  # which may have been chosen for the one before, for its own few steps
                    preset = menu.first_preset(model)
                values = {**defaults(by_model, model, FULL_QUALITY), **settings.values(preset, model or "")}
            else:
                if not menu.finds(model):
                    return gr.skip()
                kept = chosen if chosen in menu.speeds(model) else FULL_QUALITY
                names = list(dict.fromkeys(by_model + (by_speed if chosen != kept else [])))
                values = defaults(names, model, kept) | ({"speed": kept} if speed else {})
            return controls.filled(values, model)

        # Only by hand: an example or an earlier video brings a model together with its own settings.
        chosen = [speed] if speed else []
        self.model.input(fill_for_model, [self.model, settings.radio, *chosen], refill, **QUIETLY)
        for chips in controls.chips:
            chips.radio.input(
                lambda preset, model, chips=chips: controls.filled(chips.values(preset, model or ""), model),
                [chips.radio, self.model],
                refill,
                **QUIETLY,
            )
        if isinstance(speed, gr.Radio | gr.Dropdown):
            speed.visible = len(menu.speeds(menu.default)) > 1
            speed.input(
                lambda model, chosen: controls.filled(defaults(by_speed, model, chosen), model),
                [self.model, speed],
                refill,
                **QUIETLY,
            )


def build_model_choice(task: str, menu: ModelMenu) -> ModelChoice:
    """Lay out the choice of a model where it is called."""
    model = gr.Dropdown(
        menu.names(),
        value=menu.default,
        label="Model",
        info=info_of(menu, menu.default),
        allow_custom_value=menu.free,
        elem_id=f"{task}-model",
        interactive=True,
    )
    known = word_list(menu, menu.default)
    with gr.Accordion("Words this model knows", open=False, visible=bool(known), elem_id=f"{task}-words") as accordion:
        words = accordion, gr.HTML(known)
    loras = lora_files = None
    if menu.free:
        with gr.Accordion("LoRAs on top", open=False):
            lora_files = _build_lora_files(task, menu)
            loras = _build_loras(task)
    return ModelChoice(menu, model, loras, lora_files, words)


def _build_lora_files(task: str, menu: ModelMenu) -> gr.Dropdown:
    return gr.Dropdown(
        menu.loras(),
        value=None,
        label="Add from models/",
        info=f"The LoRA files in {MODELS_FOLDER.resolve()}. Whole models that lie there stand in the list of models.",
        elem_id=f"{task}-lora-files",
        interactive=True,
    )


def _connect_lora_files(files: gr.Dropdown, loras: gr.Textbox, menu: ModelMenu, kept_as: str) -> None:
    """Choosing a file writes its name below those that are there; the list is read anew whenever it is opened."""
    files.focus(lambda: gr.update(choices=menu.loras()), outputs=files, **QUIETLY)
    add = f"(name, lines) => forms.add({json.dumps(kept_as)}, name, lines)"
    files.input(None, [files, loras], [files, loras], js=add, api_visibility="private")


def _build_loras(task: str) -> gr.Textbox:
    return gr.Textbox(
        "",  # without a value, programs would have to give one
        label="LoRAs",
        info="On top of the model, one per line: a .safetensors file, a name in models/ or a Hub id, and perhaps a "
        "weight, such as owner/name:0.8.",
        lines=1,
        max_lines=6,
        elem_id=f"{task}-loras",
    )


def info_of(menu: ModelMenu, model: str) -> str:
    """The line below a model."""
    note = menu.note(model) or "a model of your own"
    own = " Or type a folder, a .safetensors file or a Hub id." if menu.free else ""
    return f"{note[0].upper()}{note[1:]}.{own}"


def unknown_words_note(menu: ModelMenu, model: str | None, prompt: str | None) -> str:
    """One sentence that names the words the model has never seen, blank if there are none.

    In text to video those of a movement are read by the app itself.
    """
    vocabulary, text = menu.vocabulary(model), read_prompt(prompt or "").text
    unknown = vocabulary.unknown_words(text) if vocabulary else []
    if menu.task == TextToVideoRequest.task and (moving := movement_in(text)):
        unknown = [word for word in unknown if not says_movement(word, moving.kind)]
    if not unknown:
        return ""
    named = ", ".join(f"<b>{html.escape(word)}</b>" for word in unknown)
    return f'<p class="note">{html.escape(str(model))} has never seen {named} and will guess.</p>'


def word_list(menu: ModelMenu, model: str | None) -> str:
    """The words of the model by role, blank where no list exists."""
    vocabulary = menu.vocabulary(model)
    if vocabulary is None:
        return ""
    rows = "".join(
        f"<dt>{html.escape(role)}</dt><dd>{html.escape(', '.join(words))}</dd>"
        for role, words in vocabulary.words_by_role().items()
    )
    return f'<dl class="words">{rows}</dl>'

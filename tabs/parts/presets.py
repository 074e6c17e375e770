"""Presets: values for many fields at once, as a row of chips, of which the one that fits is marked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from text2video_zero.job import preset_values
from text2video_zero.requests.presets import PRESETS, preset_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Presets:
    """Named values for some fields that are the same for every model.

    table: name -> field -> value; every entry names the same fields.
    """

    label: str
    help: str
    table: Mapping[str, Mapping[str, object]]

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that the presets fill."""
        return tuple(next(iter(self.table.values())))


@dataclass(frozen=True)
class Chips:
    """A row of presets on the page.

    radio: without a value where none fits.  presets: their names.  fields: what each of them fills.
    values: preset, model -> field -> value.
    """

    radio: gr.Radio
    presets: tuple[str, ...]
    fields: tuple[str, ...]
    values: Callable[[str, str], Mapping[str, Any]]

    def fitting(self, model: str, values: Mapping[str, Any]) -> str | None:
        """The preset that has these values for a model; None if there is none, or some are not told."""
        told = {name: values.get(name) for name in self.fields}
        return next((name for name in self.presets if self.values(name, model) == told), None)

    def marked(self, model: str, values: Mapping[str, Any]) -> dict[str, str | None]:
        """Which chip is marked once a form has these values, by the id of the row; nothing if they are none of its."""
        touched = any(name in values for name in self.fields)
        return {str(self.radio.elem_id): self.fitting(model, values)} if touched else {}


def build_presets(task: str, presets: Presets, defaults: Mapping[str, Any]) -> Chips:
    """Lay out presets that are the same for every model, where one is marked that fits the defaults."""
    radio = _row(list(presets.table), None, presets.label, presets.help, f"{task}-presets")
    chips = Chips(radio, tuple(presets.table), presets.fields, lambda name, _: dict(presets.table[name]))
    radio.value = chips.fitting("", defaults)
    return chips


def build_setting_presets(task: str, first: str) -> Chips:
    """Lay out the presets of a task that hang on the model: how good and how slow. first: the one that is chosen."""
    told = "; ".join(f"{preset.title}: {preset.help}" for preset in PRESETS.values())
    choices = [(preset.title, name) for name, preset in PRESETS.items()]
    radio = _row(choices, first, "Preset", f"{told}.", f"{task}-setting-presets")
    return Chips(radio, tuple(PRESETS), preset_fields(task), lambda name, model: preset_values(task, model, name))


def _row(choices: list[Any], value: str | None, label: str, info: str, elem_id: str) -> gr.Radio:
    return gr.Radio(
        choices, value=value, label=label, info=info, elem_id=elem_id, elem_classes="chips", interactive=True
    )

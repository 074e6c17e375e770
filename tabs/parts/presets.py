"""Presets: values for many fields at once, as a row of chips; a field that moves shows which of them still fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from tabs.form import QUIETLY, shown
from text2video_zero.job import preset_values
from text2video_zero.requests.presets import BALANCED, PRESETS, preset_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tabs.form import Field


@dataclass(frozen=True)
class Presets:
    """Named values for some fields that are the same for every model.

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

    def build(self, task: str, values: Mapping[str, object]) -> gr.Radio:
        """Lay them out, where one is chosen that fits the values."""
        fitting = self.matching({name: values[name] for name in self.fields})
        return _chips(list(self.table), fitting, self.label, self.help, f"{task}-presets")

    def connect(self, radio: gr.Radio, fields: Mapping[str, Field]) -> None:
        """A preset fills its fields, and the fields' values choose the preset."""
        names = self.fields
        widgets = [fields[name] for name in names]
        radio.input(lambda preset: [self.table[preset][name] for name in names], radio, widgets, **QUIETLY)
        gr.on(
            [moved.change for moved in widgets],
            lambda *values: self.matching(dict(zip(names, values, strict=True))),
            widgets,
            radio,
            trigger_mode="always_last",
            **QUIETLY,
        )


def build_presets(task: str) -> gr.Radio:
    """The presets of a task that hang on the model: how good and how slow."""
    told = "; ".join(f"{preset.title}: {preset.help}" for preset in PRESETS.values())
    choices = [(preset.title, name) for name, preset in PRESETS.items()]
    return _chips(choices, BALANCED, "Settings", f"{told}.", f"{task}-setting-presets")


def connect_presets(task: str, radio: gr.Radio, model: gr.Dropdown, fields: Mapping[str, Field]) -> None:
    """A preset fills its fields, and the fields' values choose the preset."""
    names = preset_fields(task)
    filled = [fields[name] for name in names]

    def fill(preset: str, model_name: str) -> list[Any]:
        values = preset_values(task, model_name or "", preset)
        return [shown(values[name]) for name in names]

    def fitting(model_name: str, *values: Any) -> str | None:
        return next((preset for preset in PRESETS if fill(preset, model_name) == list(values)), None)

    radio.input(fill, [radio, model], filled, **QUIETLY)
    gr.on([field.change for field in filled], fitting, [model, *filled], radio, trigger_mode="always_last", **QUIETLY)


def _chips(choices: list[Any], value: str | None, label: str, info: str, elem_id: str) -> gr.Radio:
    return gr.Radio(
        choices, value=value, label=label, info=info, elem_id=elem_id, elem_classes="chips", interactive=True
    )

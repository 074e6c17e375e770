"""What fills many fields at once: a preset, or the defaults of a model and its speed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from tabs.form import QUIETLY, shown
from text2video_zero.job import defaults_of, preset_values
from text2video_zero.models.speeds import FULL_QUALITY, SPEED_FIELDS
from text2video_zero.requests.presets import BALANCED, PRESETS, preset_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gradio.components import Component

    from serving.menu import ModelMenu
    from tabs.form import Field
    from text2video_zero.requests import Request


def connect_model_defaults(
    request: type[Request],
    menu: ModelMenu,
    model: gr.Dropdown,
    fields: Mapping[str, Field],
    info: Callable[[str], str],
) -> None:
    """Choosing a model or a speed fills in its defaults, and takes back those of the one before.

    info: the line below a model. The choice of speed shows with models that have one.
    """
    speed = fields.get("speed")
    by_speed = [name for name in SPEED_FIELDS if speed and name in fields]
    by_model = [name for name in fields if any(name in known.defaults for known in menu.models)]

    def defaults(names: list[str], model_name: str, chosen: str) -> dict[Component, Any]:
        values = defaults_of(request.task, model_name or "", chosen)
        return {fields[name]: shown(values[name]) for name in names}

    def fill_for_model(name: str, chosen: str = FULL_QUALITY) -> dict[Component, Any]:
        offered = menu.speeds(name)
        kept = chosen if chosen in offered else FULL_QUALITY
        names = list(dict.fromkeys(by_model + (by_speed if chosen != kept else [])))
        choice = {speed: gr.update(value=kept, visible=len(offered) > 1)} if speed else {}
        return {model: gr.update(info=info(name)), **choice, **defaults(names, name, kept)}

    filled = [fields[name] for name in dict.fromkeys(by_model + by_speed)]
    chosen = [speed] if speed else []
    model.change(fill_for_model, [model, *chosen], [model, *chosen, *filled], **QUIETLY)
    if isinstance(speed, gr.Radio | gr.Dropdown):
        speed.visible = len(menu.speeds(menu.default)) > 1
        speed.input(
            lambda name, chosen: defaults(by_speed, name, chosen),
            [model, speed],
            [fields[name] for name in by_speed],
            **QUIETLY,
        )


def build_presets(task: str) -> gr.Radio:
    """The presets of a task, to choose one."""
    told = "; ".join(f"{preset.title}: {preset.help}" for preset in PRESETS.values())
    return gr.Radio(
        [(preset.title, name) for name, preset in PRESETS.items()],
        value=BALANCED,
        label="Settings",
        info=f"{told}.",
        elem_id=f"{task}-setting-presets",
        elem_classes="chips",
        interactive=True,
    )


def connect_presets(task: str, radio: gr.Radio, model: gr.Dropdown, fields: Mapping[str, Component]) -> None:
    """A preset fills its fields; a field that moves, by hand or with the model, shows which preset still fits."""
    names = preset_fields(task)
    filled = [fields[name] for name in names]

    def fill(preset: str, model_name: str) -> list[Any]:
        values = preset_values(task, model_name or "", preset)
        return [shown(values[name]) for name in names]

    def fitting(model_name: str, *values: Any) -> str | None:
        return next((preset for preset in PRESETS if fill(preset, model_name) == list(values)), None)

    radio.input(fill, [radio, model], filled, **QUIETLY)
    gr.on([field.change for field in filled], fitting, [model, *filled], radio, trigger_mode="always_last", **QUIETLY)

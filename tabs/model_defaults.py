"""The defaults of a model and its speed: filled into the form when one of them is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from tabs.form import QUIETLY, shown
from text2video_zero.job import defaults_of
from text2video_zero.models.speeds import FULL_QUALITY, SPEED_FIELDS

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

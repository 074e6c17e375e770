"""What suits a model and its speed: filled into the form when one of them is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from tabs.form import shown
from text2video_zero.models.speeds import FULL_QUALITY, SPEED_FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gradio.components import Component

    from serving.menu import ModelMenu
    from text2video_zero.requests import Request


def connect_suiting(
    request: type[Request],
    menu: ModelMenu,
    model: gr.Dropdown,
    fields: Mapping[str, Component],
    info: Callable[[str], str],
) -> None:
    """Choosing a model or a speed fills in what suits it, and takes back what suited the one before.

    info: the line below a model. The choice of speed shows with models that have one.
    """
    declared = {name: default for name, default, _ in request.declarations()}
    speed = fields.get("speed")
    by_speed = [name for name in SPEED_FIELDS if speed and name in declared]
    by_model = [name for name in declared if any(name in known.defaults for known in menu.models)]
    quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def suiting(names: list[str], model_name: str, chosen: str) -> dict[Component, Any]:
        values = declared | dict(menu.defaults(model_name, chosen))
        return {fields[name]: shown(values[name]) for name in names}

    def suit_model(name: str, chosen: str = FULL_QUALITY) -> dict[Component, Any]:
        offered = menu.speeds(name)
        kept = chosen if chosen in offered else FULL_QUALITY
        names = list(dict.fromkeys(by_model + (by_speed if chosen != kept else [])))
        choice = {speed: gr.update(value=kept, visible=len(offered) > 1)} if speed else {}
        return {model: gr.update(info=info(name)), **choice, **suiting(names, name, kept)}

    filled = [fields[name] for name in dict.fromkeys(by_model + by_speed)]
    chosen = [speed] if speed else []
    model.change(suit_model, [model, *chosen], [model, *chosen, *filled], **quiet)
    if speed:
        speed.visible = len(menu.speeds(menu.default)) > 1
        speed.input(
            lambda name, chosen: suiting(by_speed, name, chosen),
            [model, speed],
            [fields[name] for name in by_speed],
            **quiet,
        )

"""The left side of a tab: the widgets of the form, and the buttons that begin and end a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gradio as gr

    from tabs.clip_source import ClipSource
    from tabs.form import Field


@dataclass(frozen=True)
class Controls:
    """The widgets of the form; `fields` in the order of the request's declaration.

    loras: LoRAs on top of the model, a line each; None where only the models on offer may be loaded.
    show_maps: makes the control maps alone, None for tasks without.
    clip_source: None for tasks that begin with words alone.
    """

    model: gr.Dropdown
    loras: gr.Textbox | None
    fields: dict[str, Field]
    run: gr.Button
    show_maps: gr.Button | None
    stop: gr.Button
    clip_source: ClipSource | None

    @property
    def inputs(self) -> dict[str, Any]:
        """Every value of a run by its name: widgets, in a dict that all of Gradio's annotations agree with."""
        loras = {} if self.loras is None else {"loras": self.loras}
        return {"model": self.model, **loras, **self.fields}

    @property
    def inputs_of_page(self) -> dict[str, Any]:
        """The same, and what only the person at the serving machine may give: a path of it."""
        folder = self.clip_source and self.clip_source.folder
        return {**self.inputs, "clip_path": folder} if folder else self.inputs

    @property
    def starters(self) -> list[gr.Button]:
        """The buttons that begin a run."""
        return [self.run] if self.show_maps is None else [self.run, self.show_maps]

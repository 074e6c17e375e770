"""Examples that fill the form when they are clicked, and run nothing."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import gradio as gr

from tabs.form import IN_TURN, Update

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tabs.parts.controls import Controls


TELL_WHICH = """element.addEventListener("click", ({ target }) => {
    const chosen = target.closest("[data-example]");
    if (chosen) trigger("click", { example: Number(chosen.dataset.example) });
});"""


def build_examples(examples: Sequence[Mapping[str, object]], task: str) -> gr.HTML:
    """Lay out examples of field values, to be connected when all fields are there; every one names the same fields.

    Those with a clip are cards that show it. Texts alone are a row.
    """
    offered = cards_of(examples) if "clip" in examples[0] else texts_of(examples)
    return gr.HTML(offered, elem_id=f"{task}-examples", js_on_load=TELL_WHICH)


def connect_examples(offered: gr.HTML, examples: Sequence[Mapping[str, object]], controls: Controls) -> None:
    """Let a click on an example fill the fields that it names: the browser does so with what it can know at once.

    Files come from the server. What begins a run meanwhile waits for them (forms.arrived in page.js).
    """
    widgets, files = controls.filled_widgets, [name for name in controls.files if name in examples[0]]
    values, names = json.dumps([controls.values_of(example) for example in examples]), json.dumps(list(widgets))
    which, key = json.dumps(offered.elem_id), json.dumps(controls.kept_as)
    choose = f"() => forms.choose({which}, {key}, {names}, {values})"
    filled = offered.click(None, None, list(widgets.values()), js=choose, api_visibility="private")

    def bring(chosen: gr.EventData) -> Update:
        example = examples[chosen.example]
        return {controls.fields[name]: str(example[name]) for name in files}

    if files:
        filled = offered.click(bring, outputs=[controls.fields[name] for name in files], **IN_TURN)
    drawn = [{controls.fields[name].elem_id: Path(str(example[name])).stem for name in files} for example in examples]
    filled.then(None, js=f"() => forms.arrived({which}, {json.dumps(drawn)})", api_visibility="private")


def texts_of(examples: Sequence[Mapping[str, object]]) -> str:
    """A button for each example that says its prompt."""
    texts = "".join(
        f'<button type="button" data-example="{number}">{html.escape(str(example["prompt"]))}</button>'
        for number, example in enumerate(examples)
    )
    return f'<div class="examples"><p>Try</p><div class="texts">{texts}</div></div>'


def cards_of(examples: Sequence[Mapping[str, object]]) -> str:
    """A card for each example: its clip in motion and its prompt."""
    cards = "".join(
        f'<button type="button" data-example="{number}">{_moving(Path(str(example["clip"])))}'
        f"<span>{html.escape(str(example['prompt']))}</span></button>"
        for number, example in enumerate(examples)
    )
    return f'<div class="examples"><p>Try</p><div class="cards">{cards}</div></div>'


def _moving(clip: Path) -> str:
    address = f"gradio_api/file={quote(str(clip.resolve()))}"
    return f'<video src="{html.escape(address)}" muted autoplay loop playsinline aria-hidden="true"></video>'

"""Examples that fill the form when they are clicked, and run nothing."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from tabs.form import IN_TURN, Update

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tabs.form import Field
    from tabs.parts.controls import Controls


TELL_WHICH = """element.addEventListener("click", ({ target }) => {
    const card = target.closest("[data-example]");
    if (card) trigger("click", { example: Number(card.dataset.example) });
});"""


def build_examples(examples: Sequence[Mapping[str, object]], fields: Mapping[str, Field], task: str) -> gr.HTML | None:
    """Lay out examples of field values; every one names the same fields.

    Those with a clip are cards that show it, to be connected when all fields are there. Texts alone are a list.
    """
    if not examples:
        return None
    if "clip" in examples[0]:
        return gr.HTML(cards_of(examples), elem_id=f"{task}-examples", js_on_load=TELL_WHICH)
    names = list(examples[0])
    gr.Examples(
        [[example[name] for name in names] for example in examples],
        [fields[name] for name in names],
        label="Try",
        elem_id=f"{task}-examples",
        api_visibility="private",
    )
    return None


def connect_examples(cards: gr.HTML | None, examples: Sequence[Mapping[str, object]], controls: Controls) -> None:
    """Let a click on a card fill the fields that it names."""
    if cards is None:
        return

    def fill(chosen: gr.EventData) -> Update:
        example = examples[chosen.example]
        return controls.filled(example, files={"clip": str(example["clip"])})

    cards.click(fill, outputs=[controls.states.refill, controls.states.brought], **IN_TURN)


def cards_of(examples: Sequence[Mapping[str, object]]) -> str:
    """A card for each example: its clip in motion and its prompt. The clips are small and travel in the page."""
    cards = "".join(
        f'<button type="button" data-example="{number}">{_moving(Path(str(example["clip"])))}'
        f"<span>{html.escape(str(example['prompt']))}</span></button>"
        for number, example in enumerate(examples)
    )
    return f'<div class="examples"><p>Try</p><div class="cards">{cards}</div></div>'


def _moving(clip: Path) -> str:
    data = base64.b64encode(clip.read_bytes()).decode()
    return f'<video src="data:video/mp4;base64,{data}" muted autoplay loop playsinline aria-hidden="true"></video>'

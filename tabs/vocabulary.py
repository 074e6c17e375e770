"""What a small model knows: a note on unknown words of the prompt, and the list of its words."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from text2video_zero.prompts.syntax import read_prompt

if TYPE_CHECKING:
    from serving.menu import ModelMenu


def unknown_words_note(menu: ModelMenu, model: str | None, prompt: str | None) -> str:
    """One sentence that names the words the model has never seen, blank if there are none."""
    vocabulary = menu.vocabulary(model)
    unknown = vocabulary.unknown_words(read_prompt(prompt or "").text) if vocabulary else []
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

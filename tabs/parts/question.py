"""What asks before a run that takes very long."""

from __future__ import annotations

import gradio as gr


def build_question(name: str) -> tuple[gr.HTML, gr.Button]:
    """The question and the button that says yes; while the question is blank, nothing of it is seen.

    name: begins the ids of its elements.
    """
    with gr.Column(elem_id=f"{name}-confirmation", elem_classes="confirmation"):
        question = gr.HTML()
        with gr.Row():
            anyway = gr.Button("Make it anyway", variant="primary", size="sm", elem_id=f"{name}-anyway")
            not_now = gr.Button("Not now", size="sm")
    not_now.click(None, None, question, js="() => ''", api_visibility="private")
    return question, anyway

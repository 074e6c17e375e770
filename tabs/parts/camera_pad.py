"""A pad on which the camera's path is drawn by hand, and seen on the picture before anything is sampled."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import gradio as gr

from tabs.look.theme import STYLE

if TYPE_CHECKING:
    from tabs.parts.controls import Controls

DRAWING = STYLE.with_name("camera_pad.js")
PAD = """<div class="pad"><canvas width="256" height="256" role="img"
aria-label="Draw the camera's path here, or write it below as key frames"></canvas>
<p><b>Camera by hand</b> Draw where the camera goes. The picture shows at once what that does to it, and the key frames
below say it in numbers. <button type="button" data-clear>Clear</button></p></div>"""


def build_camera_pad(task: str) -> gr.HTML:
    """Lay the pad out where it is called."""
    return gr.HTML(PAD, elem_id=f"{task}-camera-pad", js_on_load=DRAWING.read_text(encoding="utf-8"))


def connect_camera_pad(pad: gr.HTML, controls: Controls) -> None:
    """Let what is drawn become key frames, which are not eased: the hand has its own speed."""
    fields = controls.fields
    js = f"(frames) => forms.path({json.dumps(pad.elem_id)}, {json.dumps(controls.kept_as)}, frames)"
    outputs = [fields["camera_keys"], fields["camera_eased"]]
    pad.input(None, fields["frames"], outputs, js=js, api_visibility="private")

"""The text-to-video tab."""

from __future__ import annotations

from tabs.tab import Presets, Tab
from text2video_zero.requests import TextToVideoRequest
from text2video_zero.requests.camera import CAMERA_PRESETS

TEXT_TO_VIDEO = Tab(
    request=TextToVideoRequest,
    examples=(
        {"prompt": "a red panda dancing in the snow"},
        {"prompt": "an orange fox walking in the meadow"},
        {"prompt": "a yellow car on the beach"},
        {"prompt": "a white horse standing in a meadow"},
        {"prompt": "an orange cat jumping on a street at night"},
    ),
    presets=Presets("Camera", "A starting point; the sliders below fine-tune it.", CAMERA_PRESETS),
)

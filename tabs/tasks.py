"""The tabs: one record for each task."""

from __future__ import annotations

from tabs.tab import Presets, Tab
from text2video_zero.models.catalogue import ASSETS
from text2video_zero.requests import (
    DepthRequest,
    DreamBoothRequest,
    EdgeRequest,
    InstructPix2PixRequest,
    PoseRequest,
    TextToVideoRequest,
)
from text2video_zero.requests.camera import CAMERA_PRESETS

CLIPS = ASSETS / "clips"


def _example(clip: str, prompt: str, **values: object) -> dict[str, object]:
    return {"clip": str(CLIPS / f"{clip}.mp4"), "prompt": prompt, **values}


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
CLIP_TABS = (
    Tab(
        PoseRequest,
        examples=(
            _example("dancing-skeleton", "a white astronaut dancing on the moon", ready_made="yes"),
            _example("walking-skeleton", "a blue robot walking in the city", ready_made="yes"),
            _example("dancing-skeleton", "a green bear dancing on the beach", ready_made="yes"),
        ),
    ),
    Tab(
        EdgeRequest,
        examples=(
            _example("walking-fox", "a purple fox walking in the snow", ready_made="no"),
            _example("dancing-panda", "a green panda dancing on the beach", ready_made="no"),
            _example("car-on-the-beach", "a red car on the street", ready_made="no"),
        ),
    ),
    Tab(
        DepthRequest,
        examples=(
            _example("depth-fly-by", "a red robot walking in the city", ready_made="yes"),
            _example("depth-horse", "a white horse walking in the desert", ready_made="yes"),
            _example("depth-fly-by", "a yellow bear walking in the city", ready_made="yes"),
        ),
    ),
    Tab(
        DreamBoothRequest,
        examples=(
            _example("dancing-panda", "a red panda dancing in the snow", control="edge", ready_made="no"),
            _example("walking-fox", "an orange fox walking in the meadow", control="edge", ready_made="no"),
            _example("walking-skeleton", "a blue robot walking in the city", control="pose", ready_made="yes"),
        ),
    ),
    Tab(
        InstructPix2PixRequest,
        examples=(
            _example("panda-in-a-meadow", "make it snow"),
            _example("panda-in-a-meadow", "turn the panda into a robot"),
            _example("car-on-the-beach", "make it night"),
        ),
    ),
)
TABS = (TEXT_TO_VIDEO, *CLIP_TABS)

"""The tabs: one record for each task."""

from __future__ import annotations

from tabs.parts.presets import Presets
from tabs.tab import Tab
from text2video_zero.models.catalogue import ASSETS
from text2video_zero.requests import (
    ControlledRequest,
    DepthRequest,
    DreamBoothRequest,
    EdgeRequest,
    InstructPix2PixRequest,
    PoseRequest,
    TextToVideoRequest,
)
from text2video_zero.requests.camera import CAMERA_PRESETS
from text2video_zero.requests.controlled import DepthFields, EdgeFields, PoseFields

CLIPS = ASSETS / "clips"
SHOWN_SEED = 7  # of the example that the tab shows first


def _own_fields(controlled: type[ControlledRequest]) -> list[str]:
    """The fields that one control adds to what all have."""
    shared = {name for name, _, _ in ControlledRequest.declarations()}
    return [name for name, _, _ in controlled.declarations() if name not in shared]


def _example(clip: str, prompt: str, **values: object) -> dict[str, object]:
    return {"clip": str(CLIPS / f"{clip}.mp4"), "prompt": prompt, **values}


TEXT_TO_VIDEO = Tab(
    request=TextToVideoRequest,
    about="Write what you want to see. A model that has only ever seen pictures films it: the camera moves, "
    "the subject stays the same, and it walks, dances, swims, drives or flies as you say.",
    placeholder="a red panda dancing in the snow",
    section="3.3",
    examples=(
        {"prompt": "a red panda dancing in the snow"},
        {"prompt": "a white astronaut waving on the moon"},
        {"prompt": "an orange fox running in the meadow"},
        {"prompt": "a yellow car on the beach"},
        {"prompt": "a white horse walking in the desert"},
    ),
    presets=Presets("Camera", "Where the camera goes; the sliders under Motion fine-tune it.", CAMERA_PRESETS),
)
CLIP_TABS = (
    Tab(
        PoseRequest,
        about="Bring a clip of somebody who moves, or a skeleton, and write who is to move like that.",
        placeholder="a white astronaut dancing on the moon",
        section="3.4",
        examples=(
            _example("dancing-skeleton", "a white astronaut dancing on the moon", ready_made="yes"),
            _example("walking-skeleton", "a blue robot walking in the city", ready_made="yes"),
            _example("dancing-skeleton", "a green bear dancing on the beach", ready_made="yes"),
        ),
    ),
    Tab(
        EdgeRequest,
        about="Bring a clip and write what is to be drawn along its edges.",
        placeholder="a purple fox walking in the snow",
        section="3.4",
        examples=(
            _example("walking-fox", "a purple fox walking in the snow", ready_made="no"),
            _example("dancing-panda", "a green panda dancing on the beach", ready_made="no"),
            _example("car-on-the-beach", "a red car on the street", ready_made="no"),
        ),
    ),
    Tab(
        DepthRequest,
        about="Bring a clip and write what is to fill its space: near stays near, far stays far.",
        placeholder="a red robot walking in the city",
        section="3.4",
        examples=(
            _example("depth-fly-by", "a red robot walking in the city", ready_made="yes"),
            _example("depth-horse", "a white horse walking in the desert", ready_made="yes"),
            _example("depth-fly-by", "a yellow bear walking in the city", ready_made="yes"),
        ),
    ),
    Tab(
        DreamBoothRequest,
        about="Bring a clip and choose a style: a model that was taught one look draws the clip in it.",
        placeholder="a red panda dancing in the snow",
        section="3.4",
        examples=(
            _example("dancing-panda", "a red panda dancing in the snow", control="edge", ready_made="no"),
            _example("walking-fox", "an orange fox walking in the meadow", control="edge", ready_made="no"),
            _example("walking-skeleton", "a blue robot walking on the beach", control="pose", ready_made="yes"),
        ),
        only_with={
            "control": {
                "edge": _own_fields(EdgeFields),
                "pose": _own_fields(PoseFields),
                "depth": _own_fields(DepthFields),
            }
        },
    ),
    Tab(
        InstructPix2PixRequest,
        about="Bring a clip and say what to change in it; the rest stays as it is.",
        placeholder="make it night",
        section="3.4",
        examples=(
            _example("panda-in-a-meadow", "put it in the snow", seed=SHOWN_SEED),
            _example("panda-in-a-meadow", "make the panda purple", seed=SHOWN_SEED),
            _example("car-on-the-beach", "make it night", seed=SHOWN_SEED),
        ),
    ),
)
TABS = (TEXT_TO_VIDEO, *CLIP_TABS)

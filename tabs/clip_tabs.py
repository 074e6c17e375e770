"""The tabs that begin with a clip."""

from __future__ import annotations

from tabs.tab import Tab
from text2video_zero.requests import (
    DepthRequest,
    DreamBoothRequest,
    EdgeRequest,
    InstructPix2PixRequest,
    PoseRequest,
)

CLIP_TABS = (
    Tab(PoseRequest, examples=({"prompt": "an astronaut dancing on the moon"}, {"prompt": "a robot in a garden"})),
    Tab(EdgeRequest, examples=({"prompt": "an oil painting of a deer"}, {"prompt": "a paper cut of a city"})),
    Tab(DepthRequest, examples=({"prompt": "a cave of glowing crystals"}, {"prompt": "a street in the rain"})),
    Tab(DreamBoothRequest, examples=({"prompt": "a woman with a white hat"}, {"prompt": "a man in a red jacket"})),
    Tab(InstructPix2PixRequest, examples=({"prompt": "make it snow"}, {"prompt": "make it a pencil sketch"})),
)

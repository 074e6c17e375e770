"""Presets: settings that go together, by name; command line and page take them from here.

What is shown, how long and how large stays with the person: no preset sets a prompt, frames, size or seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from text2video_zero.errors import UserError
from text2video_zero.requests.camera import PAPER_PAN
from text2video_zero.requests.movement import NO_MOVEMENT
from text2video_zero.requests.video import FULL_QUALITY

if TYPE_CHECKING:
    from collections.abc import Mapping

Values = dict[str, object]


@dataclass(frozen=True)
class Preset:
    """Settings that go together.

    title: what a form calls it.  help: one line about it.
    values: task -> field -> value; a field that some other preset sets and this one leaves out is the model's own.
    speeds: of which the first one is chosen that the model has, with what goes with it; without any, full quality.
    steps: how many there are at full quality, against the model's own number.
    """

    title: str
    help: str
    values: Mapping[str, Mapping[str, object]] = field(default_factory=lambda: MappingProxyType({}))
    speeds: tuple[str, ...] = ()
    steps: float = 1.0


_ONE_FRAME_TO_ALL: Values = {
    "cross_frame_attention": True,
    "reference_frames": "first",
    "token_merging": 0.0,
    "cache_interval": 1,
    "guidance_end": 1.0,
}
# Section 4.1; where the paper is silent, the authors' code: it moves latents by whole cells of a field that nothing
# turns back, and its background smoothing is switched off.
_PAPER_TEXT_TO_VIDEO: Values = {
    **_ONE_FRAME_TO_ALL,
    "speed": FULL_QUALITY,
    "sampler": "DDIM",
    "steps": 50,
    "guidance_scale": 7.5,
    "movement": NO_MOVEMENT,
    "motion": True,
    "pan_x": PAPER_PAN,
    "pan_y": PAPER_PAN,
    "zoom": 0.0,
    "rotation": 0.0,
    "reach": 1.0,
    "motion_from": 881,
    "motion_to": 941,
    "restart": False,
    "resampling": "nearest",
    "cell_step": 1,
    "motion_smoothness": 0.0,
    "loop": False,
    "camera_keys": "",
    "camera_eased": True,
    "shake": 0.0,
    "parallax": 0.0,
    "shot_anchors": False,
    "smooth_background": False,
    "smoothing_strength": 0.6,
}
# Section 4.2 and the authors' code: one noise for all frames.
_PAPER_CONTROLLED: Values = {
    **_ONE_FRAME_TO_ALL,
    "speed": FULL_QUALITY,
    "sampler": "DDIM",
    "steps": 20,
    "guidance_scale": 9.0,
    "control_strength": 1.0,
    "control_start": 0.0,
    "control_end": 1.0,
    "noise_follows": False,
}
_PAPER_EDGES: Values = {"canny_low": 100, "canny_high": 200}
# Video Instruct-Pix2Pix as in the authors' code: every frame draws its own noise.
_PAPER_INSTRUCTED: Values = {
    **_ONE_FRAME_TO_ALL,
    "sampler": "Euler ancestral",
    "steps": 50,
    "guidance_scale": 7.5,
    "image_guidance_scale": 1.5,
    "shared_noise": False,
    "noise_follows": False,
    "motion_smoothness": 0.0,
}

_BEST: Values = {"cache_interval": 1}  # the whole network at every step
# Poses that turn into one another, which lowers warp error and flicker on Toyland (docs/EVALUATION.md).
_BEST_TEXT_TO_VIDEO: Values = _BEST | {"motion_smoothness": 4.0}

DRAFT, BALANCED, BEST, PAPER = "draft", "balanced", "best", "paper"
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        DRAFT: Preset(
            "Draft",
            "the fewest steps that show what it will be",
            speeds=("4 steps",),  # that which comes with its model: nobody is to download a LoRA for a draft unasked
            steps=0.4,
        ),
        BALANCED: Preset("Balanced", "what suits the model"),
        BEST: Preset(
            "Best",
            "twice the steps, the whole network at each, and in text to video motion that flows",
            MappingProxyType(
                {
                    "text-to-video": _BEST_TEXT_TO_VIDEO,
                    **dict.fromkeys(("pose", "edge", "depth", "dreambooth", "instruct-pix2pix"), _BEST),
                }
            ),
            steps=2.0,
        ),
        PAPER: Preset(
            "Paper",
            "every setting of the paper, exactly",
            MappingProxyType(
                {
                    "text-to-video": _PAPER_TEXT_TO_VIDEO,
                    "pose": _PAPER_CONTROLLED,
                    "edge": _PAPER_CONTROLLED | _PAPER_EDGES,
                    "depth": _PAPER_CONTROLLED,
                    "dreambooth": _PAPER_CONTROLLED | _PAPER_EDGES,
                    "instruct-pix2pix": _PAPER_INSTRUCTED,
                }
            ),
        ),
    }
)


def find_preset(name: str) -> Preset:
    """The preset of a name; raises UserError for other names."""
    if name not in PRESETS:
        raise UserError(f"The preset {name!r} is not known: choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def preset_fields(task: str) -> tuple[str, ...]:
    """The fields of a task that some preset sets."""
    return tuple(dict.fromkeys(name for preset in PRESETS.values() for name in preset.values.get(task, ())))

"""Variants: what is held against what. Some are sampled, some are made of the pictures of one that was.

A still picture wins every score of consistency, and one that is panned over by hand wins the smoothness of motion:
every table has both among its rows, and what the paper does.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from text2video_zero.errors import UserError
from text2video_zero.requests import REQUESTS, Kind
from text2video_zero.requests.movement import NO_MOVEMENT
from text2video_zero.requests.presets import BALANCED, PAPER, PRESETS
from text2video_zero.sampling.motion.split import seen_from

if TYPE_CHECKING:
    from text2video_zero.requests import FieldSpec
    from text2video_zero.requests.camera import CameraPose

# (frames of the variant behind it, poses that the camera was asked for) -> frames
Remake = Callable[[np.ndarray, Sequence["CameraPose"]], np.ndarray]


@dataclass(frozen=True)
class SampledVariant:
    """A variant that the model draws: values of fields on top of a preset."""

    name: str
    preset: str
    values: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True)
class RemadeVariant:
    """A variant that is made of the frames of another, of the same prompt and seed."""

    name: str
    of: str
    remake: Remake


Variant = SampledVariant | RemadeVariant

# What all rows share, field -> where it is said; and what would be measured are frames that nobody has drawn.
_NOT_SET_HERE = MappingProxyType(
    {
        "prompt": "give --prompt or --prompts",
        "seed": "give --first-seed and --seeds",
        "play_fps": "what is measured are the frames that are drawn",
    }
)


def static(frames: np.ndarray, poses: Sequence[CameraPose]) -> np.ndarray:  # noqa: ARG001 - a `Remake`
    """The first frame, again and again."""
    return np.repeat(frames[:1], len(frames), axis=0)


def ken_burns(frames: np.ndarray, poses: Sequence[CameraPose]) -> np.ndarray:
    """The first frame, over which the camera moves; beyond its edges it is mirrored."""
    return np.stack([seen_from(frames[0], pose) for pose in poses])


# Each frame by itself: nothing that frames share in any task.
_INDEPENDENT: Mapping[str, object] = MappingProxyType(
    {
        "movement": NO_MOVEMENT,
        "motion": False,
        "cross_frame_attention": False,
        "motion_smoothness": 0.0,
        "shared_noise": False,
    }
)


def controls(task: str) -> tuple[Variant, ...]:
    """The rows of every table, and what the app does by itself."""
    fields = {name for name, _, _ in REQUESTS[task].declarations()}
    independent = {name: value for name, value in _INDEPENDENT.items() if name in fields}
    return (
        *_of_one_picture(BALANCED, moved="pan_x" in fields),
        SampledVariant("independent frames", BALANCED, independent),
        SampledVariant(PAPER, PAPER),
        SampledVariant(BALANCED, BALANCED),
    )


def _of_one_picture(of: str, *, moved: bool = True) -> tuple[RemadeVariant, ...]:
    still = RemadeVariant("static", of, static)
    return (still, RemadeVariant("Ken Burns", of, ken_burns)) if moved else (still,)


def ablation(task: str) -> tuple[Variant, ...]:
    """The paper's section 4.4 in its own settings, and what the app does by itself.

    Raises UserError for tasks without motion in the latents.
    """
    if "motion" not in {name for name, _, _ in REQUESTS[task].declarations()}:
        raise UserError(f"The task {task} has no motion to leave out: give --variant instead of --ablation.")
    neither = {"motion": False, "cross_frame_attention": False}
    return (
        *_of_one_picture("ours"),
        SampledVariant("base", PAPER, neither),
        SampledVariant("+ motion", PAPER, neither | {"motion": True}),
        SampledVariant("+ cross-frame attention", PAPER, neither | {"cross_frame_attention": True}),
        SampledVariant("both", PAPER),
        SampledVariant("both + smoothing", PAPER, {"smooth_background": True}),
        SampledVariant("ours", BALANCED),
    )


def read_variant(text: str, task: str) -> SampledVariant:
    """A variant as the command line has it, "NAME: field=value field=value", on top of what suits the model.

    A value with blanks stands in quotation marks, as in a shell. Raises UserError for one of another form, and for
    fields that the task does not have.
    """
    name, colon, values = text.partition(":")
    if not colon or not name.strip():
        raise UserError(
            f"The variant {text!r} is not of the form 'NAME: field=value': write for example 'slow: fps=4'."
        )
    try:
        words = shlex.split(values)
    except ValueError as error:
        raise UserError(f"The variant {text!r} has a quotation mark without its second: add it.") from error
    preset = next((word for word in words if word in PRESETS), BALANCED)
    return SampledVariant(name.strip(), preset, read_values([word for word in words if word != preset], task))


def read_values(words: Sequence[str], task: str) -> dict[str, object]:
    """Fields with their values, each written field=value.

    Raises UserError for others than the task's, and for those that the study sets itself.
    """
    specs = {name: spec for name, _, spec in REQUESTS[task].declarations()}
    values = {}
    for word in words:
        name, equals, value = word.partition("=")
        name = name.replace("-", "_")
        if not equals or name not in specs:
            raise UserError(f"{word!r} sets no field of {task}: write field=value, with a field of {task} --help.")
        if name in _NOT_SET_HERE:
            raise UserError(f"{word!r} cannot be set for a variant: {_NOT_SET_HERE[name]}.")
        values[name] = _value(value, specs[name])
    return values


def _value(text: str, spec: FieldSpec) -> object:
    """Other texts than a field takes are left to the request, which knows what to say about them."""
    match spec.kind:
        case Kind.FLAG:
            return {"yes": True, "true": True, "no": False, "false": False}.get(text.lower(), text)
        case Kind.INTEGER | Kind.DECIMAL:
            try:
                return float(text)
            except ValueError:
                return text
        case _:
            return text

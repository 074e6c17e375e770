"""LoRAs that prompts name, as in `<lora:ink:0.8>`, and one note on whatever of a prompt is not honoured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from text2video_zero.models.adapters import local_loras, read_adapter, written
from text2video_zero.models.catalogue import MODELS_FOLDER, origin_of
from text2video_zero.models.checkpoints import short_name
from text2video_zero.models.speeds import is_of_speed
from text2video_zero.prompts.syntax import read_prompt
from text2video_zero.requests import ControlledRequest, FewStepRequest, TextToVideoRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from text2video_zero.models.checkpoints import Adapter, Checkpoint
    from text2video_zero.prompts.syntax import LoraTag
    from text2video_zero.requests import VideoRequest


def prompts_of(request: VideoRequest) -> tuple[str, ...]:
    """The texts of a request that may name LoRAs: all but the negative prompt."""
    match request:
        case TextToVideoRequest():
            return request.prompt, request.storyboard
        case ControlledRequest():
            return (request.full_prompt,)
        case _:
            return (request.prompt,)


def tagged_adapters(
    prompts: Iterable[str], given: Sequence[Adapter], models_folder: Path = MODELS_FOLDER
) -> tuple[Adapter, ...]:
    """The LoRAs in models/ that prompts name, but for those that are given already.

    Raises UserError for a weight that is none.
    """
    tags = {_name(tag): tag.weight for prompt in prompts for tag in read_prompt(prompt).loras}
    if not tags:
        return ()
    local, known = local_loras(models_folder), {adapter.source for adapter in given}
    named = [read_adapter(f"{name}:{weight}", models_folder) for name, weight in tags.items() if name in local]
    return tuple(adapter for adapter in named if adapter.source not in known)


def named_loras(checkpoint: Checkpoint, request: VideoRequest) -> tuple[list[str], list[str]]:
    """The LoRAs that a run adds to its model, as settings name them: those given, and those that its prompts name.

    Those of its speed are in neither: the speed brings them.
    """
    tags = {(_name(tag), _weight(tag)) for prompt in prompts_of(request) for tag in read_prompt(prompt).loras}
    speed = request.speed if isinstance(request, FewStepRequest) else ""
    given: list[str] = []
    tagged: list[str] = []
    _, added = origin_of(checkpoint)
    for adapter in added:
        if not is_of_speed(adapter, speed):
            (tagged if (short_name(adapter.source), adapter.weight) in tags else given).append(written(adapter))
    return given, tagged


def _name(tag: LoraTag) -> str:
    return tag.name.removesuffix(".safetensors")


def _weight(tag: LoraTag) -> float:
    """As a number; NaN, which equals nothing, for what is none."""
    try:
        return float(tag.weight)
    except ValueError:
        return math.nan


def what_was_left_out(prompts: Iterable[str], adapters: Iterable[Adapter]) -> str:
    """One sentence on what prompts say and a run does not do; blank where there is nothing of that kind.

    adapters: the LoRAs of the run.
    """
    added = {short_name(adapter.source): adapter.weight for adapter in adapters}
    read = [read_prompt(prompt) for prompt in prompts]
    tags = [tag for one in read for tag in one.loras]
    missing = [tag.written for tag in tags if _name(tag) not in added]
    other = [f"{tag.written} (its weight is {added[_name(tag)]:g} in this run)" for tag in tags if _differs(tag, added)]
    unknown = [written for one in read for written in one.left_out]
    told = [
        sentence
        for left_out, sentence in (
            (missing, f"{', '.join(missing)} (no LoRA of that name in models/, or not named in the prompt itself)"),
            (other, ", ".join(other)),
            (unknown, f"{', '.join(unknown)} (not known here; of a choice the first counts)"),
        )
        if left_out
    ]
    return f"Ignored in the prompt: {'; '.join(told)}." if told else ""


def _differs(tag: LoraTag, added: Mapping[str, float]) -> bool:
    return _name(tag) in added and added[_name(tag)] != _weight(tag)

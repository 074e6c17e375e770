"""LoRAs that prompts name, as in `<lora:ink:0.8>`, and one note on whatever of a prompt is not honoured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from text2video_zero.models.adapters import local_loras, read_adapter
from text2video_zero.models.catalogue import MODELS_FOLDER
from text2video_zero.models.checkpoints import short_name
from text2video_zero.prompts.syntax import read_prompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from text2video_zero.models.checkpoints import Adapter


def tagged_adapters(prompt: str, given: Sequence[Adapter], models_folder: Path = MODELS_FOLDER) -> tuple[Adapter, ...]:
    """The LoRAs in models/ that a prompt names, but for those that are given already.

    Raises UserError for a weight that is none.
    """
    tags = {tag.name.removesuffix(".safetensors"): tag.weight for tag in read_prompt(prompt).loras}
    if not tags:
        return ()
    local, known = local_loras(models_folder), {adapter.source for adapter in given}
    named = [read_adapter(f"{name}:{weight}", models_folder) for name, weight in tags.items() if name in local]
    return tuple(adapter for adapter in named if adapter.source not in known)


def what_was_left_out(prompts: Iterable[str], adapters: Iterable[Adapter]) -> str:
    """One sentence on what prompts say and a run does not do; blank where there is nothing of that kind.

    adapters: the LoRAs of the run.
    """
    added = {short_name(adapter.source) for adapter in adapters}
    read = [read_prompt(prompt) for prompt in prompts]
    missing = [tag.written for one in read for tag in one.loras if tag.name.removesuffix(".safetensors") not in added]
    unknown = [written for one in read for written in one.left_out]
    told = [
        sentence
        for left_out, sentence in (
            (missing, f"{', '.join(missing)} (no LoRA of that name is to be had here)"),
            (unknown, f"{', '.join(unknown)} (not known here; of a choice the first counts)"),
        )
        if left_out
    ]
    return f"Of the prompt was left out: {'; '.join(told)}." if told else ""

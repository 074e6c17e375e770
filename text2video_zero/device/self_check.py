"""What there is to work with: `python app.py --check`."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from text2video_zero.device.devices import computes_in_bfloat16, device_name
from text2video_zero.device.memory import memory_of
from text2video_zero.events import GB
from text2video_zero.models.additions.textual_inversion import local_inversions
from text2video_zero.models.catalogue import (
    CONTROLNETS,
    DREAMBOOTH_STYLES,
    KNOWN_DETECTORS,
    KNOWN_MODELS,
    MODELS_FOLDER,
    SAFETY_CHECKER,
    is_whole,
)
from text2video_zero.models.selection import local_models

if TYPE_CHECKING:
    from collections.abc import Iterator

    from text2video_zero.models.checkpoints import Checkpoint
    from text2video_zero.models.hub import Hub

PACKAGES = ("torch", "diffusers", "transformers", "peft", "gradio")


def self_check(
    device: torch.device, dtype: torch.dtype, budget: int, hub: Hub, *, cpu_has_bfloat16: bool | None = None
) -> list[str]:
    """A line each: device, memory, versions, and which models need no network.

    dtype: of the networks that sample.  budget: bytes that weights may fill on the device.
    cpu_has_bfloat16: see `computes_in_bfloat16`.
    """
    free, total = (amount / GB for amount in memory_of(device))
    models = (*KNOWN_MODELS.values(), *DREAMBOOTH_STYLES.values())
    offered = device.type == "cpu" and dtype == torch.float32
    can = offered and computes_in_bfloat16(device, cpu_does=cpu_has_bfloat16)
    offer = "; this CPU computes in bfloat16 as well (--dtype bfloat16)" if can else ""
    versions = (f"{package} {version(package)}" for package in PACKAGES)
    return [
        f"Device: {device_name(device)} ({device}), {str(dtype).removeprefix('torch.')}{offer}",
        f"Memory: {free:.1f} of {total:.1f} GB free, up to {budget / GB:.1f} GB for models",
        f"Versions: Python {platform.python_version()}, {', '.join(versions)}",
        *(f"Model {known.name}: {_model(known.checkpoint, hub)}" for known in models),
        *(f"Model {name}: here, in {MODELS_FOLDER.name}/" for name in local_models()),
        *(f"Textual inversion {name}: here, in {MODELS_FOLDER.name}/" for name in local_inversions()),
        *(f"ControlNet {source}: {_whereabouts(source, hub)}" for source in _controlnets()),
        f"Safety checker: {_whereabouts(SAFETY_CHECKER, hub)}",
        *(f"Detector {name}: {_whereabouts(known.source, hub)}" for name, known in KNOWN_DETECTORS.items()),
    ]


def _model(checkpoint: Checkpoint, hub: Hub) -> str:
    return _whereabouts(checkpoint.source, hub) if is_whole(checkpoint) else "missing"


def _controlnets() -> Iterator[str]:
    """Hub ids; the embedded ones come and go with their model."""
    for controls in CONTROLNETS.values():
        for source in controls.values():
            if not Path(source).is_absolute():
                yield source


def _whereabouts(source: str, hub: Hub) -> str:
    if Path(source).is_absolute():
        return "here" if Path(source).is_dir() else "missing"
    return "here" if hub.is_here(source) else "would be downloaded"

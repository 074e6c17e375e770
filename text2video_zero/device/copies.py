"""Copies of the networks that LoRAs change, so that the plain ones stay as they are."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from text2video_zero.device.memory import memory_of, weight_bytes
from text2video_zero.device.offload import CPU

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    _Components = StableDiffusionPipeline | StableDiffusionXLPipeline

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
TUNED = ("unet", *TEXT_ENCODERS)
ROOM = 1.5  # times what is copied, so that something is left to others


def room_for_copy(components: _Components) -> bool:
    """Whether the CPU's memory holds what LoRAs change once more."""
    free, _ = memory_of(CPU)
    return ROOM * weight_bytes(_tuned_parts(components).values()) < free


def tunable_copy(components: _Components) -> _Components:
    """The same components with networks of their own, in the CPU's memory, for those that LoRAs change."""
    own = copy.copy(components)
    for name, network in _tuned_parts(components).items():
        # What is copied from a device must not need room there.
        elsewhere = [tensor for tensor in (*network.parameters(), *network.buffers()) if tensor.device.type != CPU.type]
        setattr(own, name, copy.deepcopy(network, {id(tensor): _on_cpu(tensor) for tensor in elsewhere}))
    return own


def _tuned_parts(components: _Components) -> dict[str, torch.nn.Module]:
    parts = {name: components.components.get(name) for name in TUNED}
    return {name: part for name, part in parts.items() if part is not None}


def _on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    copied = tensor.detach().to(CPU, copy=True)
    is_weight = isinstance(tensor, torch.nn.Parameter)
    return torch.nn.Parameter(copied, requires_grad=tensor.requires_grad) if is_weight else copied

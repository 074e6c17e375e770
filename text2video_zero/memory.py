"""What fits: sizes of weights, and how much of a device they may fill."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

KEPT_SHARE = 0.6  # of all memory, for weights that wait for their next run; the rest is for the run itself


def weight_bytes(modules: Iterable[torch.nn.Module]) -> int:
    """Bytes of parameters and buffers; a module that comes twice counts once."""
    unique = {id(module): module for module in modules}.values()
    tensors = (tensor for module in unique for tensor in (*module.parameters(), *module.buffers()))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def total_bytes(device: torch.device) -> int:
    """All memory of a device; a machine's own memory for the CPU and for devices that share it."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def weight_budget(device: torch.device) -> int:
    """Bytes that loaded weights may fill on a device."""
    return int(KEPT_SHARE * total_bytes(device))

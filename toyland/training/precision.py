"""In which numbers the family is trained."""

from __future__ import annotations

import torch

__all__ = ["autocast"]


def autocast(device: torch.device | str) -> torch.autocast:
    """bfloat16 where the device computes in it; a CPU that only imitates it takes ten times as long."""
    device = torch.device(device)
    computes = device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001 - no public question
    return torch.autocast(device.type, torch.bfloat16, enabled=computes)

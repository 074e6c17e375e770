"""In which numbers the family is trained."""

from __future__ import annotations

import torch

__all__ = ["autocast", "computes_in_bfloat16"]


def computes_in_bfloat16(device: torch.device | str) -> bool:
    """Whether the device does; a CPU that only imitates it takes ten times as long."""
    on_cpu = torch.device(device).type == "cpu"
    return not on_cpu or torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001 - no public question


def autocast(device: torch.device | str) -> torch.autocast:
    """bfloat16 where the device computes in it."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=computes_in_bfloat16(device))

"""In which numbers the family is trained."""

from __future__ import annotations

import torch

from text2video_zero.device.devices import computes_in_bfloat16


def autocast(device: torch.device | str) -> torch.autocast:
    """bfloat16 where the device computes in it."""
    device = torch.device(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bfloat16(device))

"""Which device weights go to, and what a person calls it."""

from __future__ import annotations

import torch

from text2video_zero.errors import UserError


def chosen_device(name: str | None) -> torch.device:
    """The device of that name, tried out on one number; the best there is without a name.

    Raises UserError for one that this machine does not have: nothing but a try tells for certain.
    """
    if name is None:
        return torch.device(_best_device())
    try:
        device = torch.device(name)
        torch.zeros(1).to(device).cpu()
    # Each kind of device fails in its own way: RuntimeError, AssertionError, NotImplementedError, ...
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = f"leave it out, or give {_best_device()!r}"
        raise UserError(f"The device {name!r} cannot be used here ({reason}): {remedy}.") from error
    return device


def device_name(device: torch.device) -> str:
    """The device as a person would name it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return {"mps": "Apple GPU", "cpu": "CPU"}.get(device.type, str(device))


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"

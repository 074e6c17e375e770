"""Which device weights go to, in which numbers and which order, and what a person calls it."""

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
    # Each kind of device fails in its own way, with errors that have nothing in common.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = f"leave it out, or give {_best_device()!r}"
        raise UserError(f"The device {name!r} cannot be used here ({reason}): {remedy}.") from error
    return device


NUMBERS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def chosen_type(name: str | None, device: torch.device) -> torch.dtype:
    """The numbers of that name; without a name those that suit the device.

    That is float16 on CUDA: the checkpoints are published in it, it takes half the memory, and it has three bits
    more than bfloat16, which is for cards or models whose float16 overflows. Elsewhere it is float32. Raises
    UserError for other names.
    """
    if name is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in NUMBERS:
        raise UserError(f"The numbers {name!r} are not known: choose one of {', '.join(NUMBERS)}.")
    return NUMBERS[name]


def memory_format(device: torch.device) -> torch.memory_format:
    """The order of weights and activations that a device's convolutions are fastest in.

    Tensor cores work channel by channel, and would turn every input around; on the CPU it makes no difference.
    """
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def device_name(device: torch.device) -> str:
    """The device as a person would name it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return {"mps": "Apple GPU", "cpu": "CPU"}.get(device.type, str(device))


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"

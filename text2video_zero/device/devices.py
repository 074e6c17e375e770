"""Which device weights go to, in which numbers and which order, and what a person calls it."""

from __future__ import annotations

import logging
import warnings

import torch

from text2video_zero.device.options import numbers_named
from text2video_zero.errors import UserError

logger = logging.getLogger(__name__)


def chosen_device(name: str | None) -> torch.device:
    """The device of that name, tried out; the best that works without a name.

    Raises UserError for one that does not compute here: nothing but a try tells for certain.
    """
    if name is None:
        return torch.device(_best_device())
    try:
        device = torch.device(name)
        _try_out(device)
    # Each kind of device fails in its own way, with errors that have nothing in common.
    except Exception as error:
        remedy = _remedy(error) or "leave it out, or give 'cpu'"
        raise UserError(f"The device {name!r} cannot be used here ({_first_line(error)}): {remedy}.") from error
    return device


def chosen_type(name: str | None, device: torch.device) -> torch.dtype:
    """The numbers of that name; without a name those that suit the device.

    That is float16 on CUDA: the checkpoints are published in it, it takes half the memory, and it has three bits
    more than bfloat16, which is for cards or models whose float16 overflows. Elsewhere it is float32, also on CPUs
    that compute in bfloat16: the same seed would be another picture from one machine to the next. Raises UserError
    for other names.
    """
    if name is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    return getattr(torch, numbers_named(name))


def computes_in_bfloat16(device: torch.device, *, cpu_does: bool | None = None) -> bool:
    """Whether the device does, and does not only imitate it, which takes a CPU longer than float32.

    cpu_does: whether this CPU does; None asks it for AVX-512's instructions, which those with AMX have as well.
    """
    if cpu_does is None:
        cpu_does = torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001 - no public question
    return cpu_does or device.type != "cpu"


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
    """CUDA where it computes, else Apple's GPU where there is one, else the CPU.

    Of a CUDA device that is there but does not compute, the log tells why.
    """
    with warnings.catch_warnings(record=True) as complaints:  # a driver that is too old is a warning of torch's
        warnings.simplefilter("always")
        cuda = torch.cuda.is_available()
    failure = next((complaint.message for complaint in complaints), None)
    if cuda:
        try:
            _try_out(torch.device("cuda"))
        except Exception as error:  # noqa: BLE001 -- as above
            failure = error
        else:
            return "cuda"
    other = "mps" if torch.backends.mps.is_available() else "cpu"
    if failure is not None:
        remedy = _remedy(failure) or "give --device cuda:1 or another that works"
        logger.warning("CUDA cannot be used (%s), going on with %s: %s.", _first_line(failure), other, remedy)
    return other


def _try_out(device: torch.device) -> None:
    """Run a kernel of torch's own and one of the device's library, and wait for the result."""
    ones = torch.ones(8, 8, device=device)
    if (ones @ ones).sum().item() != 8 * 8 * 8:
        raise RuntimeError("it computes wrong numbers")


# Signs in the messages of CUDA and torch, and what the person can do; the wheels of torch 2.11 decide both.
REMEDIES = {
    "driver on your system is too old": "install NVIDIA's driver 580 or newer",
    "no kernel image": "take a card of NVIDIA's GTX 16 or RTX 20 series or newer (compute capability 7.5 to 12.0)",
}


def _remedy(failure: object) -> str:
    return next((remedy for sign, remedy in REMEDIES.items() if sign in str(failure)), "")


def _first_line(failure: object) -> str:
    return (str(failure).strip() or type(failure).__name__).splitlines()[0].rstrip(".")

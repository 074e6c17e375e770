"""What fits: sizes of weights, how much of a device they may fill, and what a shortage of memory looks like."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import torch

from text2video_zero.device.container import container_memory
from text2video_zero.errors import UserError, ran_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

KEPT_SHARE = 0.6  # of all memory, for weights that wait for their next run; the rest is for the run itself
TOO_LITTLE_MEMORY = (
    "The memory does not hold even one frame at a time: choose a smaller size, close other programs that use the "
    "device, or run on the CPU (--device cpu)."
)


def weight_bytes(modules: Iterable[torch.nn.Module]) -> int:
    """Bytes of parameters and buffers; a module that comes twice counts once."""
    unique = {id(module): module for module in modules}.values()
    tensors = (tensor for module in unique for tensor in (*module.parameters(), *module.buffers()))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def memory_of(device: torch.device) -> tuple[int, int]:
    """Free and total bytes of a device; for the CPU and devices that share its memory those of machine or container."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        # What torch keeps though no tensor needs it is free for the next one.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device), total
    machine = psutil.virtual_memory()
    free, total = container_memory() or (machine.available, machine.total)
    return min(free, machine.available), min(total, machine.total)


def has_own_memory(device: torch.device) -> bool:
    """Whether the device's memory is another one than the CPU's, where weights can wait."""
    return device.type not in {"cpu", "mps"}


def weight_budget(device: torch.device) -> int:
    """Bytes that loaded weights may fill on a device."""
    return int(KEPT_SHARE * memory_of(device)[1])


@contextmanager
def shortage_in_one_sentence() -> Generator[None]:
    """Turn a shortage of memory for which nothing else helped into a UserError with its remedies."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        raise UserError(TOO_LITTLE_MEMORY) from error


def free_unused(device: torch.device) -> None:
    """Give back the memory that torch keeps though no tensor needs it, so that larger pieces can be had."""
    if device.type in {"cuda", "mps", "xpu"}:
        torch.get_device_module(device).empty_cache()


@dataclass(frozen=True)
class Holding:
    """What a loaded pipeline holds.

    parts: bytes of each network, by an id that pipelines share where they share the network.
    in_use: a run has it, so that it must stay.
    """

    parts: Mapping[int, int]
    in_use: bool = False


def to_send_away(holdings: Sequence[Holding], wanted: Holding, budget: int) -> list[int]:
    """Numbers of the holdings that leave so that the rest fits into `budget` bytes together with the wanted one.

    holdings: the least recently used first, which is the order in which they leave. Those in use never do, nor
    do those that would free nothing the wanted one does not need itself; so the rest may still be too much.
    """
    leaving: list[int] = []
    for number, holding in enumerate(holdings):
        staying = [other.parts for index, other in enumerate(holdings) if index not in leaving]
        needed: dict[int, int] = {}
        for parts in (*staying, wanted.parts):
            needed |= parts
        if sum(needed.values()) <= budget:
            break
        if not holding.in_use and holding.parts.keys() - wanted.parts.keys():
            leaving.append(number)
    return leaving

"""Offload: where a run's networks are, which wait elsewhere while others work, and frames at a time."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import torch
from diffusers.hooks import HookRegistry, apply_group_offloading
from diffusers.hooks.group_offloading import _GROUP_OFFLOADING  # there is no public way to take it off

from text2video_zero.device.memory import TOO_LITTLE_MEMORY, free_unused, has_own_memory
from text2video_zero.errors import UserError, ran_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from text2video_zero.models.pipeline import Pipeline

CPU = torch.device("cpu")
# Where weights are: all on the device; on it those alone that are at work; of these one layer at a time.
OFFLOADS = NO_OFFLOAD, MODEL_OFFLOAD, GROUP_OFFLOAD = "none", "model", "group"


@dataclass
class Placement:
    """Where the networks of one run are, how many frames they take at a time, and in how wide numbers.

    networks: those that predict the noise: the UNet, and the ControlNet where there is one.
    others: the pipeline's other networks, which can wait in the CPU's memory meanwhile.
    device: where the networks work.  chunk_size: frames at a time, 1 or more; the result does not depend on it.
    offload: one of OFFLOADS.
    precision: number, in `precisions`, of the narrowest that has not failed in this run.
    """

    networks: tuple[torch.nn.Module, ...]
    others: tuple[torch.nn.Module, ...]
    device: torch.device
    chunk_size: int
    offload: str = NO_OFFLOAD
    precision: int = 0
    _hooks: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def of(cls, pipeline: Pipeline, chunk_size: int, offload: str = NO_OFFLOAD) -> Self:
        """The placement of the networks of a pipeline."""
        networks = tuple(part for part in (pipeline.components.unet, pipeline.controlnet) if part is not None)
        others = tuple(part for part in pipeline.networks if part not in networks)
        return cls(networks, others, pipeline.device, chunk_size, offload)

    def __enter__(self) -> Self:
        """Bring the networks where they work; layer by layer, where they do not fit as a whole."""
        fits = self.offload != GROUP_OFFLOAD and bring(
            self.networks, self.device, () if self.offload == NO_OFFLOAD else self.others
        )
        if not fits:
            self._offload_layers()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the hooks off again. Weights stay where they are: who lends them next brings them to their place."""
        self._hooks.close()

    def can_offload(self) -> bool:
        """Whether weights that wait elsewhere save anything."""
        return has_own_memory(self.device)

    def shrink(self, frames: int) -> None:
        """Make do with less, after so many frames together did not fit: half of them, or less weights on the device.

        Raises UserError when there is nothing left to be saved.
        """
        free_unused(self.device)
        if frames > 1:
            self.chunk_size = frames // 2
        elif not self.can_offload() or self.offload == GROUP_OFFLOAD:
            raise UserError(TOO_LITTLE_MEMORY)
        elif self.offload == NO_OFFLOAD:
            self.offload = MODEL_OFFLOAD
            send_away(self.others, self.device)
        else:
            self._offload_layers()

    def recall(self, chunk_size: int, precision: int) -> None:
        """Make do with what an earlier run had come to, so that the numbers are those that it would have had."""
        self.chunk_size, self.precision = min(self.chunk_size, chunk_size), precision

    def _offload_layers(self) -> None:
        self.offload = GROUP_OFFLOAD
        send_away((*self.others, *self.networks), self.device)
        for network in self.networks:
            self._hooks.enter_context(layers_offloaded(network, self.device))


def bring(wanted: Iterable[torch.nn.Module], device: torch.device, others: Iterable[torch.nn.Module] = ()) -> bool:
    """Move networks to a device after others have left it for the CPU's memory.

    Returns False, with all that was missing on the CPU, where there is no room for them.
    """
    missing = [network for network in wanted if _device_of(network).type != device.type]
    send_away(others, device)
    try:
        for network in missing:
            _move(network, device)
    except RuntimeError as error:
        if not ran_out_of_memory(error):
            raise
    else:
        return True
    send_away(missing, device)
    return False


def send_away(networks: Iterable[torch.nn.Module], device: torch.device) -> None:
    """Move networks from a device to the CPU's memory, and free what they leave."""
    for network in networks:
        _move(network, CPU)
    free_unused(device)


@contextmanager
def layers_offloaded(network: torch.nn.Module, device: torch.device) -> Generator[None]:
    """While this is open, each layer's weights come to the device when it is its turn, and leave it after.

    The network is on the CPU before and after. No streams: they would fetch layers in the order of the first call,
    and cross-frame attention leaves some out in the others.
    """
    apply_group_offloading(network, onload_device=device, offload_device=CPU, offload_type="leaf_level")
    try:
        yield
    finally:
        HookRegistry.check_if_exists_or_initialize(network).remove_hook(_GROUP_OFFLOADING, recurse=True)
        _move(network, CPU)  # a failure in the middle of a layer leaves it on the device


def _device_of(network: torch.nn.Module) -> torch.device:
    return next(network.parameters()).device


def _move(network: torch.nn.Module, device: torch.device) -> None:
    # Weights stay what they are: as tensors of inference mode they could never be written to again outside of it.
    with torch.inference_mode(next(network.parameters()).is_inference()):
        network.to(device)

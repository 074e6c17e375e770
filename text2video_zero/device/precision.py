"""Wider numbers for a while: what overflows in half precision is computed again in float32.

Weights are cast in place and back again. Every number of half precision is a number of float32, so they come back
bit for bit.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.attention_processor import Attention

from text2video_zero.device.devices import computes_in_bfloat16

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from contextlib import AbstractContextManager

HALF = (torch.float16, torch.bfloat16)


def precisions(*networks: torch.nn.Module) -> list[Callable[[], AbstractContextManager[None]]]:
    """Contexts to compute in, one after the other while numbers come out that are not finite.

    Each costs more than the one before: the networks' own type; attention in float32; everything in float32.
    Networks that are in float32 have nothing wider to try.
    """
    own: list[Callable[[], AbstractContextManager[None]]] = [nullcontext]
    if not any(tensor.dtype in HALF for tensor in _tensors(networks)):
        return own
    return [*own, lambda: attention_in_float32(*networks), lambda: in_float32(*networks)]


@contextmanager
def in_float32(*networks: torch.nn.Module) -> Generator[None]:
    """While this is open, the networks' weights are float32; their callers give them inputs of that type."""
    narrow = [(tensor, tensor.dtype) for tensor in _tensors(networks) if tensor.dtype in HALF]
    try:
        _cast((tensor, torch.float32) for tensor, _ in narrow)
        yield
    finally:
        _cast(narrow)


def not_imitated(network: torch.nn.Module) -> AbstractContextManager[None]:
    """In float32, where a network is on a CPU that only imitates its type, which takes it a hundred times as long.

    A network that waits in the CPU's memory for want of room has the type that its device is quick with.
    """
    weight = next(network.parameters())
    imitated = weight.device.type == "cpu" and (
        weight.dtype == torch.float16 or (weight.dtype == torch.bfloat16 and not computes_in_bfloat16(weight.device))
    )
    return in_float32(network) if imitated else nullcontext()


@contextmanager
def attention_in_float32(*networks: torch.nn.Module) -> Generator[None]:
    """While this is open, attention layers of half precision compute in float32, and nobody around them notices."""
    layers = [layer for network in networks for layer in network.modules() if isinstance(layer, Attention)]
    with ExitStack() as stack:
        for layer in layers:
            own = layer.to_q.weight.dtype
            if own in HALF:
                stack.callback(layer.register_forward_pre_hook(_widened, with_kwargs=True).remove)
                stack.callback(layer.register_forward_hook(partial(_narrowed, own)).remove)
        stack.enter_context(in_float32(*layers))
        yield


def _widened(_layer: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The inputs of a layer, with float32 in place of half precision."""

    def wide(value: Any) -> Any:
        return value.float() if isinstance(value, torch.Tensor) and value.dtype in HALF else value

    return tuple(wide(value) for value in inputs), {name: wide(value) for name, value in named.items()}


def _narrowed(dtype: torch.dtype, _layer: torch.nn.Module, _inputs: tuple[Any, ...], out: torch.Tensor) -> torch.Tensor:
    return out.to(dtype)


def _tensors(networks: Iterable[torch.nn.Module]) -> Iterator[torch.Tensor]:
    for network in networks:
        yield from network.parameters()
        yield from network.buffers()


def _cast(tensors: Iterable[tuple[torch.Tensor, torch.dtype]]) -> None:
    for tensor, dtype in tensors:
        # Weights stay what they are: as tensors of inference mode they could never be written to again outside of it.
        with torch.inference_mode(tensor.is_inference()):
            tensor.data = tensor.data.to(dtype)

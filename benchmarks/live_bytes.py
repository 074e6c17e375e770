"""Bytes that are alive at once in a computation: every tensor counted from its making to its end.

On the meta device nothing is computed and nothing allocated, so that models of any size can be looked at on any
machine. What kernels take for themselves inside one operation is not seen.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Callable


class LiveBytes(TorchDispatchMode):
    """While this is open, counts the bytes of the tensors that are made in it.

    peak: bytes alive at once, at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._alive:  # noqa: SLF001 - nothing else tells storages apart
                    self._alive[storage._cdata] = storage.nbytes()  # noqa: SLF001
                    weakref.finalize(storage, self._alive.pop, storage._cdata)  # noqa: SLF001
        self.peak = max(self.peak, sum(self._alive.values()))
        return made


class FusedAttention(TorchFunctionMode):
    """While this is open, attention makes its result and nothing else, as the fused kernels of GPUs do.

    The meta device has no such kernel: it would count the table of all cells with all cells.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


@torch.inference_mode()
def peak_of(compute: Callable[[], object]) -> int:
    """Bytes of tensors that a computation has alive at once, beside those that were there before."""
    with FusedAttention(), LiveBytes() as live:
        compute()
    return live.peak

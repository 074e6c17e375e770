"""The door through which attention is changed: the processors of a model's layers, put back when a run is over."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch
    from diffusers.models.modeling_utils import ModelMixin


@contextmanager
def patched_processors(model: ModelMixin, changed: Mapping[str, Callable[..., torch.Tensor]]) -> Iterator[None]:
    """While this is open, some layers of a model have other processors; leaving restores what was there.

    model: UNet2DConditionModel or ControlNetModel.  changed: by names as in `model.attn_processors`, of which they
    must be some; raises ValueError otherwise.
    """
    original = dict(model.attn_processors)
    try:
        model.set_attn_processor({**original, **changed})  # a new one: it empties what it is given
        yield
    finally:
        model.set_attn_processor(original)


def is_self_attention(model: ModelMixin, processor_name: str) -> bool:
    """True for the processors of attn1 layers that attend to the picture, not to the text."""
    layer = processor_name.removesuffix(".processor")
    return layer.endswith(".attn1") and not model.get_submodule(layer).is_cross_attention

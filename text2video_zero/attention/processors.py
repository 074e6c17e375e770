"""The door through which attention is changed: the processors of a model's layers, put back when a run is over."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from diffusers.models.attention_processor import Attention

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from diffusers.models.modeling_utils import ModelMixin

# (layer, hidden states, the text's states or None, mask or None) -> hidden states; those of diffusers take more
AttentionProcessor = Callable[..., torch.Tensor]


@contextmanager
def patched_processors(model: ModelMixin, changed: Mapping[str, AttentionProcessor]) -> Generator[None]:
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
    return processor_name.endswith(".attn1.processor") and not layer_of(model, processor_name).is_cross_attention


def layer_of(model: ModelMixin, processor_name: str) -> Attention:
    """The layer that a processor belongs to; raises TypeError where it is none of diffusers' attention layers."""
    layer = model.get_submodule(processor_name.removesuffix(".processor"))
    if not isinstance(layer, Attention):
        raise TypeError(f"{processor_name} belongs to no attention layer but to a {type(layer).__name__}")
    return layer


def keys_of(attn: Attention, states: torch.Tensor) -> torch.Tensor:
    """Keys (n, tokens, channels) of states (n, tokens, channels); the other two thirds are `values_of` and `to_q`."""
    if attn.to_k is None:
        raise TypeError("an attention layer without keys of its own")
    return attn.to_k(states)


def values_of(attn: Attention, states: torch.Tensor) -> torch.Tensor:
    """Values (n, tokens, channels) of states (n, tokens, channels)."""
    if attn.to_v is None:
        raise TypeError("an attention layer without values of its own")
    return attn.to_v(states)


def put_out(attn: Attention, attended: torch.Tensor) -> torch.Tensor:
    """What a layer hands on of what it has attended to, (n, cells, channels)."""
    if attn.to_out is None:
        raise TypeError("an attention layer that hands nothing on")
    project, drop = attn.to_out
    return drop(project(attended))

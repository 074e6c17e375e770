"""Text attention (attn2) with keys and values that are computed once per run, not at every step and chunk.

The prompts of a run do not change, so in each layer neither do the keys and values of their tokens.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from text2video_zero.attention.cross_frame import attend
from text2video_zero.attention.processors import is_self_attention, keys_of, patched_processors, put_out, values_of

if TYPE_CHECKING:
    from collections.abc import Generator

    import torch
    from diffusers.models.attention_processor import Attention
    from diffusers.models.modeling_utils import ModelMixin

    from text2video_zero.attention.cross_frame import KeyValue


class TextMemoryProcessor:
    """Attention processor of one attn2 layer that remembers the keys and values of the run's prompts."""

    def __init__(self, branches: int) -> None:
        self.branches = branches
        self.key_value: KeyValue | None = None  # of one frame, each (branches, tokens, channels)

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: None = None,
    ) -> torch.Tensor:
        """hidden_states: (branches·frames, cells, channels); encoder_hidden_states: the text's, likewise."""
        if attention_mask is not None:
            raise ValueError("the text attention of these models has no mask")
        frames = len(hidden_states) // self.branches
        query = attn.to_q(hidden_states)
        if self.key_value is None or self.key_value[0].dtype != query.dtype:  # a model may go on in a wider type
            text = encoder_hidden_states[::frames]
            self.key_value = keys_of(attn, text), values_of(attn, text)
        key, value = (tensor.repeat_interleave(frames, dim=0) for tensor in self.key_value)
        attended = attend(attn, query, key, value)
        return put_out(attn, attended)


@contextmanager
def text_memory(*models: ModelMixin, branches: int) -> Generator[None]:
    """Patch every text attention layer of the models for one run; leaving restores what was there, bit for bit.

    models: UNet2DConditionModel or ControlNetModel. While this is open, all batches must show the same prompts in
    the same guidance branches, so many of them, branch-major.
    """
    with ExitStack() as patches:
        for model in models:
            layers = [name for name in model.attn_processors if not is_self_attention(model, name)]
            patches.enter_context(patched_processors(model, {name: TextMemoryProcessor(branches) for name in layers}))
        yield

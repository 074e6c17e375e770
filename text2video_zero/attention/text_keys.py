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

    from text2video_zero.attention.branches import Branches
    from text2video_zero.attention.cross_frame import KeyValue


class TextMemoryProcessor:
    """Attention processor of one attn2 layer that remembers the keys and values of the run's prompts."""

    def __init__(self, branches: Branches) -> None:
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
        frames = len(hidden_states) // self.branches.present
        query = attn.to_q(hidden_states)
        known = self.key_value
        # A model may go on in a wider type, and a run that was cut off with fewer branches than it comes to later.
        if known is None or known[0].dtype != query.dtype or len(known[0]) < self.branches.present:
            text = encoder_hidden_states[::frames]
            known = self.key_value = keys_of(attn, text), values_of(attn, text)
        key, value = (self.branches.in_batch(tensor).repeat_interleave(frames, dim=0) for tensor in known)
        attended = attend(attn, query, key, value)
        return put_out(attn, attended)


@contextmanager
def text_memory(*models: ModelMixin, branches: Branches) -> Generator[None]:
    """Patch every text attention layer of the models for one run; leaving restores what was there, bit for bit.

    models: UNet2DConditionModel or ControlNetModel.  branches: of the batches, which must show the same prompts in the
    same branches while this is open.
    """
    with ExitStack() as patches:
        for model in models:
            layers = [name for name in model.attn_processors if not is_self_attention(model, name)]
            patches.enter_context(patched_processors(model, {name: TextMemoryProcessor(branches) for name in layers}))
        yield

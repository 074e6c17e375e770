"""Cross-frame attention (paper, section 3.3.2), run anchor first.

The anchor frame (frame 0) goes through the model alone and leaves the keys and values of every self-attention
layer in a `FrameMemory`; then the other frames go through in chunks of any size and attend to them. The result
does not depend on the chunk size, and memory is bounded by the chunk and not by the length of the clip.

Batches are branch-major: for b guidance branches and m frames, entry i·m + k is frame k of branch i.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from text2video_zero.attention.processors import is_self_attention, keys_of, patched_processors, put_out, values_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from diffusers.models.attention_processor import Attention
    from diffusers.models.modeling_utils import ModelMixin

KeyValue = tuple[torch.Tensor, torch.Tensor]


@dataclass
class FrameMemory:
    """Keys and values that later frames attend to, by layer, each (branches, tokens, channels).

    with_previous: attend to the frame before as well, not to the anchor alone.
    """

    with_previous: bool = False
    anchors: dict[str, KeyValue] = field(default_factory=dict)
    previous: dict[str, KeyValue] = field(default_factory=dict)
    recording: bool = False

    @contextmanager
    def anchor_pass(self) -> Generator[None]:
        """While this is open, the model sees the anchor frame and every layer stores what it finds."""
        self.clear()
        self.recording = True
        try:
            yield
        finally:
            self.recording = False

    @contextmanager
    def chunk_pass(self) -> Generator[None]:
        """While this is open, the model sees a chunk; one that fails half-way leaves the frame before as it was."""
        before = dict(self.previous)
        try:
            yield
        except BaseException:
            self.previous = before
            raise

    def clear(self) -> None:
        """Forget the last timestep."""
        self.anchors.clear()
        self.previous.clear()


class CrossFrameProcessor:
    """Attention processor of one attn1 layer: Softmax(Q^k (K^ref)^T / sqrt(d)) V^ref."""

    def __init__(self, memory: FrameMemory, layer: str) -> None:
        self.memory = memory
        self.layer = layer

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
    ) -> torch.Tensor:
        """hidden_states: (branches·frames, tokens, channels); the same shape is returned.

        The other two are part of diffusers' call and always None in a self-attention layer of these models.
        """
        if encoder_hidden_states is not None or attention_mask is not None:
            raise ValueError(f"{self.layer} is no plain self-attention layer")
        query = attn.to_q(hidden_states)
        if self.memory.recording:
            key_value = keys_of(attn, hidden_states), values_of(attn, hidden_states)
            self.memory.anchors[self.layer] = self.memory.previous[self.layer] = key_value
            attended = attend(attn, query, *key_value)
        elif self.memory.with_previous:
            attended = self._attend_to_anchor_and_previous(attn, query, hidden_states)
        else:
            # All frames of a branch ask the same keys: folded into the query, the keys are never copied.
            key, value = self.memory.anchors[self.layer]
            folded = query.reshape(key.shape[0], -1, query.shape[-1])  # (b, m·n, c)
            attended = attend(attn, folded, key, value).reshape(query.shape)
        return put_out(attn, attended)

    def _attend_to_anchor_and_previous(
        self, attn: Attention, query: torch.Tensor, hidden_states: torch.Tensor
    ) -> torch.Tensor:
        own = keys_of(attn, hidden_states), values_of(attn, hidden_states)
        last, anchor = self.memory.previous[self.layer], self.memory.anchors[self.layer]
        branches = anchor[0].shape[0]
        references: list[torch.Tensor] = []
        for tensor, tensor_before, tensor_anchor in zip(own, last, anchor, strict=True):
            frames = tensor.unflatten(0, (branches, -1))  # (b, m, n, c)
            before = torch.cat([tensor_before[:, None], frames[:, :-1]], dim=1)
            first = tensor_anchor[:, None].expand_as(before)
            references.append(torch.cat([first, before], dim=2).flatten(0, 1))  # (b·m, 2n, c)
        key, value = (tensor.unflatten(0, (branches, -1))[:, -1] for tensor in own)
        self.memory.previous[self.layer] = key, value
        return attend(attn, query, *references)


def attend(attn: Attention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Multi-head attention with a layer's heads, norms and scale; all (n, tokens, channels)."""
    # Keys and values that are remembered may be of another type: single chunks are redone in float32.
    query, key, value = (x.to(query.dtype).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value))
    if attn.norm_q is not None:
        query = attn.norm_q(query)
    if attn.norm_k is not None:
        key = attn.norm_k(key)
    attended = functional.scaled_dot_product_attention(query, key, value, scale=attn.scale)
    return attended.transpose(1, 2).flatten(2)


@contextmanager
def cross_frame_attention(*models: ModelMixin, with_previous: bool = False) -> Generator[FrameMemory]:
    """Patch every self-attention (attn1) layer of the models; leaving restores what was there, bit for bit.

    models: UNet2DConditionModel or ControlNetModel. Text cross-attention (attn2) is not touched.
    """
    memory = FrameMemory(with_previous)
    with ExitStack() as patches:
        patches.callback(memory.clear)
        for number, model in enumerate(models):
            layers = [name for name in model.attn_processors if is_self_attention(model, name)]
            crossing = {name: CrossFrameProcessor(memory, f"{number}.{name}") for name in layers}
            patches.enter_context(patched_processors(model, crossing))
        yield memory

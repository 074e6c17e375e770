"""Cross-frame attention (paper, section 3.3.2), run anchor first.

The anchor frame (frame 0) goes through the model at the head of the first chunk: every self-attention layer takes its
keys and values from the anchor's rows of the batch and leaves them in a `FrameMemory`, where the other frames, in this
chunk and in those after it, attend to them. The result does not depend on the chunk size, and memory is bounded by the
chunk and not by the length of the clip.

A frame can look at more than the anchor: at the frame before it, or at key frames, which go through before the
frames between them do. What comes after the last key frame has none behind it, and would look at one in a longer clip.

Batches are branch-major (see `Branches`).
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from text2video_zero.attention.processors import is_self_attention, keys_of, patched_processors, put_out, values_of
from text2video_zero.requests.video import FIRST, FIRST_AND_KEYS, FIRST_AND_PREVIOUS, KEY_FRAME_EVERY

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from contextlib import AbstractContextManager

    from diffusers.models.attention_processor import Attention
    from diffusers.models.modeling_utils import ModelMixin

    from text2video_zero.attention.branches import Branches

KeyValue = tuple[torch.Tensor, torch.Tensor]
ANCHOR, KEY, OTHERS = "anchor", "key", "others"


@dataclass(frozen=True)
class Span:
    """Frames that go through the model one after the other or together, and what they are to the others.

    role: with ANCHOR the first one is an anchor, to which the others attend; KEY is a single frame; OTHERS attend to
    what those before them have left.
    last: no key frame comes after them before the next anchor.
    """

    start: int
    stop: int
    role: str
    last: bool = False

    def __len__(self) -> int:
        return self.stop - self.start


def spans(frames: int, anchors: Sequence[int], every: int | None) -> list[Span]:
    """The order in which the frames of a clip go through the model; key frames before those between them.

    anchors: in rising order, 0 the first.  every: from one key frame to the next; None for none.
    """
    order = []
    inside = [anchor for anchor in anchors if anchor < frames]
    for anchor, end in zip(inside, [*inside[1:], frames], strict=True):
        order.append(Span(anchor, anchor + 1, ANCHOR))
        done = anchor + 1
        for key in range(anchor + every, end, every) if every else ():
            order += [Span(key, key + 1, KEY), Span(done, key, OTHERS)]
            done = key + 1
        if order[-1].role == ANCHOR:  # no key frame comes between: it takes the others along
            order[-1] = Span(anchor, end, ANCHOR, last=True)
        else:
            order.append(Span(done, end, OTHERS, last=True))
    return [span for span in order if len(span)]


def spans_of(order: Sequence[Span], frames: range) -> list[Span]:
    """What of an order without key frames is needed for some of its frames: those, and their anchors."""
    needed = []
    for span in order:
        start, stop = max(span.start, frames.start), min(span.stop, frames.stop)
        if start >= stop:
            continue
        if start > span.start + 1:
            needed.append(Span(span.start, span.start + 1, ANCHOR))
            needed.append(Span(start, stop, OTHERS, last=True))
        else:
            needed.append(Span(span.start, stop, ANCHOR, last=True))
    return needed


@dataclass
class FrameMemory:
    """Keys and values that later frames attend to, by layer, each (branches, tokens, channels).

    references: which frames those are, one of REFERENCE_FRAMES.
    previous: those of the frame before, or of the key frame before.  following: of the key frame after.
    """

    branches: Branches
    references: str = FIRST
    anchors: dict[str, KeyValue] = field(default_factory=dict)
    previous: dict[str, KeyValue] = field(default_factory=dict)
    following: dict[str, KeyValue] = field(default_factory=dict)
    recording: str | None = None

    @property
    def key_frame_every(self) -> int | None:
        """From one key frame to the next; None where there are none."""
        return KEY_FRAME_EVERY if self.references == FIRST_AND_KEYS else None

    def begin(self, span: Span) -> None:
        """Some frames come next: the key frame that was after the last ones is before them."""
        if self.references == FIRST_AND_KEYS and (span.role == KEY or span.last):
            self.previous, self.following = self.following, {}

    def open(self, span: Span, begin: int) -> AbstractContextManager[None]:
        """What to open while the model sees frames of a span, from `begin` on."""
        if span.role == ANCHOR and begin == span.start:
            return self.anchor_pass()
        return self._recording(KEY) if span.role == KEY else self.chunk_pass()

    @contextmanager
    def anchor_pass(self) -> Generator[None]:
        """While this is open, the model sees the anchor at the head of its chunk and every layer stores its part."""
        self.clear()
        with self._recording(ANCHOR):
            yield

    @contextmanager
    def _recording(self, role: str) -> Generator[None]:
        self.recording = role
        try:
            yield
        finally:
            self.recording = None

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
        self.following.clear()


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
        query, memory = attn.to_q(hidden_states), self.memory
        if memory.recording == ANCHOR:
            anchor = hidden_states[:: len(hidden_states) // memory.branches.present]  # (b, n, c)
            memory.anchors[self.layer] = keys_of(attn, anchor), values_of(attn, anchor)
            if memory.references == FIRST_AND_PREVIOUS:
                memory.previous[self.layer] = memory.anchors[self.layer]  # seen twice, the anchor is seen as once
        if memory.references == FIRST_AND_PREVIOUS:
            attended = self._attend_to_anchor_and_previous(attn, query, hidden_states)
        else:
            # All frames of a branch ask the same keys: folded into the query, the keys are never copied.
            key, value = self._remembered()
            folded = query.reshape(memory.branches.present, -1, query.shape[-1])  # (b, m·n, c)
            attended = attend(attn, folded, key, value).reshape(query.shape)
            if memory.recording == KEY:
                memory.following[self.layer] = keys_of(attn, hidden_states), values_of(attn, hidden_states)
        return put_out(attn, attended)

    def _remembered(self) -> KeyValue:
        """Keys and values of the anchor and of the key frames around, one behind the other, (branches, tokens, c).

        A key frame is none of those around itself, also where it is taken again.
        """
        memory = self.memory
        around = (memory.previous,) if memory.recording == KEY else (memory.previous, memory.following)
        anchor = memory.anchors[self.layer]
        found = [anchor, *(frame[self.layer] for frame in around if self.layer in frame)]
        if len(found) == 1:
            return anchor
        keys, values = zip(*found, strict=True)
        return torch.cat([key.to(keys[0]) for key in keys], 1), torch.cat([value.to(values[0]) for value in values], 1)

    def _attend_to_anchor_and_previous(
        self, attn: Attention, query: torch.Tensor, hidden_states: torch.Tensor
    ) -> torch.Tensor:
        own = keys_of(attn, hidden_states), values_of(attn, hidden_states)
        last, anchor = self.memory.previous[self.layer], self.memory.anchors[self.layer]
        branches = self.memory.branches.present
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
def cross_frame_attention(*models: ModelMixin, branches: Branches, references: str = FIRST) -> Generator[FrameMemory]:
    """Patch every self-attention (attn1) layer of the models; leaving restores what was there, bit for bit.

    models: UNet2DConditionModel or ControlNetModel. Text cross-attention (attn2) is not touched.
    branches: of the batches that go through the models.
    """
    memory = FrameMemory(branches, references)
    with ExitStack() as patches:
        patches.callback(memory.clear)
        for number, model in enumerate(models):
            layers = [name for name in model.attn_processors if is_self_attention(model, name)]
            crossing = {name: CrossFrameProcessor(memory, f"{number}.{name}") for name in layers}
            patches.enter_context(patched_processors(model, crossing))
        yield memory

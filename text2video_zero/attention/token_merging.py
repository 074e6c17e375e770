"""Token merging (Bolya and Hoffman 2023, "Token Merging for Fast Stable Diffusion"): alike cells attend as one.

The cells of the finest self-attention layers, whose cost grows with the square of their number, are matched by
tomesd, merged before the layer's processor and spread out again after it. The processor may be that of
cross-frame attention: then the anchor leaves the keys and values of its merged cells, and the merged cells of
later frames attend to them. Every frame is matched by itself, so that the chunk size does not matter.
"""

from __future__ import annotations

import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from tomesd.merge import bipartite_soft_matching_random2d

from text2video_zero.attention.processors import is_self_attention, patched_processors

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from diffusers.models.attention_processor import Attention
    from diffusers.models.modeling_utils import ModelMixin

    from text2video_zero.attention.processors import AttentionProcessor

    Spread = Callable[[torch.Tensor], torch.Tensor]

# Of each block of cells one stays, so that blocks of 2x2 allow for at most this ratio; beyond it they are 4x4.
MOST_IN_SMALL_BLOCKS = 0.75


@dataclass
class Call:
    """What a model was called with last.

    rows, columns: grid of the cells in its finest attention layers.
    """

    rows: int = 0
    columns: int = 0
    timestep: float = 0.0


@dataclass(frozen=True, eq=False)
class MergingProcessor:
    """Attention processor of one attn1 layer that gives another one fewer cells.

    layer: its name, of which the choice of cells depends.
    ratio: share of the cells that goes, at most; there must stay one in each block.
    """

    original: AttentionProcessor
    layer: str
    ratio: float
    call: Call

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """hidden_states: (branches·frames, cells, channels); the same shape is returned."""
        merge, spread = self._matching(hidden_states)
        return spread(self.original(attn, merge(hidden_states), encoder_hidden_states, attention_mask))

    def _matching(self, cells: torch.Tensor) -> tuple[Spread, Spread]:
        """Functions that merge the cells of each frame, (n, cells, c) -> (n, fewer, c), and spread them out again.

        Which cell of a block stays is drawn from the layer and the timestep alone: another one at each, as the
        method wants, and the same ones in every chunk, on every device and in every run.
        """
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.layer} {self.call.timestep}".encode()))
        block = 2 if self.ratio <= MOST_IN_SMALL_BLOCKS else 4
        return bipartite_soft_matching_random2d(
            cells,
            self.call.columns,
            self.call.rows,
            block,
            block,
            int(self.ratio * cells.shape[1]),
            generator=generator,
        )


@contextmanager
def token_merging(ratio: float, *models: ModelMixin) -> Generator[None]:
    """Merge cells in the finest self-attention layers of the models; leaving restores what was there, bit for bit.

    ratio: 0 to 0.9, the share of cells that is merged into others; 0 patches nothing.
    models: UNet2DConditionModel or ControlNetModel, with cross-frame attention already in place if it is wanted.
    """
    with ExitStack() as patches:
        for number, model in enumerate(models if ratio else ()):
            patches.enter_context(_merged(model, number, ratio))
        yield


@contextmanager
def _merged(model: ModelMixin, number: int, ratio: float) -> Generator[None]:
    call, level = Call(), _finest_level(model)

    def remember(_module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        latents, call.timestep = inputs[:2]
        call.rows, call.columns = (_halved(side, level) for side in latents.shape[-2:])

    original = model.attn_processors
    merging = {name: MergingProcessor(original[name], f"{number}.{name}", ratio, call) for name in merged_layers(model)}
    hook = model.register_forward_pre_hook(remember)
    try:
        with patched_processors(model, merging):
            yield
    finally:
        hook.remove()


def merged_layers(model: ModelMixin) -> list[str]:
    """Processors of the self-attention in the finest level that has any: elsewhere cells are few, and each counts."""
    level = _finest_level(model)
    prefixes = [f"down_blocks.{level}."]
    if hasattr(model, "up_blocks"):  # a ControlNet has none
        prefixes.append(f"up_blocks.{len(model.up_blocks) - 1 - level}.")
    return [
        name for name in model.attn_processors if name.startswith(tuple(prefixes)) and is_self_attention(model, name)
    ]


def _finest_level(model: ModelMixin) -> int:
    """How often the latents are halved before the first self-attention: 0 in Stable Diffusion 1.5, 1 in XL."""
    return min(
        int(name.split(".")[1])
        for name in model.attn_processors
        if name.startswith("down_blocks.") and is_self_attention(model, name)
    )


def _halved(side: int, times: int) -> int:
    """Cells of a side after some levels of a UNet, each of which halves it, rounding up."""
    for _ in range(times):
        side = -(-side // 2)
    return side

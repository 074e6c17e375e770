"""Where the foreground is, by the UNet's own attention to the words that name it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch.nn import functional

from text2video_zero.attention.processors import keys_of, layer_of, patched_processors
from text2video_zero.errors import UserError
from text2video_zero.foreground.subject_words import subject_spans
from text2video_zero.prompts.chunks import chunks_of, places_of
from text2video_zero.prompts.syntax import read_prompt

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import Attention

    from text2video_zero.attention.branches import Branches
    from text2video_zero.attention.processors import AttentionProcessor
    from text2video_zero.models.pipeline import Pipeline
    from text2video_zero.sampling.denoising import ChunkContext

SMALLEST_MAP = 64  # cells; coarser ones outline nothing
LARGEST_GRID = 1024  # cells that are compared with each other
# How far cells take on each other's attention: to e⁻¹ at this distance in latents of unit variance, and at this
# share of the frame. Chosen, as the layers and the weights of the steps, on renderings (docs/EVALUATION.md).
AFFINITY_IN_LATENTS, AFFINITY_IN_PLACE, AFFINITY_ROUNDS = 1.0, 1 / 8, 3


@dataclass
class CrossAttentionDetector:
    """The UNet's own text cross-attention (attn2) for the words that name the foreground.

    Needs no further model and works with every checkpoint: the attention that each cell pays to those words
    is averaged over heads, layers and steps (after DAAM, Tang et al. 2022), evened out among neighbours with
    alike latents, and cut in two by Otsu's threshold, frame by frame. Raises UserError when the model reads
    none of the words.

    words: said by the person; blank for the first noun phrase of the prompt.  frames: length of the clip.
    """

    pipeline: Pipeline
    prompt: str
    words: str
    frames: int
    branches: Branches

    def __post_init__(self) -> None:
        self.groups = self._token_groups()
        self._maps: dict[str, torch.Tensor] = {}  # layer and group -> (f, cells), weighted sum over steps
        self._recorded: dict[str, int] = {}  # layer and group -> frames, counted once per step
        self._before: dict[str, tuple[int, torch.Tensor]] = {}  # what both were before this chunk, where it got to
        self._begin: int | None = None  # of the frames that go through now

    def _token_groups(self) -> list[list[int]]:
        """Positions in the encoded prompt: the foreground's words, and unless the person chose them, its end.

        The token at the end of the text sums up the prompt; what it looks at is what the picture is about.
        """
        components, prompt = self.pipeline.components, read_prompt(self.prompt)
        named = self.pipeline.inversions.named_in(prompt.text)
        width = components.text_encoder.config.hidden_size
        chunks = chunks_of(prompt, components.tokenizer, named, width=width)
        placed = list(places_of(chunks, components.tokenizer.model_max_length))
        spans = subject_spans(prompt.text, self.words)
        tokens = [
            place for place, token in placed if any(token.begin < stop and start < token.end for start, stop in spans)
        ]
        if not tokens:
            words = ", ".join(prompt.text[begin:end] for begin, end in spans[:3])
            raise UserError(f"The foreground words ({words}) are none that the model reads: choose others.")
        end_of_text = placed[-1][0] + 1
        return [tokens] if self.words.strip() else [tokens, [end_of_text]]

    @contextmanager
    def observing(self) -> Generator[ChunkContext]:
        """Record at the layers that paint, while the frames are denoised; what the layers return stays the same.

        Its value is to be opened around each chunk: what a failed attempt has recorded is forgotten.
        """
        unet = self.pipeline.components.unet
        original = unet.attn_processors
        recording = {name: RecordingProcessor(original[name], name, self) for name in recorded_layers(unet)}
        self._maps.clear()
        self._recorded.clear()
        with patched_processors(unet, recording):
            yield self._chunk_pass

    @contextmanager
    def _chunk_pass(self, frames: slice) -> Generator[None]:
        """While this is open, some frames go through the UNet; of those that fail nothing stays."""
        self._before.clear()
        self._begin = frames.start
        try:
            yield
        except BaseException:
            for source, (recorded, part) in self._before.items():
                self._maps[source][frames.start : frames.start + len(part)] = part
                self._recorded[source] = recorded
            raise
        finally:
            self._begin = None

    def memory(self) -> dict[str, Any]:
        """What has been recorded so far; the maps change with the next chunk."""
        return {"maps": dict(self._maps), "recorded": dict(self._recorded)}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on recording after that."""
        self._maps, self._recorded = dict(memory["maps"]), dict(memory["recorded"])

    def record(self, source: str, attention: torch.Tensor) -> None:
        """Add what a chunk of frames pays to a group of tokens, (m, cells).

        source: name of the layer and the group. Which frames they are says `_chunk_pass`; where none is open they come
        in order.

        Step n counts n times: the later, the more of the picture is there to be seen.
        """
        total = self._maps.setdefault(source, attention.new_zeros(self.frames, attention.shape[1]))
        recorded = self._recorded.get(source, 0)
        step, next_in_order = divmod(recorded, self.frames)
        begin = next_in_order if self._begin is None else self._begin
        part = total[begin : begin + len(attention)]
        self._before[source] = recorded, part.clone()
        part += (step + 1) * attention
        self._recorded[source] = recorded + len(attention)

    def attention_map(self, height: int, width: int) -> torch.Tensor:
        """Attention to the foreground's tokens, (f, height, width) float32, each frame scaled to 0..1.

        height, width: of the latents that went through the UNet.
        """
        resized = []
        for total in self._fine_maps():
            grid = total.unflatten(1, _grid_of(total.shape[1], height, width))[:, None]
            # Each layer and group has a level of its own; only what stands out in it counts.
            grid = grid / grid.mean(dim=(2, 3), keepdim=True).clamp_min(1e-12)
            resized.append(functional.interpolate(grid, (height, width), mode="bilinear")[:, 0])
        mean = torch.nan_to_num(torch.stack(resized).mean(0))
        low, high = mean.amin((1, 2), keepdim=True), mean.amax((1, 2), keepdim=True)
        return (mean - low) / (high - low).clamp_min(1e-12)

    def _fine_maps(self) -> list[torch.Tensor]:
        """The maps fine enough to outline something, or the finest there are."""
        finest = max(total.shape[1] for total in self._maps.values())
        return [total for total in self._maps.values() if total.shape[1] >= min(SMALLEST_MAP, finest)]

    def masks(self, latents: torch.Tensor) -> torch.Tensor:
        """Masks (f, h, w) float32, 1 = foreground, of the clean latents (f, c, h, w) that the run ended with."""
        refined = refined_by_affinity(self.attention_map(*latents.shape[-2:]), latents)
        levels = (torch.nan_to_num(refined) * 255).round().byte().cpu().numpy()
        masks = [cv2.threshold(frame, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1] for frame in levels]
        return torch.from_numpy(np.stack(masks)).float().to(latents.device)


def recorded_layers(unet: UNet2DConditionModel) -> list[str]:
    """Processors of the text attention in the layers that paint, those of the way up.

    Models for large pictures go without their finest level: it costs as much as all others together.
    """
    side = unet.config["sample_size"]
    finest = f"up_blocks.{len(unet.up_blocks) - 1}."
    large = max(side if isinstance(side, tuple | list) else [side]) ** 2 > LARGEST_GRID
    return [
        name
        for name in unet.attn_processors
        if name.startswith("up_blocks.")
        and layer_of(unet, name).is_cross_attention
        and not (large and name.startswith(finest))
    ]


def refined_by_affinity(attention: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Attention (f, h, w) in 0..1, each cell's a mean over cells near it that look like it.

    Attention is blurred and has holes, latents (f, c, h, w) have the edges of the picture. Large grids are
    compared in blocks.
    """
    height, width = attention.shape[-2:]
    block = 1
    while -(-height // block) * -(-width // block) > LARGEST_GRID:
        block += 1
    coarse = functional.avg_pool2d(attention[:, None], block, ceil_mode=True)
    looks = functional.avg_pool2d(latents.float(), block, ceil_mode=True) / AFFINITY_IN_LATENTS
    rows, columns = coarse.shape[-2:]
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    place = torch.stack([y, x]).to(looks) / (AFFINITY_IN_PLACE * max(rows, columns))
    refined = []
    for frame_attention, frame_latents in zip(coarse.flatten(1), looks, strict=True):
        traits = torch.cat([frame_latents, place]).flatten(1).T  # (cells, c + 2)
        affinity = (-torch.cdist(traits, traits).square()).softmax(-1)  # (cells, cells)
        for _ in range(AFFINITY_ROUNDS):
            frame_attention = affinity @ frame_attention  # noqa: PLW2901 - the next round
        refined.append(frame_attention.view(rows, columns))
    return functional.interpolate(torch.stack(refined)[:, None], (height, width), mode="bilinear")[:, 0]


@dataclass(frozen=True, eq=False)
class RecordingProcessor:
    """An attn2 processor that records for a detector what its layer attends to and returns what it always did."""

    original: AttentionProcessor
    layer: str
    detector: CrossAttentionDetector

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """hidden_states: (branches·frames, cells, channels); encoder_hidden_states: the text's."""
        frames = len(hidden_states) // self.detector.branches.present
        attention = self._attention(attn, hidden_states[-frames:], encoder_hidden_states[-frames:])
        for number, tokens in enumerate(self.detector.groups):
            self.detector.record(f"{self.layer} {number}", attention[..., tokens].sum(-1))
        return self.original(attn, hidden_states, encoder_hidden_states, attention_mask)

    def _attention(self, attn: Attention, pixels: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """What each cell pays to each token, mean over heads, (frames, cells, tokens) float32."""
        query = attn.to_q(pixels).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        key = keys_of(attn, text).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        # float32 before the product: in 16 bits the products of some models overflow.
        return (query.float() * attn.scale @ key.float().transpose(-1, -2)).softmax(-1).mean(1)


def _grid_of(cells: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a layer with so many cells; each level of a UNet halves the one before, rounding up."""
    rows, columns = height, width
    while rows * columns > cells:
        rows, columns = -(-rows // 2), -(-columns // 2)
    if rows * columns != cells:
        raise ValueError(f"{cells} cells are no halving of {height}x{width}")
    return rows, columns

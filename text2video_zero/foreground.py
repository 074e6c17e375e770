"""Where the foreground is, on the grid of the latents: what background smoothing must leave alone."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
import torch
from torch.nn import functional

from text2video_zero.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusers.models.attention_processor import Attention, AttnProcessor2_0

    from text2video_zero.pipeline import Pipeline

# Maps of fewer cells are too coarse to outline anything; finer ones cost much and say little (DAAM, section 4).
SMALLEST_MAP, LARGEST_MAP = 64, 1024
ARTICLES = frozenset({"a", "an", "the"})
PREPOSITIONS = frozenset(
    [
        "above",
        "across",
        "against",
        "along",
        "amid",
        "among",
        "around",
        "at",
        "before",
        "behind",
        "below",
        "beneath",
        "beside",
        "between",
        "by",
        "down",
        "flying",
        "for",
        "from",
        "in",
        "inside",
        "into",
        "near",
        "next",
        "of",
        "off",
        "on",
        "onto",
        "over",
        "past",
        "through",
        "to",
        "toward",
        "towards",
        "under",
        "underneath",
        "up",
        "upon",
        "wearing",
        "while",
        "with",
        "within",
        "without",
    ]
)
FRAMINGS = re.compile(
    r"^\s*(?:an?|the)?\s*(?:\w+\s+)?(?:photo|picture|painting|drawing|video|image|shot)\s+of\s+", re.IGNORECASE
)


class ForegroundDetector(Protocol):
    """Finds the foreground of the frames of one run."""

    def observing(self) -> AbstractContextManager[None]:
        """Open while the frames are denoised for the first time; leaves no trace in the pipeline."""

    def masks(self, latents: torch.Tensor) -> torch.Tensor:
        """Masks (f, h, w) float32, 1 = foreground, of clean latents (f, c, h, w)."""


def subject_span(prompt: str, words: str = "") -> list[tuple[int, int]]:
    """Spans (begin, end) in the prompt of the words that name the foreground.

    words: said by the person; blank stands for the words before the first preposition or -ing form, without
    articles ("a photo of a red panda dancing in the snow" -> red, panda). Raises UserError when none of the
    given words stands in the prompt.
    """
    if words.strip():
        wanted = set(re.findall(r"\w+", words.lower()))
        spans = [match.span() for match in re.finditer(r"\w+", prompt) if match[0].lower() in wanted]
        if not spans:
            raise UserError(f"Foreground words are {words!r}, but none of them is in the prompt: copy them from it.")
        return spans
    framing = FRAMINGS.match(prompt)
    spans = []
    for match in re.compile(r"\w+|[,.;:]").finditer(prompt, framing.end() if framing else 0):
        word = match[0].lower()
        if word in PREPOSITIONS or word in ",.;:" or (len(word) > 5 and word.endswith("ing")):
            if spans:
                break
        elif word not in ARTICLES:
            spans.append(match.span())
    return spans or [(0, len(prompt))]


@dataclass
class CrossAttentionDetector:
    """The UNet's own text cross-attention (attn2) for the words that name the foreground.

    Needs no further model and works with every checkpoint: the attention that each cell pays to those words
    is averaged over heads, layers and steps, and cut in two by Otsu's threshold, frame by frame (after DAAM,
    Tang et al. 2022).

    frames: length of the clip.  branches: guidance branches; the last is the one with the prompt.
    """

    pipeline: Pipeline
    prompt: str
    words: str
    frames: int
    branches: int

    def __post_init__(self) -> None:
        self._tokens = self._subject_tokens()
        self._heat: dict[str, torch.Tensor] = {}  # layer -> (f, n), summed over steps
        self._cursor: dict[str, int] = {}

    def _subject_tokens(self) -> list[int]:
        tokenizer = self.pipeline.components.tokenizer
        encoded = tokenizer(self.prompt, truncation=True, return_offsets_mapping=True)
        spans = subject_span(self.prompt, self.words)
        return [
            index
            for index, (begin, end) in enumerate(encoded.offset_mapping)
            if any(begin < stop and start < end for start, stop in spans)
        ]

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Listen at every attn2 layer of a useful resolution; what the layers return stays the same."""
        unet = self.pipeline.components.unet
        original = dict(unet.attn_processors)
        listening = {
            name: ListeningProcessor(processor, name, self)
            for name, processor in original.items()
            if name.endswith("attn2.processor")
        }
        try:
            unet.set_attn_processor(original | listening)
            yield
        finally:
            unet.set_attn_processor(dict(original))

    def hear(self, layer: str, attention: torch.Tensor) -> None:
        """Add what a chunk of frames pays to the words, (m, n); chunks come in the order of the frames."""
        heat = self._heat.setdefault(layer, attention.new_zeros(self.frames, attention.shape[1]))
        begin = self._cursor.get(layer, 0)
        heat[begin : begin + len(attention)] += attention
        self._cursor[layer] = (begin + len(attention)) % self.frames

    @property
    def tokens(self) -> list[int]:
        """Positions of the words that name the foreground in the encoded prompt."""
        return self._tokens

    def heat(self, height: int, width: int) -> torch.Tensor:
        """Attention to the words, (f, height, width) float32, each frame scaled to 0..1."""
        maps = []
        for heat in self._heat.values():
            rows = round((heat.shape[1] * height / width) ** 0.5)
            grid = heat.unflatten(1, (rows, -1))[:, None]
            # Each layer has a level of its own; only what stands out in it counts.
            grid = grid / grid.mean(dim=(2, 3), keepdim=True)
            maps.append(functional.interpolate(grid, (height, width), mode="bilinear")[:, 0])
        total = torch.stack(maps).mean(0)
        low, high = total.amin((1, 2), keepdim=True), total.amax((1, 2), keepdim=True)
        return (total - low) / (high - low).clamp_min(1e-12)

    def masks(self, latents: torch.Tensor) -> torch.Tensor:
        """Masks (f, h, w) float32, 1 = foreground; `latents` give the size."""
        heat = (self.heat(*latents.shape[-2:]) * 255).round().byte().cpu().numpy()
        masks = [cv2.threshold(frame, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1] for frame in heat]
        return torch.from_numpy(np.stack(masks)).float().to(latents.device)


class ListeningProcessor:
    """An attn2 processor that tells a detector what its layer attends to and returns what it always did."""

    def __init__(self, original: AttnProcessor2_0, layer: str, detector: CrossAttentionDetector) -> None:
        self.original = original
        self.layer = layer
        self.detector = detector

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """hidden_states: (branches·frames, tokens, channels); encoder_hidden_states: the text's."""
        if SMALLEST_MAP <= hidden_states.shape[1] <= LARGEST_MAP:
            frames = len(hidden_states) // self.detector.branches
            query = attn.to_q(hidden_states[-frames:]).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            key = attn.to_k(encoder_hidden_states[-frames:]).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            attention = (query @ key.transpose(-1, -2) * attn.scale).float().softmax(-1)  # (m, heads, n, text)
            self.detector.hear(self.layer, attention[..., self.detector.tokens].sum(-1).mean(1))
        return self.original(attn, hidden_states, encoder_hidden_states, attention_mask)

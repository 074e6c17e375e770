"""Where the foreground is, on the grid of the latents: what background smoothing must leave alone."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from text2video_zero.decoding import decoded_frames
from text2video_zero.errors import UserError
from text2video_zero.subject_words import subject_spans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusers import AutoencoderKL
    from diffusers.models.attention_processor import Attention, AttnProcessor2_0
    from rembg.sessions.base import BaseSession

    from text2video_zero.pipeline import Pipeline

# Maps of fewer cells are too coarse to outline anything; finer ones cost much and say little (DAAM, section 4).
SMALLEST_MAP, LARGEST_MAP = 64, 1024
# U²-Net (Qin et al. 2020) in its small form: 4.6 MB and as good as the large one on a grid of latents.
SALIENCY_MODEL = "u2netp"


class ForegroundDetector(Protocol):
    """Finds the foreground of the frames of one run."""

    def observing(self) -> AbstractContextManager[None]:
        """Open while the frames are denoised for the first time; leaves no trace in the pipeline."""

    def masks(self, latents: torch.Tensor) -> torch.Tensor:
        """Masks (f, h, w) float32, 1 = foreground, of clean latents (f, c, h, w)."""


@dataclass
class CrossAttentionDetector:
    """The UNet's own text cross-attention (attn2) for the words that name the foreground.

    Needs no further model and works with every checkpoint: the attention that each cell pays to those words
    is averaged over heads, layers and steps, and cut in two by Otsu's threshold, frame by frame (after DAAM,
    Tang et al. 2022). Raises UserError when the model reads none of the words.

    words: said by the person; blank for the first noun phrase of the prompt.  frames: length of the clip.
    branches: guidance branches; the last is the one with the prompt.
    """

    pipeline: Pipeline
    prompt: str
    words: str
    frames: int
    branches: int

    def __post_init__(self) -> None:
        self.tokens = self._subject_tokens()
        self._heat: dict[str, torch.Tensor] = {}  # layer -> (f, cells), summed over steps
        self._cursor: dict[str, int] = {}

    def _subject_tokens(self) -> list[int]:
        """Positions of the words that name the foreground in the encoded prompt."""
        tokenizer = self.pipeline.components.tokenizer
        spans = subject_spans(self.prompt, self.words)
        encoded = tokenizer(self.prompt, truncation=True, return_offsets_mapping=True)
        tokens = [
            index
            for index, (begin, end) in enumerate(encoded.offset_mapping)
            if any(begin < stop and start < end for start, stop in spans)
        ]
        if not tokens:
            named = ", ".join(self.prompt[begin:end] for begin, end in spans[:3])
            raise UserError(
                f"The foreground words ({named}) stand behind the part of the prompt that the model reads: "
                "shorten the prompt or move them to its beginning."
            )
        return tokens

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Listen at every attn2 layer; what the layers return stays the same."""
        unet = self.pipeline.components.unet
        original = dict(unet.attn_processors)
        listening = {
            name: ListeningProcessor(processor, name, self)
            for name, processor in original.items()
            if unet.get_submodule(name.removesuffix(".processor")).is_cross_attention
        }
        self._heat.clear()
        self._cursor.clear()
        try:
            unet.set_attn_processor(original | listening)
            yield
        finally:
            unet.set_attn_processor(dict(original))  # a copy: set_attn_processor empties what it is given

    def hear(self, layer: str, attention: torch.Tensor) -> None:
        """Add what a chunk of frames pays to the words, (m, cells); chunks come in the order of the frames."""
        heat = self._heat.setdefault(layer, attention.new_zeros(self.frames, attention.shape[1]))
        begin = self._cursor.get(layer, 0)
        heat[begin : begin + len(attention)] += attention
        self._cursor[layer] = (begin + len(attention)) % self.frames

    def heat(self, height: int, width: int) -> torch.Tensor:
        """Attention to the words, (f, height, width) float32, each frame scaled to 0..1.

        height, width: of the latents that went through the UNet.
        """
        maps = []
        for heat in self._outlining():
            grid = heat.unflatten(1, _grid_of(heat.shape[1], height, width))[:, None]
            # Each layer has a level of its own; only what stands out in it counts.
            grid = grid / grid.mean(dim=(2, 3), keepdim=True).clamp_min(1e-12)
            maps.append(functional.interpolate(grid, (height, width), mode="bilinear")[:, 0])
        total = torch.nan_to_num(torch.stack(maps).mean(0))
        low, high = total.amin((1, 2), keepdim=True), total.amax((1, 2), keepdim=True)
        return (total - low) / (high - low).clamp_min(1e-12)

    def _outlining(self) -> list[torch.Tensor]:
        """The maps fine enough to outline something, or the finest there are."""
        finest = max(heat.shape[1] for heat in self._heat.values())
        return [heat for heat in self._heat.values() if heat.shape[1] >= min(SMALLEST_MAP, finest)]

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
        """hidden_states: (branches·frames, cells, channels); encoder_hidden_states: the text's."""
        if hidden_states.shape[1] <= LARGEST_MAP:
            frames = len(hidden_states) // self.detector.branches
            self.detector.hear(
                self.layer, self._attention(attn, hidden_states[-frames:], encoder_hidden_states[-frames:])
            )
        return self.original(attn, hidden_states, encoder_hidden_states, attention_mask)

    def _attention(self, attn: Attention, pixels: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """What each cell pays to the detector's words, mean over heads, (frames, cells) float32."""
        query = attn.to_q(pixels).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        key = attn.to_k(text).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        # float32 before the product: in 16 bits the products of some models overflow.
        attention = (query.float() * attn.scale @ key.float().transpose(-1, -2)).softmax(-1)  # (m, heads, n, text)
        return attention[..., self.detector.tokens].sum(-1).mean(1)


def _grid_of(cells: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a layer with so many cells; each level of a UNet halves the one before, rounding up."""
    rows, columns = height, width
    while rows * columns > cells:
        rows, columns = -(-rows // 2), -(-columns // 2)
    if rows * columns != cells:
        raise ValueError(f"{cells} cells are no halving of {height}x{width}")
    return rows, columns


class SalientObjectDetector:
    """The most eye-catching object of each decoded frame, by a saliency network of the library rembg.

    For prompts whose foreground no word names. The library is an optional extra (requirements-extras.txt).
    Raises UserError when it, or the weights that it downloads once, cannot be had.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        self._vae = vae
        self._session = _saliency_session()

    def observing(self) -> AbstractContextManager[None]:
        """Nothing needs to be observed: the finished frames say all."""
        return nullcontext()

    def masks(self, latents: torch.Tensor) -> torch.Tensor:
        """Masks (f, h, w) float32, 1 = foreground, of clean latents (f, c, h, w)."""
        height, width = latents.shape[-2:]
        masks = []
        for frame in decoded_frames(self._vae, latents):
            saliency = np.asarray(self._session.predict(Image.fromarray(frame))[0])
            masks.append(cv2.resize(saliency, (width, height), interpolation=cv2.INTER_AREA) > 127)
        return torch.from_numpy(np.stack(masks)).float().to(latents.device)


def _saliency_session() -> BaseSession:
    try:
        with _without_compilation():
            import onnxruntime  # noqa: F401 - rembg ends the whole program where it is missing
            from rembg.session_factory import new_session
    except ImportError as error:
        raise UserError(
            f"Foreground detector 'salient object' needs what is not installed ({error.name}): "
            "run pip install -r requirements-extras.txt, or choose 'attention'."
        ) from error
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidProtobuf

    try:
        return new_session(SALIENCY_MODEL)
    except (OSError, ValueError, Fail, InvalidProtobuf) as error:  # no network, wrong checksum, broken file
        raise UserError(
            f"The weights of {SALIENCY_MODEL} could not be loaded ({type(error).__name__}): connect to the "
            f"internet once, put {SALIENCY_MODEL}.onnx into ~/.rembg/models/{SALIENCY_MODEL}, or choose the foreground "
            "detector 'attention'."
        ) from error


@contextmanager
def _without_compilation() -> Iterator[None]:
    """While this is open, numba compiles nothing that is imported.

    rembg imports a matting library, of no use for masks, that compiles for minutes when it is first imported.
    """
    from numba import config

    before = config.DISABLE_JIT
    config.DISABLE_JIT = True
    try:
        yield
    finally:
        config.DISABLE_JIT = before

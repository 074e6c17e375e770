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

from text2video_zero.errors import UserError
from text2video_zero.foreground.subject_words import subject_spans
from text2video_zero.sampling.decoding import decoded_frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.models.attention_processor import Attention, AttnProcessor2_0
    from rembg.sessions.base import BaseSession

    from text2video_zero.models.pipeline import Pipeline
    from text2video_zero.sampling.denoising import ChunkContext

SMALLEST_MAP = 64  # cells; coarser ones outline nothing
LARGEST_GRID = 1024  # cells that are compared with each other
# How far cells lend each other their heat: to e⁻¹ at this distance in latents of unit variance, and at this
# share of the frame. Chosen, as the layers and the weights of the steps, on renderings (docs/EVALUATION.md).
ALIKE_LATENTS, ALIKE_PLACE, LENDING_ROUNDS = 1.0, 1 / 8, 3
# U²-Net (Qin et al. 2020) in its small form: 4.6 MB and as good as the large one on a grid of latents.
SALIENCY_MODEL = "u2netp"


class ForegroundDetector(Protocol):
    """Finds the foreground of the frames of one run."""

    def observing(self) -> AbstractContextManager[ChunkContext]:
        """Open while the frames are denoised for the first time; leaves no trace in the pipeline.

        Its value is to be opened around each chunk: what a failed attempt has told is forgotten.
        """

    def masks(self, latents: torch.Tensor) -> torch.Tensor:
        """Masks (f, h, w) float32, 1 = foreground, of clean latents (f, c, h, w)."""


@dataclass
class CrossAttentionDetector:
    """The UNet's own text cross-attention (attn2) for the words that name the foreground.

    Needs no further model and works with every checkpoint: the attention that each cell pays to those words
    is averaged over heads, layers and steps (after DAAM, Tang et al. 2022), evened out among neighbours with
    alike latents, and cut in two by Otsu's threshold, frame by frame. Raises UserError when the model reads
    none of the words.

    words: said by the person; blank for the first noun phrase of the prompt.  frames: length of the clip.
    branches: guidance branches; the last is the one with the prompt.
    """

    pipeline: Pipeline
    prompt: str
    words: str
    frames: int
    branches: int

    def __post_init__(self) -> None:
        self.groups = self._token_groups()
        self._heat: dict[str, torch.Tensor] = {}  # layer and group -> (f, cells), weighted sum over steps
        self._heard: dict[str, int] = {}  # layer and group -> frames, counted once per step
        self._before: dict[str, tuple[int, torch.Tensor]] = {}  # what both were before this chunk, where it was heard

    def _token_groups(self) -> list[list[int]]:
        """Positions in the encoded prompt: the foreground's words, and unless the person chose them, its end.

        The token at the end of the text sums up the prompt; what it looks at is what the picture is about.
        """
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
        end_of_text = len(encoded.input_ids) - 1
        return [tokens] if self.words.strip() else [tokens, [end_of_text]]

    @contextmanager
    def observing(self) -> Iterator[ChunkContext]:
        """Listen at the layers that paint; what they return stays the same."""
        unet = self.pipeline.components.unet
        original = dict(unet.attn_processors)
        listening = {name: ListeningProcessor(original[name], name, self) for name in outlining_layers(unet)}
        self._heat.clear()
        self._heard.clear()
        try:
            unet.set_attn_processor(original | listening)
            yield self._chunk_pass
        finally:
            unet.set_attn_processor(dict(original))  # a copy: set_attn_processor empties what it is given

    @contextmanager
    def _chunk_pass(self) -> Iterator[None]:
        """While this is open, a chunk goes through the UNet; one that fails has never been heard."""
        self._before.clear()
        try:
            yield
        except BaseException:
            for source, (heard, heat) in self._before.items():
                begin = heard % self.frames
                self._heat[source][begin : begin + len(heat)] = heat
                self._heard[source] = heard
            raise

    def hear(self, source: str, attention: torch.Tensor) -> None:
        """Add what a chunk of frames pays to a group of tokens, (m, cells); chunks come in the order of the frames.

        source: name of the layer and the group.

        Step n counts n times: the later, the more of the picture is there to be seen.
        """
        heat = self._heat.setdefault(source, attention.new_zeros(self.frames, attention.shape[1]))
        heard = self._heard.get(source, 0)
        step, begin = divmod(heard, self.frames)
        self._before[source] = heard, heat[begin : begin + len(attention)].clone()
        heat[begin : begin + len(attention)] += (step + 1) * attention
        self._heard[source] = heard + len(attention)

    def heat(self, height: int, width: int) -> torch.Tensor:
        """Attention to the foreground's tokens, (f, height, width) float32, each frame scaled to 0..1.

        height, width: of the latents that went through the UNet.
        """
        maps = []
        for heat in self._outlining():
            grid = heat.unflatten(1, _grid_of(heat.shape[1], height, width))[:, None]
            # Each layer and group has a level of its own; only what stands out in it counts.
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
        """Masks (f, h, w) float32, 1 = foreground, of the clean latents (f, c, h, w) that the run ended with."""
        heat = lent_among_alike(self.heat(*latents.shape[-2:]), latents)
        levels = (torch.nan_to_num(heat) * 255).round().byte().cpu().numpy()
        masks = [cv2.threshold(frame, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1] for frame in levels]
        return torch.from_numpy(np.stack(masks)).float().to(latents.device)


def outlining_layers(unet: UNet2DConditionModel) -> list[str]:
    """Processors of the text attention in the layers that paint, those of the way up.

    Models for large pictures go without their finest level: it costs as much as all others together.
    """
    side = unet.config.sample_size
    finest = f"up_blocks.{len(unet.up_blocks) - 1}."
    large = max(side if isinstance(side, tuple | list) else [side]) ** 2 > LARGEST_GRID
    return [
        name
        for name in unet.attn_processors
        if name.startswith("up_blocks.")
        and unet.get_submodule(name.removesuffix(".processor")).is_cross_attention
        and not (large and name.startswith(finest))
    ]


def lent_among_alike(heat: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Heat (f, h, w) in 0..1, each cell's a mean over cells near it that look like it.

    Attention is blurred and has holes, latents (f, c, h, w) have the edges of the picture. Large grids are
    compared in blocks.
    """
    height, width = heat.shape[-2:]
    block = 1
    while -(-height // block) * -(-width // block) > LARGEST_GRID:
        block += 1
    coarse = functional.avg_pool2d(heat[:, None], block, ceil_mode=True)
    alike = functional.avg_pool2d(latents.float(), block, ceil_mode=True) / ALIKE_LATENTS
    rows, columns = coarse.shape[-2:]
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    place = torch.stack([y, x]).to(alike) / (ALIKE_PLACE * max(rows, columns))
    evened = []
    for frame_heat, frame_latents in zip(coarse.flatten(1), alike, strict=True):
        traits = torch.cat([frame_latents, place]).flatten(1).T  # (cells, c + 2)
        weights = (-torch.cdist(traits, traits).square()).softmax(-1)  # (cells, cells)
        for _ in range(LENDING_ROUNDS):
            frame_heat = weights @ frame_heat  # noqa: PLW2901 - the next round
        evened.append(frame_heat.view(rows, columns))
    return functional.interpolate(torch.stack(evened)[:, None], (height, width), mode="bilinear")[:, 0]


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
        frames = len(hidden_states) // self.detector.branches
        attention = self._attention(attn, hidden_states[-frames:], encoder_hidden_states[-frames:])
        for number, tokens in enumerate(self.detector.groups):
            self.detector.hear(f"{self.layer} {number}", attention[..., tokens].sum(-1))
        return self.original(attn, hidden_states, encoder_hidden_states, attention_mask)

    def _attention(self, attn: Attention, pixels: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """What each cell pays to each token, mean over heads, (frames, cells, tokens) float32."""
        query = attn.to_q(pixels).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        key = attn.to_k(text).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
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


class SalientObjectDetector:
    """The most eye-catching object of each decoded frame, by a saliency network of the library rembg.

    For prompts whose foreground no word names. The library is an optional extra (requirements-extras.txt).
    Raises UserError when it, or the weights that it downloads once, cannot be had.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        self._vae = vae
        self._session = _saliency_session()

    def observing(self) -> AbstractContextManager[ChunkContext]:
        """Nothing needs to be observed: the finished frames say all."""
        return nullcontext(nullcontext)

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

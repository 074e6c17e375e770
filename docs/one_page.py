"""Text2Video-Zero on one page: a text-to-image model films, and nobody trains it.

    python docs/one_page.py "a red panda in the snow"

The method of Khachatryan et al. 2023 (arXiv 2303.13439; § are its sections) for reading: `text_to_video` is the whole,
and below it come the words that it is written in. A test holds the engine, which can do more, to the same latents.

A model such as Stable Diffusion (§3.1) turns noise into a picture in small steps. It works on latents x_t: a few
channels at an eighth of the picture's size, all noise at t = 1000 and clean at t = 0. It knows nothing of time. A
video is frames that move as a camera does and otherwise show the same (§3.2): so all frames begin as one picture,
each moved further (§3.3.1), and every one looks at the first while it is painted (§3.3.2).

x_t = √ᾱ_t·x_0 + √(1-ᾱ_t)·ε, ε ~ N(0, I). The paper's frames 1..m are 0..m-1 in code. Shapes: m frames, c channels,
h x w cells.
"""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import imageio
import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import Attention

# The paper's settings (§4.1).
FRAMES, STEPS, GUIDANCE = 8, 50, 7.5
T_PRIME, T = 881, 941
DELTA = 12 / 512, 12 / 512  # λ·δ: to the right and down, in widths and heights of the frame, from frame to frame
ALPHA = 0.6  # how much of the background comes from the first frame

TOYLAND = Path(__file__).resolve().parent.parent / "assets" / "toyland"


@torch.inference_mode()
def text_to_video(
    sd: StableDiffusionPipeline,
    prompt: str,
    seed: int,
    frames: int = FRAMES,
    steps: int = STEPS,
    find_foreground: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Algorithm 1: clean latents x_0 (m, c, h, w) of a video that shows the prompt.

    find_foreground: clean latents (m, c, h, w) -> masks (m, h, w), 1 = foreground. None leaves out the smoothing.
    """
    text = encoded(sd, prompt)
    above_T, from_T_to_T_prime, below_T = cut(timesteps(steps))
    shape = (sd.unet.config.in_channels, sd.unet.config.sample_size, sd.unet.config.sample_size)
    noises = [noise(seed, k, shape) for k in range(frames)]
    with cross_frame_attention(sd.unet):
        # §3.3.1: the first frame goes alone to T and on to T' < T, where large shapes have come out of the noise. There
        # the others are made of it, each moved further, and go back up to T, each with noise of its own: the same
        # scene, but free enough for the model to paint what moves.
        first_at_T = denoised(sd, text, noises[0][None], above_T)
        first_at_T_prime = denoised(sd, text, first_at_T, from_T_to_T_prime)
        others = [noised(sd, moved(first_at_T_prime, k), noises[k], from_T_to_T_prime) for k in range(1, frames)]
        x_T = torch.cat([first_at_T, *others])
        # From T on all go together to the end, every one with an eye on the first (§3.3.2).
        x_0 = denoised(sd, text, x_T, below_T)
        if find_foreground is None:
            return x_0
        # §3.3.3: now that the foreground is known, once more from T on a steadier background.
        return denoised(sd, text, smoothed(x_T, find_foreground(x_0)), below_T)


def encoded(sd: StableDiffusionPipeline, prompt: str) -> torch.Tensor:
    """What the UNet reads, (2, tokens, channels): no words at all, and the prompt."""
    length = sd.tokenizer.model_max_length
    tokens = sd.tokenizer(["", prompt], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return sd.text_encoder(tokens.input_ids)[0]


def timesteps(steps: int) -> list[int]:
    """DDIM's way down the 1000 timesteps of the training, for 50 steps: 981, 961, …, 21, 1 and the end."""
    return [1000 * step // steps + 1 for step in reversed(range(steps))] + [0]


def cut(times: list[int]) -> tuple[list[int], list[int], list[int]]:
    """The ways from noise to T, from T to T' and from T to the end; T and T' at the nearest steps, T' after T."""
    at_T, at_T_prime = (min(range(len(times)), key=lambda i: abs(times[i] - t)) for t in (T, T_PRIME))
    return times[: at_T + 1], times[at_T : max(at_T_prime, at_T + 1) + 1], times[at_T:]


def noise(seed: int, k: int, shape: tuple[int, ...]) -> torch.Tensor:
    """ε ~ N(0, I) that belongs to one frame of one seed, however many frames there are."""
    state = np.random.SeedSequence([seed, k, 0]).generate_state(1, np.uint64)[0]
    return torch.randn(shape, generator=torch.Generator().manual_seed(int(state)))


def denoised(sd: StableDiffusionPipeline, text: torch.Tensor, x: torch.Tensor, way: Sequence[int]) -> torch.Tensor:
    """Latents (m, c, h, w) taken down the way by DDIM (Song et al. 2020, η = 0) with classifier-free guidance."""
    for t, t_next in pairwise(way):
        # ε = ε(∅) + s·(ε(prompt) - ε(∅)): what the words change, exaggerated.
        without, told = sd.unet(torch.cat([x, x]), t, text.repeat_interleave(len(x), dim=0)).sample.chunk(2)
        epsilon = without + GUIDANCE * (told - without)
        # What the picture would be, x̂_0 = (x_t - √(1-ᾱ_t)·ε) / √ᾱ_t, put back under the noise of the next timestep.
        alpha, alpha_next = sd.scheduler.alphas_cumprod[[t, t_next]]
        clean = (x - (1 - alpha).sqrt() * epsilon) / alpha.sqrt()
        x = alpha_next.sqrt() * clean + (1 - alpha_next).sqrt() * epsilon
    return x


@torch.inference_mode()
def decoded(sd: StableDiffusionPipeline, x_0: torch.Tensor) -> torch.Tensor:
    """Pictures (m, 3, 8·h, 8·w) in 0..1 of clean latents (m, c, h, w)."""
    return (sd.vae.decode(x_0 / sd.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)


def moved(x: torch.Tensor, k: int) -> torch.Tensor:
    """W_k (§3.3.1) on (…, h, w): each cell shows what lies δ_k = λ·k·δ beside it on x, a mirror image beyond the edges.

    Cells move whole: latents at T' are mostly noise, which averaging among neighbours would weaken.
    """
    for axis, share in zip((-1, -2), DELTA, strict=True):
        size = x.shape[axis]
        cell = (torch.arange(size) + k * share * size - 0.5).ceil().long() % (2 * size)  # the nearest; of two the lower
        x = x.index_select(axis, torch.minimum(cell, 2 * size - 1 - cell))
    return x


def noised(sd: StableDiffusionPipeline, x: torch.Tensor, epsilon: torch.Tensor, way: Sequence[int]) -> torch.Tensor:
    """Latents taken the way back, from T' up to T at once (DDPM forward): √(ᾱ_T/ᾱ_T')·x + √(1-ᾱ_T/ᾱ_T')·ε."""
    kept = sd.scheduler.alphas_cumprod[way[0]] / sd.scheduler.alphas_cumprod[way[-1]]
    return kept.sqrt() * x + (1 - kept).sqrt() * epsilon


class CrossFrameAttention:
    """Self-attention that looks at the first frame, not at its own (§3.3.2): Softmax(Q^k·(K^1)ᵀ / √c)·V^1."""

    def __call__(self, attn: Attention, x: torch.Tensor, *_: None, **__: None) -> torch.Tensor:
        """x: (2·m, cells, channels), all frames without words before all frames with the prompt."""
        branches = x.unflatten(0, (2, -1))
        first = branches[:, :1].expand_as(branches).flatten(0, 1)
        q, k, v = attn.to_q(x), attn.to_k(first), attn.to_v(first)
        q, k, v = (y.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for y in (q, k, v))  # (2·m, heads, cells, c)
        return attn.to_out[0](functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@contextmanager
def cross_frame_attention(unet: UNet2DConditionModel) -> Generator[None]:
    """In every self-attention layer (attn1) of the UNet while this is open; what looks at the text stays."""
    before = unet.attn_processors
    unet.set_attn_processor({name: CrossFrameAttention() if ".attn1." in name else old for name, old in before.items()})
    try:
        yield
    finally:
        unet.set_attn_processor(before)


def smoothed(x: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Background smoothing (§3.3.3): x̄^k = M^k·x^k + (1-M^k)·(α·W_k(x^1) + (1-α)·x^k).

    x: (m, c, h, w).  masks: (m, h, w).
    As in the authors' code, masks grow by 5x5 cells on a grid of 64x64, and no frame has background where the first
    one's foreground would be carried to, lest its ghost stays there.
    """
    radius = max(1, round(2 / 64 * min(masks.shape[1:])))
    masks = functional.max_pool2d(masks[:, None], 2 * radius + 1, stride=1, padding=radius)  # (m, 1, h, w)
    first, first_mask = (torch.stack([moved(y[0], k) for k in range(len(x))]) for y in (x, masks))
    return x + ALPHA * (1 - masks) * (1 - first_mask) * (first - x)


def unlike_the_edge(pictures: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """Masks (m, h, w) of what has other colours than the edge of its picture; pictures: (m, 3, height, width).

    In place of the authors' detector of salient objects, which was never released.
    """
    cells = functional.adaptive_avg_pool2d(pictures, (h, w)).flatten(2).mT  # (m, h·w, 3)
    edge = functional.pad(torch.zeros(h - 2, w - 2), (1, 1, 1, 1), value=1).flatten().bool()
    distance = torch.cdist(cells, cells[:, edge]).amin(dim=-1)
    return (distance > 2 * distance.mean(dim=1, keepdim=True)).float().unflatten(1, (h, w))


if __name__ == "__main__":
    words = " ".join(sys.argv[1:]) or sys.exit('Say what to film: python docs/one_page.py "a red panda in the snow"')
    video = Path("-".join(re.findall(r"\w+", words))[:80] + ".mp4")
    toyland = StableDiffusionPipeline.from_pretrained(TOYLAND, torch_dtype=torch.float32)
    latents = text_to_video(
        toyland, words, seed=1, find_foreground=lambda x_0: unlike_the_edge(decoded(toyland, x_0), *x_0.shape[-2:])
    )
    pictures = decoded(toyland, latents)
    imageio.mimwrite(video, (pictures.permute(0, 2, 3, 1) * 255).round().byte().numpy(), fps=4)
    print(f"{len(pictures)} frames in {video.resolve()}")

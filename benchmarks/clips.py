"""A clip by this project and by diffusers' own pipeline on the same weights, and how their times are taken."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING

import torch

from benchmarks.peer import PROMPT, Peer, TextToVideoZeroPipeline, TextToVideoZeroSDXLPipeline
from text2video_zero.generate import sample
from text2video_zero.requests import TextToVideoRequest
from text2video_zero.requests.presets import PAPER, PRESETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from text2video_zero.models.pipeline import Pipeline

Run = Callable[[], object]


def ours(pipeline: Pipeline, request: TextToVideoRequest) -> None:
    """Latents of a clip by this project's sampler."""
    with torch.inference_mode():
        for _ in sample(request, pipeline):
            pass


def paper_request(frames: int, chunk_size: int, steps: int) -> TextToVideoRequest:
    """What diffusers' pipeline does: the paper's settings, without smoothing."""
    values = {"prompt": PROMPT, "seed": 0, "frames": frames, "chunk_size": chunk_size, "steps": steps}
    return TextToVideoRequest.from_dict({**PRESETS[PAPER].values["text-to-video"], **values})


def peer_of(pipeline: Pipeline) -> Peer:
    """Diffusers' deprecated pipeline with the same networks, XL's for XL."""
    parts = dict(pipeline.components.components)
    if pipeline.family == "sdxl":
        peer = TextToVideoZeroSDXLPipeline(**parts, add_watermarker=False)
    else:
        parts.pop("image_encoder", None)
        peer = TextToVideoZeroPipeline(**parts, requires_safety_checker=False)
    peer.set_progress_bar_config(disable=True)
    return peer


def measured(works: Mapping[str, Sequence[Run]], rounds: int) -> dict[str, list[list[float]]]:
    """Seconds by work and side, one for each round; every round runs all of them."""
    times: dict[str, list[list[float]]] = {name: [[] for _ in sides] for name, sides in works.items()}
    for _ in range(rounds):
        for name, sides in works.items():
            for run, seconds in zip(sides, times[name], strict=True):
                seconds.append(seconds_of(run))
    return times


def seconds_of(run: Run) -> float:
    """Until all is computed: a GPU is handed its work, and does it later."""
    began = time.perf_counter()
    run()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - began


def told(seconds: Sequence[float]) -> str:
    """Median and range."""
    return f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"

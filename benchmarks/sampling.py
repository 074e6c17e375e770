"""`python -m benchmarks.sampling`: what a clip costs by chunk size, and against diffusers' own pipeline.

All rows come from one run, round after round, and are compared by the least time of each, so that a busy
machine disturbs the ratios little.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from diffusers.pipelines.deprecated.text_to_video_synthesis.pipeline_text_to_video_zero import TextToVideoZeroPipeline

from model_manager import ModelManager
from text2video_zero.generate import sample
from text2video_zero.models.selection import find_checkpoint
from text2video_zero.requests import TextToVideoRequest
from text2video_zero.requests.video import REFERENCE_FRAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from text2video_zero.models.pipeline import Pipeline

PROMPT = "a red panda dancing in the snow"


def ours(pipeline: Pipeline, request: TextToVideoRequest) -> None:
    """Latents of a clip by this project's sampler."""
    with torch.inference_mode():
        for _ in sample(request, pipeline):
            pass


def diffusers_own(pipeline: Pipeline, request: TextToVideoRequest) -> None:
    """Latents of the same clip by diffusers' deprecated pipeline, all frames at once."""
    parts = pipeline.components
    names = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    other = TextToVideoZeroPipeline(
        **{name: getattr(parts, name) for name in names},
        safety_checker=cast("Any", None),  # diffusers takes None, but does not say so
        feature_extractor=cast("Any", None),
        requires_safety_checker=False,
    )
    other.set_progress_bar_config(disable=True)
    steps = request.steps
    other(
        request.prompt,
        video_length=request.frames,
        width=pipeline.native_size.width,
        height=pipeline.native_size.height,
        num_inference_steps=steps,
        t0=round(steps * 0.88),
        t1=round(steps * 0.94),
        guidance_scale=request.guidance_scale,
        output_type="latent",
    )


def least_times(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Seconds of the quickest of some rounds, by name; every round runs all of them."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    return {name: min(seconds) for name, seconds in times.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="toyland")
    parser.add_argument("--device")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args(argv)
    manager = ModelManager(arguments.device)
    with manager.lend(find_checkpoint(arguments.model)) as pipeline:
        plain = TextToVideoRequest(prompt=PROMPT, frames=arguments.frames, steps=arguments.steps, seed=0)
        requests = {f"anchor first, {size} at a time": replace(plain, chunk_size=size) for size in (8, 4, 2, 1)} | {
            **{f"anchor first, {frames}": replace(plain, reference_frames=frames) for frames in REFERENCE_FRAMES[1:]},
            "token merging 0.5": replace(plain, token_merging=0.5),
            "without cross-frame attention": replace(plain, cross_frame_attention=False),
        }
        runs: dict[str, Callable[[], None]] = {
            name: partial(ours, pipeline, request) for name, request in requests.items()
        }
        runs["diffusers' TextToVideoZeroPipeline"] = partial(diffusers_own, pipeline, plain)
        times = least_times(runs, arguments.rounds)
    first = next(iter(times.values()))
    print(f"{arguments.frames} frames, {arguments.steps} steps, {arguments.model} on {manager.describe_device()}\n")
    print("| sampling | seconds | against the first |\n|---|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {seconds:.2f} | {seconds / first:.2f} |")


if __name__ == "__main__":
    main()

"""`python -m benchmarks.sampling`: a clip by this project and by diffusers' own pipeline, on the same weights.

Every round runs all rows, one side after the other, and rows are compared by their medians, so that a busy machine
disturbs the ratios little; the ranges tell how much it did. With --variants it is the settings of this project that
are compared with one another.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import torch

from benchmarks.peer import PROMPT, TextToVideoZeroPipeline, sampled_by_peer
from model_manager import ModelManager
from text2video_zero.generate import sample
from text2video_zero.models.selection import find_checkpoint
from text2video_zero.requests import TextToVideoRequest
from text2video_zero.requests.presets import PAPER, PRESETS
from text2video_zero.requests.video import REFERENCE_FRAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from text2video_zero.models.pipeline import Pipeline

    Run = Callable[[], object]

ROOT = Path(__file__).resolve().parents[1]
# Frames, frames at a time, steps.
CLIPS = (8, 8, 50), (8, 8, 10), (16, 8, 10), (8, 4, 10), (8, 2, 10)
WHOLE_PROCESS = 8, 50


def ours(pipeline: Pipeline, request: TextToVideoRequest) -> None:
    """Latents of a clip by this project's sampler."""
    with torch.inference_mode():
        for _ in sample(request, pipeline):
            pass


def paper_request(frames: int, chunk_size: int, steps: int) -> TextToVideoRequest:
    """What diffusers' pipeline does: the paper's settings, without smoothing."""
    values = {"prompt": PROMPT, "seed": 0, "frames": frames, "chunk_size": chunk_size, "steps": steps}
    return TextToVideoRequest.from_dict({**PRESETS[PAPER].values["text-to-video"], **values})


def peer_of(pipeline: Pipeline) -> TextToVideoZeroPipeline:
    """Diffusers' deprecated pipeline with the same networks."""
    parts = pipeline.components
    names = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    peer = TextToVideoZeroPipeline(
        **{name: getattr(parts, name) for name in names},
        safety_checker=cast("Any", None),  # diffusers takes None, but does not say so
        feature_extractor=cast("Any", None),
        requires_safety_checker=False,
    )
    peer.set_progress_bar_config(disable=True)
    return peer


def works_of(pipeline: Pipeline) -> dict[str, tuple[Run, Run]]:
    """What is compared with diffusers: each by this project, and by them."""
    peer = peer_of(pipeline)
    works: dict[str, tuple[Run, Run]] = {}
    for frames, chunk_size, steps in CLIPS:
        own = partial(ours, pipeline, paper_request(frames, chunk_size, steps))
        theirs = partial(sampled_by_peer, peer, frames, steps, chunk_size)
        works[f"{frames} frames, {chunk_size} at a time, {steps} steps"] = own, theirs
        if frames > chunk_size == 8:
            at_once = partial(sampled_by_peer, peer, frames, steps, frames)
            works[f"{frames} frames, {chunk_size} at a time, {steps} steps; theirs all at once"] = own, at_once
    return works


def whole_process(folder: Path) -> tuple[Run, Run]:
    """From the command line to an MP4 of Toyland on the CPU, imports and loading included."""
    frames, steps = map(str, WHOLE_PROCESS)
    options = ("--model", "toyland", "--device", "cpu", "--preset", PAPER, "--seed", "0")
    own = ("text2video_zero", "text-to-video", *options, "--frames", frames, "--steps", steps, "--prompt", PROMPT)
    commands = (*own, "--output", str(folder / "ours.mp4")), ("benchmarks.peer", frames, steps, str(folder / "p.mp4"))
    run_module = partial(subprocess.run, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    first, second = (partial(run_module, [sys.executable, "-m", *command]) for command in commands)
    return first, second


def variants_of(pipeline: Pipeline) -> dict[str, tuple[Run, ...]]:
    """Settings that are compared with one another."""
    plain = paper_request(8, 8, 10)
    requests = {f"{size} at a time": replace(plain, chunk_size=size) for size in (8, 4, 2, 1)} | {
        **{references: replace(plain, reference_frames=references) for references in REFERENCE_FRAMES[1:]},
        **{f"guidance until {end}": replace(plain, guidance_end=end) for end in (0.8, 0.5)},
        "token merging 0.5": replace(plain, token_merging=0.5),
        **{f"DeepCache, every {every} steps": replace(plain, cache_interval=every) for every in (2, 3, 5)},
        "without cross-frame attention": replace(plain, cross_frame_attention=False),
    }
    return {name: (partial(ours, pipeline, request),) for name, request in requests.items()}


def measured(works: Mapping[str, Sequence[Run]], rounds: int) -> dict[str, list[list[float]]]:
    """Seconds by work and side, one for each round; every round runs all of them."""
    times: dict[str, list[list[float]]] = {name: [[] for _ in sides] for name, sides in works.items()}
    for _ in range(rounds):
        for name, sides in works.items():
            for run, seconds in zip(sides, times[name], strict=True):
                began = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - began)
    return times


def told(seconds: Sequence[float]) -> str:
    """Median and range."""
    return f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="toyland")
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", metavar="WORDS", help="rows whose names have these words in them")
    parser.add_argument("--variants", action="store_true", help="compare settings of this project instead")
    arguments = parser.parse_args(argv)
    manager = ModelManager(arguments.device, dtype=arguments.dtype)
    with manager.lend(find_checkpoint(arguments.model)) as pipeline, tempfile.TemporaryDirectory() as folder:
        print(f"{arguments.model} on {manager.describe_device()}; seconds: median (range) of {arguments.rounds}\n")
        if arguments.variants:
            plain, *others = variants_of(pipeline).items()
            wanted = dict([plain, *(row for row in others if arguments.only in row[0])])
            times = measured(wanted, arguments.rounds)
            first = median(times[plain[0]][0])
            print("| sampling, 8 frames, 10 steps | seconds | against the first |\n|---|---|---|")
            for name, [seconds] in times.items():
                print(f"| {name} | {told(seconds)} | {median(seconds) / first:.2f} |")
            return
        works = works_of(pipeline)
        if arguments.model == "toyland" and pipeline.device.type == "cpu":
            works["whole process to an MP4, {} frames, {} steps".format(*WHOLE_PROCESS)] = whole_process(Path(folder))
        works = {name: sides for name, sides in works.items() if arguments.only in name}
        times = measured(works, arguments.rounds)
    print("| work | ours | diffusers | theirs / ours |\n|---|---|---|---|")
    for name, [own, theirs] in times.items():
        print(f"| {name} | {told(own)} | {told(theirs)} | {median(theirs) / median(own):.2f} |")


if __name__ == "__main__":
    main()

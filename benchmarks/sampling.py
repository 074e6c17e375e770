"""`python -m benchmarks.sampling`: a clip by this project and by diffusers' own pipeline, on the same weights.

Every round runs all rows, one side after the other, and rows are compared by their medians, so that a busy machine
disturbs the ratios little; the ranges tell how much it did. With --variants it is the settings of this project that
are compared with one another. On a GPU, or with --shapes, it is models of random weights in the shapes of Stable
Diffusion 1.5 and XL, with the floor that arithmetic sets; --model brings a real one back.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.at_size import print_table
from benchmarks.clips import Run, measured, ours, paper_request, peer_of, told
from benchmarks.peer import PROMPT, sampled_by_peer
from benchmarks.shapes import SHAPES
from model_manager import ModelManager
from text2video_zero.device.devices import chosen_device
from text2video_zero.models.selection import find_checkpoint
from text2video_zero.requests.presets import PAPER
from text2video_zero.requests.video import REFERENCE_FRAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from text2video_zero.models.pipeline import Pipeline

ROOT = Path(__file__).resolve().parents[1]
# Frames, frames at a time, steps.
CLIPS = (8, 8, 50), (8, 8, 10), (16, 8, 10), (8, 4, 10), (8, 2, 10)
WHOLE_PROCESS = 8, 50


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


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="toyland, where nothing else is asked for")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, help="on a GPU sd15 and sdxl, if no model is named")
    parser.add_argument("--steps", type=int, default=10, help="with --shapes")
    parser.add_argument("--minutes", type=float, default=8, help="with --shapes; what they do not hold is left out")
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", metavar="WORDS", help="rows whose names have these words in them")
    parser.add_argument("--variants", action="store_true", help="compare settings of this project instead")
    arguments = parser.parse_args(argv)
    if arguments.shapes is None and not (arguments.model or arguments.variants or "cpu" in str(arguments.device)):
        arguments.shapes = ["sd15", "sdxl"] if chosen_device(arguments.device).type == "cuda" else None
    if arguments.shapes:
        print_table(arguments)
        return
    arguments.model = arguments.model or "toyland"
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

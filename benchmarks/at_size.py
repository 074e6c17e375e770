"""Clips at the sizes of Stable Diffusion 1.5 and XL: this project, diffusers, and the floor that arithmetic sets.

The floor is what torch counts of a clip's multiplications and additions, at the rate at which the device multiplies
large matrices in these numbers. Nothing else that a clip needs is in it: a run cannot be faster, and will be slower.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from math import isnan, nan
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from benchmarks.clips import measured, ours, paper_request, peer_of, seconds_of, told
from benchmarks.peer import sampled_by_peer
from benchmarks.shapes import SHAPES, write_model
from model_manager import ModelManager
from text2video_zero.device.devices import chosen_device, device_name
from text2video_zero.models.selection import find_checkpoint

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from benchmarks.clips import Run
    from text2video_zero.models.pipeline import Pipeline

MIB = 1 << 20
# Frames, and frames at a time, the most telling first: what the minutes do not hold is left out from the end.
CLIPS = (8, 8), (16, 8), (64, 8), (8, 4), (16, 16), (64, 64)
COMPILING = 60.0  # seconds that compiling takes at least, during which nothing can be left out any more
HEAD = (
    "| model | numbers | frames, at a time | ours, s | diffusers, s | theirs / ours | TFLOP | floor, s | ours / floor "
    "| ours, MiB | diffusers, MiB |\n|" + "---|" * 11
)


@dataclass(frozen=True)
class Group:
    """Rows that are measured side by side: of one model, loaded in one way."""

    shape: str
    dtype: str
    compiled: bool
    clips: tuple[tuple[int, int], ...]

    @property
    def weight(self) -> int:
        """Its part of the time, in rows; compiling takes as long as a few of them."""
        return len(self.clips) + 3 * self.compiled

    @property
    def numbers(self) -> str:
        """What the table calls them."""
        return self.dtype + self.compiled * ", compiled"


def groups_of(shapes: Sequence[str], dtypes: Sequence[str], *, compiled: bool) -> list[Group]:
    """All clips in the first numbers, the first clip in the others, and compiled."""
    first, *others = dtypes
    groups = [Group(shape, first, False, CLIPS) for shape in shapes]
    groups += [Group(shape, dtype, False, CLIPS[:1]) for dtype in others for shape in shapes]
    return groups + [Group(shape, first, True, CLIPS[:1]) for shape in shapes if compiled]


def flops_of(run: Run) -> int:
    """Multiplications and additions of a run, the attention of CPUs among them, which torch's own table lacks."""
    of_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001 - nothing else names it
    with FlopCounterMode(display=False, custom_mapping={of_cpu: _of_attention}) as counter:
        run()
    return counter.get_total_flops()


def _of_attention(query: torch.Size, key: torch.Size, value: torch.Size, *_others: object, **_named: object) -> int:
    return sdpa_flop_count(query, key, value)


def flops_by_frames(pipeline: Pipeline, steps: int) -> tuple[int, int]:
    """Of a clip, whatever its chunks: those that do not hang on its length, and those of each frame."""
    one, two = (flops_of(partial(ours, pipeline, paper_request(frames, 2, steps))) for frames in (1, 2))
    return 2 * one - two, two - one


def highest_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Multiplications and additions a second in the product of two large matrices, the best of five."""
    side, times = (8192, 10) if device.type == "cuda" else (512, 1)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def multiplied() -> None:
        for _ in range(times):
            torch.mm(left, right)

    multiplied()
    return 2 * side**3 * times / min(seconds_of(multiplied) for _ in range(5))


def sides_of(pipeline: Pipeline, group: Group, steps: int) -> dict[tuple[int, int], tuple[Run, ...]]:
    """By this project and by diffusers; compiled blocks are shared with theirs, so that they stay out of it."""
    peer = None if group.compiled else peer_of(pipeline)
    sides: dict[tuple[int, int], tuple[Run, ...]] = {}
    for frames, chunk_size in group.clips:
        own = partial(ours, pipeline, paper_request(frames, chunk_size, steps))
        sides[frames, chunk_size] = (own, partial(sampled_by_peer, peer, frames, steps, chunk_size)) if peer else (own,)
    return sides


def fitting(
    works: dict[tuple[int, int], tuple[Run, ...]], rounds: int, seconds: float
) -> dict[tuple[int, int], list[float]]:
    """Clips for which the seconds suffice, each run once beforehand, with the peak bytes of its sides.

    A frame is expected to take as long as it did in the clip before; the first clip is not asked.
    """
    began, needed, a_frame = time.perf_counter(), 0.0, 0.0
    peaks: dict[tuple[int, int], list[float]] = {}
    for clip, sides in works.items():
        expected = (1 + rounds) * clip[0] * a_frame
        if peaks and time.perf_counter() - began + needed + expected > seconds:
            continue
        runs = [_peak_of(run) for run in sides]
        peaks[clip] = [peak for _, peak in runs]
        spent = sum(took for took, _ in runs)
        needed, a_frame = needed + rounds * spent, spent / clip[0]
    return peaks


def _peak_of(run: Run) -> tuple[float, float]:
    """Seconds, and the bytes of tensors on a CUDA device at most; NaN bytes elsewhere, where nothing tells them."""
    if not torch.cuda.is_available():
        return seconds_of(run), float("nan")
    torch.cuda.reset_peak_memory_stats()
    return seconds_of(run), torch.cuda.max_memory_allocated()


@dataclass
class Bench:
    """What is measured on, and what is known so far.

    folder: where the models lie, by their shapes' names.  flops: of a clip by shape, see `flops_by_frames`.
    """

    device: torch.device
    folder: Path
    rounds: int
    steps: int
    flops: dict[str, tuple[int, int]] = field(default_factory=dict)

    def rows(self, group: Group, seconds: float) -> Iterator[str]:
        """The table's lines of one group, and one on what was left out."""
        began = time.perf_counter()
        if seconds < (COMPILING if group.compiled else 0):
            yield left_out(group, group.clips)
            return
        manager = ModelManager(str(self.device), dtype=group.dtype, compiled=group.compiled)
        with manager.lend(find_checkpoint(str(self._model(group.shape)))) as pipeline:
            if group.shape not in self.flops:
                self.flops[group.shape] = flops_by_frames(pipeline, self.steps)
            works = sides_of(pipeline, group, self.steps)
            peaks = fitting(works, self.rounds, seconds - (time.perf_counter() - began))
            times = measured({str(clip): works[clip] for clip in peaks}, self.rounds)
        rate = highest_rate(self.device, manager.dtype)
        for clip, bytes_of_sides in peaks.items():
            fixed, a_frame = self.flops[group.shape]
            yield row(group, clip, times[str(clip)], bytes_of_sides, fixed + a_frame * clip[0], rate)
        if missing := [clip for clip in works if clip not in peaks]:
            yield left_out(group, missing)

    def _model(self, shape: str) -> Path:
        folder = self.folder / shape
        if not folder.exists():
            write_model(SHAPES[shape], folder, self.device)
        return folder


def row(
    group: Group, clip: tuple[int, int], times: list[list[float]], peaks: list[float], flops: int, rate: float
) -> str:
    """A line of the table. Where there is no second side, its cells are empty."""
    own, *theirs = times
    floor = flops / rate
    cells = [SHAPES[group.shape].name, group.numbers, "{}, {}".format(*clip), told(own)]
    cells += [told(theirs[0]), f"{median(theirs[0]) / median(own):.2f}"] if theirs else ["", ""]
    cells += [f"{flops / 1e12:.3g}", f"{floor:.3g}", f"{median(own) / floor:.2f}"]
    cells += ["" if isnan(peak) else f"{peak / MIB:.0f}" for peak in (*peaks, nan)[:2]]
    return f"| {' | '.join(cells)} |"


def left_out(group: Group, clips: Sequence[tuple[int, int]]) -> str:
    """Says so in the table."""
    names = "; ".join("{}, {}".format(*clip) for clip in clips)
    return f"| {SHAPES[group.shape].name} | {group.numbers} | {names}: no time left |" + " |" * 8


def print_table(arguments: argparse.Namespace) -> None:
    """Measure the shapes that are asked for within the minutes, and print each group's lines as they come."""
    device, rounds, steps = chosen_device(arguments.device), arguments.rounds, arguments.steps
    on_cuda = device.type == "cuda"
    dtypes = [arguments.dtype] if arguments.dtype else ["float16", "bfloat16"] if on_cuda else ["float32"]
    print(f"{device_name(device)}, torch {torch.__version__}; {steps} steps; median (range) of {rounds}\n")
    print(HEAD, flush=True)
    end = time.monotonic() + 60 * arguments.minutes
    groups = groups_of(arguments.shapes, dtypes, compiled=on_cuda)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(device, Path(folder), rounds, steps)
        for number, group in enumerate(groups):
            share = group.weight / sum(other.weight for other in groups[number:])
            for line in bench.rows(group, share * (end - time.monotonic())):
                print(line, flush=True)

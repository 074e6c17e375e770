"""How near parallax comes to the truth: pictures of Toyland's renderer, whose depth is known, under a pan.

    python -m benchmarks.parallax --scenes 24

Displacements are read off, not estimated: a picture of each pixel's own place is moved in place of the scene.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from text2video_zero.models.catalogue import TOYLAND_FOLDER
from text2video_zero.requests.camera import BEGINNING
from text2video_zero.sampling.motion.parallax import DepthScale, Parallax
from text2video_zero.sampling.motion.split import SplitPose
from toyland.judges.reader import Reader, load_reader, read
from toyland.world.scene import random_scene, render

if TYPE_CHECKING:
    from toyland.world.scene import Rendering

SIDE, SEED = 128, 61
SHIFT = 0.1  # of the frame: four frames of the preset "Pan right"
STRENGTHS = (0.0, 0.25, 0.5, 1.0)
PART = 0.25  # nearest and farthest share of the pixels
MARGIN = 32  # pixels at the border, where a mirror is read


def displaced(depth: np.ndarray, strength: float) -> np.ndarray:
    """How far each pixel (h, w) reads to the right of itself, in pixels, by a depth."""
    ramp = np.repeat(np.tile(np.arange(SIDE, dtype=np.uint8), (SIDE, 1))[..., None], 3, -1)
    seen = Parallax(strength, DepthScale.of(depth)).seen(ramp, depth, SplitPose(BEGINNING, replace(BEGINNING, x=SHIFT)))
    return seen[..., 0].astype(np.float32) - ramp[..., 0]


def row(rendering: Rendering, reader: Reader, strength: float) -> tuple[float, ...]:
    """Near over far by the true depth and by the reader's, mean distance of the two in pixels, and CPU milliseconds."""
    reading = read(reader, rendering.image[None]).depth[0].numpy()
    began = time.process_time()
    found = displaced(cv2.resize(reading, (SIDE, SIDE)), strength)
    spent = 1000 * (time.process_time() - began)
    true = displaced(rendering.depth, strength)
    inner = (slice(None), slice(0, SIDE - MARGIN))
    found, true, depth = found[inner], true[inner], rendering.depth[inner]
    far, near = np.quantile(depth, (PART, 1 - PART))
    ratios = [float(np.median(way[depth >= near]) / np.median(way[depth <= far])) for way in (true, found)]
    return *ratios, float(np.abs(true - found).mean()), spent


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parallax", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scenes", type=int, default=24)
    rng, reader = np.random.default_rng(SEED), load_reader(TOYLAND_FOLDER / "reader")
    renderings = [render(random_scene(rng), SIDE) for _ in range(parser.parse_args().scenes)]
    print(
        "| parallax | near/far, true depth | near/far, reader's depth | apart, pixels | CPU ms a frame |\n"
        + 5 * "|---"
        + "|"
    )
    for strength in STRENGTHS:
        rows = np.array([row(rendering, reader, strength) for rendering in renderings])
        means, spread = rows.mean(0), rows[:, :2].std(0)
        cells = [f"{strength:g}", *(f"{m:.2f} ± {s:.2f}" for m, s in zip(means, spread, strict=False))]
        print(f"| {' | '.join(cells)} | {means[2]:.2f} | {np.median(rows[:, 3]):.0f} |", flush=True)


if __name__ == "__main__":
    main()

"""Numbers that say how much moves in a clip, how evenly, and whether as was asked. Pure functions on arrays."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from text2video_zero.evaluation.flow import camera_flow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from text2video_zero.evaluation.flow import Flows
    from text2video_zero.requests.camera import CameraPose

FASTEST = 0.05  # of the pixels; VBench
DYNAMIC_PIXELS, DYNAMIC_SIDE = 6.0, 256  # from this many a frame on, at this side, a pair of frames moves; VBench
DYNAMIC_PAIRS = 4 / 16  # of the frames, in which the clip must move; VBench
VBENCH_FPS = 8


def speeds(flows: Flows) -> np.ndarray:
    """Mean length of the flow of the fastest 5 % of the pixels, in pixels, (f - 1,)."""
    lengths = np.linalg.norm(flows.forward, axis=-1).reshape(len(flows.forward), -1)
    fastest = max(int(FASTEST * lengths.shape[1]), 1)
    return np.partition(lengths, -fastest, axis=1)[:, -fastest:].mean(1)


def is_dynamic(flows: Flows, fps: int) -> bool:
    """VBench's dynamic degree of one clip (Huang et al. 2024, section 3.2); its mean over clips is the score.

    A clip is dynamic if enough of its frames, seen eight a second, have a pair whose fastest pixels go further than 6
    pixels at a side of 256. Theirs is RAFT's flow; between frames that are left out flows add up here.
    """
    stride = max(round(fps / VBENCH_FPS), 1)
    height, width = flows.forward.shape[1:3]
    moved = np.add.reduceat(speeds(flows), np.arange(0, len(flows.forward), stride)) if len(flows.forward) else []
    pairs = np.count_nonzero(np.asarray(moved) > DYNAMIC_PIXELS * min(height, width) / DYNAMIC_SIDE)
    return bool(pairs >= max(round(DYNAMIC_PAIRS * (len(moved) + 1)), 1))


def jitter(tracked: Sequence[np.ndarray]) -> float:
    """Median length of the points' second differences over that of their first ones.

    Poses that are independent of one another come to 1.7, even motion to less than 0.5. nan where nothing is tracked.
    tracked: tracks (n, k, 2) over n frames.
    """
    differences = [[np.linalg.norm(np.diff(track, order, axis=0), axis=-1) for track in tracked] for order in (1, 2)]
    first, second = (np.concatenate([length.ravel() for length in lengths] or [np.empty(0)]) for lengths in differences)
    return float(np.median(second) / max(np.median(first), 1e-9)) if second.size else float("nan")


def following(flows: Flows, poses: Sequence[CameraPose], background: np.ndarray | None = None) -> tuple[float, float]:
    """How well the background moves as the camera was asked to.

    The first: its flow's share along the flow that the camera gives to what stands still, 1 = exactly, 0 = not at
    all; nan without movement.  The second: median distance of the two in pixels a frame, mean over the frames.
    background: (f, h, w) bool, by default all.
    """
    height, width = flows.forward.shape[1:3]
    along, asked_square, astray = 0.0, 0.0, []
    for number, (before, after) in enumerate(pairwise(poses)):
        where = slice(None) if background is None else background[number]
        found = flows.forward[number][where]
        asked = camera_flow(before, after, height, width)[where]
        along += float((found * asked).sum())
        asked_square += float(np.square(asked).sum())
        if found.size:
            astray.append(np.median(np.linalg.norm(found - asked, axis=-1)))
    return (
        along / asked_square if asked_square > 1e-9 else float("nan"),
        float(np.mean(astray)) if astray else float("nan"),
    )


def end_point_error(flows: Flows, source: Flows) -> float:
    """Mean distance in pixels between a video's flow and that of the clip it was made from (Otte and Nagel 1994).

    Over the pixels that the clip itself shows again; nan where there are none.
    """
    distance = np.linalg.norm(flows.forward - source.forward, axis=-1)[source.found_again]
    return float(distance.mean()) if distance.size else float("nan")

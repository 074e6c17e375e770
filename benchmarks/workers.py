"""`python -m benchmarks.workers`: how much sooner a long clip is there when two workers share it.

Two Ray workers on this machine, each with half of its cores; the same clip on one of them and on both, in turns.
"""

from __future__ import annotations

import argparse
import functools
import time
from statistics import median
from unittest import mock

from serving.runners import ray_pool
from serving.runners.ray_pool import RayRunner
from tests.served import on_the_cpu
from text2video_zero.job import Job, build_job

WORKERS = 2


def seconds(pool: RayRunner, job: Job, workers: int) -> float:
    """How long a job takes on so many workers, from the lease to the joined video."""
    with mock.patch.object(ray_pool, "useful_workers", return_value=workers):
        began = time.perf_counter()
        for _ in pool.run(job):
            pass
        took = time.perf_counter() - began
    while pool.free < WORKERS:
        time.sleep(0.1)
    return took


def main(argv: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    pool = RayRunner(f"local:{WORKERS}", functools.partial(on_the_cpu), gpus=False)
    pool.open()
    try:
        print("| frames | one worker, s | two workers, s | times as fast |\n|---|---|---|---|")
        for frames in options.frames:
            job = build_job("text-to-video", {"prompt": "a fox in the snow", "frames": frames, "steps": options.steps})
            seconds(pool, job, WORKERS)  # both have the model then
            rounds = [[seconds(pool, job, count) for count in (1, WORKERS)] for _ in range(options.rounds)]
            one, two = (median(column) for column in zip(*rounds, strict=True))
            print(f"| {frames} | {one:.1f} | {two:.1f} | {one / two:.2f} |", flush=True)
    finally:
        pool.close()


if __name__ == "__main__":
    main()

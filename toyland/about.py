"""The moving pictures of the page's "About": what each part of the method does, ``python -m toyland.about``.

Each shows videos beside each other that differ in one setting alone, made by Toyland on the same path as everybody's.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model_manager import ModelManager
from text2video_zero.events import Finished
from text2video_zero.generate import generate
from text2video_zero.job import build_job
from text2video_zero.media.video import Video

if TYPE_CHECKING:
    from collections.abc import Mapping

    from text2video_zero.job import Job

__all__ = ["COMPARISONS", "jobs_of", "write_comparison"]

FRAMES, FPS, GAP = 16, 8, 8
# The app's own settings make up for much of what one part does by itself: here it stands alone.
ALONE = {"motion_smoothness": 0.0}
UNSTEADY = ALONE | {"resampling": "nearest", "restart": False, "motion_from": 681, "motion_to": 781}
# What words leave open is what frames agree on by looking at the first.
COLOURLESS = ALONE | {"motion": False, "prompt": "somebody in the snow"}

COMPARISONS: dict[str, tuple[Mapping[str, object], ...]] = {
    "motion": tuple(ALONE | {"motion": on} for on in (False, True)),
    "attention": tuple(COLOURLESS | {"cross_frame_attention": on} for on in (False, True)),
    "smoothing": tuple(UNSTEADY | {"smooth_background": on, "smoothing_strength": 1.0} for on in (False, True)),
    "smoothness": tuple({"motion_smoothness": over} for over in (0.0, 2.0, 4.0)),
    "movement": tuple({"movement": what} for what in ("none", "dance", "jump")),
}
"""Name of a picture -> what the request of each of its videos has, from left to right."""

ASKED = {"prompt": "a red panda dancing in the snow", "seed": 7, "frames": FRAMES, "fps": FPS, "movement": "none"}


def jobs_of(name: str) -> list[Job]:
    """What each video of a comparison is made of, from left to right."""
    return [build_job("text-to-video", ASKED | dict(values), model="toyland") for values in COMPARISONS[name]]


def write_comparison(name: str, models: ModelManager, folder: Path) -> Path:
    """Make the videos of a comparison, and one MP4 that has them beside each other, GAP white pixels between."""
    made: list[np.ndarray] = []
    for job in jobs_of(name):
        with models.lend(job.checkpoint) as pipeline:
            made += [
                np.asarray(event.video.frames)
                for event in generate(job.request, pipeline, models)
                if isinstance(event, Finished)]
    spaced = [np.pad(frames, ((0, 0), (0, 0), (GAP, 0), (0, 0)), constant_values=255) for frames in made]
    beside = np.concatenate([made[0], *spaced[1:]], axis=2)
    return Video(beside, FPS, {}).save(folder / f"{name}.mp4")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m toyland.about", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/about"))
    parser.add_argument("--device", default="cpu", help="other devices make slightly other videos")
    parser.add_argument("--only", action="append", choices=COMPARISONS, help="this one; may be repeated")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    models = ModelManager(options.device)
    for name in options.only or COMPARISONS:
        path = write_comparison(name, models, options.out)
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()

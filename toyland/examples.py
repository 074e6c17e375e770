"""The results that the page shows before anybody has made one: ``python -m toyland.examples``.

They are made by Toyland from the clips of ``toyland.world.clips``, on the same path as everybody's videos.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model_manager import ModelManager
from text2video_zero.events import ClipFrames, ControlMaps, Finished
from text2video_zero.generate import generate
from text2video_zero.job import control_of
from text2video_zero.media.clips import read_clip
from text2video_zero.media.video import Video
from text2video_zero.models.catalogue import TOYLAND
from text2video_zero.models.selection import checkpoint_for, offered_models
from text2video_zero.requests import REQUESTS, Size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from text2video_zero.requests import VideoRequest

__all__ = ["RESULTS", "order", "write_result", "write_strip"]

CLIPS = Path("assets/clips")

RESULTS: dict[str, Mapping[str, object]] = {
    "text-to-video": {"prompt": "a red panda dancing in the snow"},
    "pose": {
        "clip": "dancing-skeleton", "prompt": "a white astronaut dancing on the moon",
        "ready_made": "yes"},
    "edge": {
        "clip": "walking-fox", "prompt": "a purple fox walking in the snow", "ready_made": "no"},
    "depth": {
        "clip": "depth-fly-by", "prompt": "a red robot walking in the city", "ready_made": "yes"},
    "dreambooth": {
        "clip": "dancing-panda", "prompt": "a red panda dancing in the snow", "control": "edge",
        "ready_made": "no"},
    "instruct-pix2pix": {"clip": "panda-in-a-meadow", "prompt": "put it in the snow"},
}
"""Task -> what the example asks for; SEED where it names none."""

FRAMES, FPS, SEED = 16, 8, 7
_STRIP_SIDE = 128


def order(task: str, model: str) -> VideoRequest:
    """The request of a task's example, with what suits the model."""
    request_type = REQUESTS[task]
    fields = {name for name, _, _ in request_type.declarations()}
    defaults = next(known.defaults for known in offered_models(task) if known.name == model)
    asked = {"frames": FRAMES, "seed": SEED, **RESULTS[task]}
    if "clip" in asked:
        asked["clip"] = (CLIPS / f"{asked['clip']}.mp4").as_posix()
    return request_type.from_dict({**{k: v for k, v in defaults.items() if k in fields}, **asked})


def model_of(task: str) -> str | None:
    """The name of the embedded model that shows a task, None while it has not been trained."""
    embedded = [model.name for model in offered_models(task) if model.family == TOYLAND.family]
    return embedded[0] if embedded else None


def write_result(task: str, model: str, models: ModelManager, folder: Path) -> Iterator[Path]:
    """Make a task's example; writes the video and, for tasks with a clip, what plays beside it."""
    request = order(task, model)
    with models.lend(checkpoint_for(task, model, control=control_of(request))) as pipeline:
        for event in generate(request, pipeline, models):
            match event:
                case ControlMaps(frames) | ClipFrames(frames):
                    yield Video(frames, request.fps, {}).save(folder / f"{task}-guide.mp4")
                case Finished(video):
                    yield video.save(folder / f"{task}.mp4")
                case _:
                    pass


def write_strip(folder: Path, path: Path) -> Path:
    """One picture that moves: what the examples in a folder begin with, and below what was made of it."""
    rows = [
        [_frames(folder / f"{task}{part}.mp4") for task in RESULTS if task != "text-to-video"]
        for part in ("-guide", "")]
    frames = np.concatenate([np.concatenate(row, axis=2) for row in rows], axis=1)
    return Video(frames, FPS, {}).save(path)


def _frames(path: Path) -> np.ndarray:
    """Frames uint8 (f, 128, 128, 3) with a white edge around them."""
    side = Size(_STRIP_SIDE, _STRIP_SIDE)
    clip = read_clip(path, first_frame=0, frames=FRAMES, fps=FPS, size=side, native=side)
    return np.pad(np.asarray(clip.frames), ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=255)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m toyland.examples", description=__doc__)
    parser.add_argument("--out", type=Path, default=CLIPS / "results")
    parser.add_argument("--device", default="cpu", help="other devices make slightly other videos")
    parser.add_argument("--task", action="append", choices=REQUESTS, help="this one; may be repeated")
    parser.add_argument("--strip", type=Path, help="show all of them in one GIF, for the README")
    options = parser.parse_args()
    models = ModelManager(options.device)
    for task in options.task or REQUESTS:
        model = model_of(task)
        if model is None:
            print(f"{task}: no embedded model yet, left out")
            continue
        for path in write_result(task, model, models, options.out):
            print(f"{path}  {path.stat().st_size / 1000:.0f} kB", flush=True)
    if options.strip:
        write_strip(options.out, options.strip)


if __name__ == "__main__":
    main()

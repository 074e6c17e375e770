"""`python -m benchmarks.time_axis`: how steadily and how willingly Toyland's clips move, by setting.

For every combination of T'/T, motion smoothness and movement of the latents the same prompts and seeds are sampled
under the same camera. Steadiness alone is no merit, a still picture has most of it: beside it stand the jitter of
the subject's joints, how far the background follows the camera that was asked for, and what the judge sees.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from model_manager import ModelManager
from text2video_zero.evaluation.metrics import flow_warp_error, optical_flow
from text2video_zero.events import result_of
from text2video_zero.generate import sample
from text2video_zero.models.catalogue import TOYLAND_FOLDER, known_model
from text2video_zero.models.selection import find_checkpoint
from text2video_zero.requests import TextToVideoRequest
from text2video_zero.requests.camera import CAMERA_PRESETS, CameraPose
from text2video_zero.requests.text_to_video import RESAMPLING
from text2video_zero.sampling.decoding import decoded_frames
from text2video_zero.sampling.motion.camera import CameraPath, sample_positions
from text2video_zero.sampling.motion.noise import NoiseScene
from text2video_zero.sampling.motion.warp import warp
from text2video_zero.sampling.noise import frame_noise
from toyland.judges.evaluate import score
from toyland.judges.judge import Judge, load_judge
from toyland.judges.reader import Reader, load_reader, read
from toyland.world.bipeds import BIPEDS
from toyland.world.captions import plain_caption
from toyland.world.scene import Scene, random_scene

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from text2video_zero.models.pipeline import Pipeline


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    motion_from: int
    motion_to: int
    motion_smoothness: float
    resampling: str
    camera: str

    @property
    def name(self) -> str:
        """The row's title."""
        return f"{self.camera} | {self.motion_from}/{self.motion_to} | {self.motion_smoothness:g} | {self.resampling}"


@dataclass(frozen=True)
class Scores:
    """One clip.

    warp_error: along the optical flow, in thousandths (Lai et al. 2018).  change: mean absolute difference of
    neighbouring frames, of 255.  first_change: that of frames 0 and 1 alone.
    jitter: median length of the joints' second differences over that of their first ones: independent poses come
    to 1.7, even motion to less than 0.5.
    followed: how far the background moves as the camera was asked to, 1 = exactly, 0 = not at all; nan without
    movement.  astray: median distance of the background's flow from that of the camera, in pixels a frame.
    right: share of frames in which the judge sees subject, colour and place of the prompt.
    """

    warp_error: float
    change: float
    first_change: float
    jitter: float
    followed: float
    astray: float
    right: float


def camera_flow(before: CameraPose, after: CameraPose, height: int, width: int) -> np.ndarray:
    """Flow (height, width, 2) in pixels that the camera's movement gives to what stands still."""
    x, y = (positions.numpy() for positions in sample_positions(before, height, width))
    x, y = x - (width - 1) / 2 - after.x * width, y - (height - 1) / 2 - after.y * height
    cos, sin = np.cos(after.angle) * after.scale, np.sin(after.angle) * after.scale
    seen = np.stack([cos * x + sin * y + (width - 1) / 2, cos * y - sin * x + (height - 1) / 2], -1)
    return seen - np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)


def following(frames: np.ndarray, background: np.ndarray, poses: Sequence[CameraPose]) -> tuple[float, float]:
    """`followed` and `astray` of `Scores`; background: (f, h, w) bool."""
    height, width = frames.shape[1:3]
    along, asked_square, astray = 0.0, 0.0, []
    for number in range(len(frames) - 1):
        found = optical_flow(frames[number], frames[number + 1])[background[number]]
        asked = camera_flow(poses[number], poses[number + 1], height, width)[background[number]]
        along += float((found * asked).sum())
        asked_square += float(np.square(asked).sum())
        astray.append(np.median(np.linalg.norm(found - asked, axis=-1)))
    return (along / asked_square if asked_square else float("nan")), float(np.mean(astray))


def jitter(keypoints: np.ndarray) -> float:
    """`jitter` of `Scores`; keypoints: (f, k, 2)."""
    first, second = (np.linalg.norm(np.diff(keypoints, order, axis=0), axis=-1) for order in (1, 2))
    return float(np.median(second) / max(np.median(first), 1e-9))


def scores_of(frames: np.ndarray, scene: Scene, poses: Sequence[CameraPose], judge: Judge, reader: Reader) -> Scores:
    """Measure one clip."""
    reading = read(reader, frames)
    height, width = frames.shape[1:3]
    background = np.stack([cv2.resize(mask, (width, height)) for mask in reading.mask.numpy()]) < 0.5
    changes = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean((1, 2, 3))
    followed, astray = following(frames, background, poses)
    return Scores(
        warp_error=1000 * flow_warp_error(frames),
        change=float(changes.mean()),
        first_change=float(changes[0]),
        jitter=jitter(reading.keypoints.numpy()) if scene.subject in BIPEDS else float("nan"),
        followed=followed,
        astray=astray,
        right=score(judge, frames, [scene] * len(frames)).right["all"],
    )


def clip(pipeline: Pipeline, request: TextToVideoRequest) -> np.ndarray:
    """Frames (f, h, w, 3) uint8 of a request."""
    sampled = result_of(sample(request, pipeline))
    return np.stack(list(decoded_frames(pipeline.components.vae, sampled.latents)))


def scenes(count: int, seed: int) -> list[Scene]:
    """Scenes to ask for, all with two legs, for their joints can be read."""
    rng = np.random.default_rng(seed)
    subjects = list(BIPEDS)
    return [random_scene(rng, subject=subjects[number % len(subjects)]) for number in range(count)]


def settings(chosen: argparse.Namespace) -> Iterator[Setting]:
    """The grid that the command line spans."""
    for camera, span, smoothness, resampling in itertools.product(
        chosen.cameras, chosen.spans, chosen.smoothness, chosen.resampling
    ):
        motion_from, motion_to = map(int, span.split("/"))
        yield Setting(motion_from, motion_to, smoothness, resampling, camera)


def row(setting: Setting, rows: Sequence[Scores]) -> str:
    """Markdown: means over the clips."""
    columns = [np.array([getattr(clip, field.name) for clip in rows]) for field in fields(Scores)]
    known = [column[np.isfinite(column)] for column in columns]
    return f"| {setting.name} | {' | '.join(f'{column.mean():.2f}' if len(column) else '-' for column in known)} |"


def request_of(setting: Setting, scene: Scene, seed: int, chosen: argparse.Namespace) -> TextToVideoRequest:
    """What is sampled for a row and a scene."""
    known = known_model(chosen.model)
    given = {
        "prompt": plain_caption(scene),
        "seed": seed,
        "frames": chosen.frames,
        "loop": chosen.loop,
        "motion_from": setting.motion_from,
        "motion_to": setting.motion_to,
        "motion_smoothness": setting.motion_smoothness,
        "resampling": setting.resampling,
    }
    return TextToVideoRequest(**{**(dict(known.defaults) if known else {}), **given, **CAMERA_PRESETS[setting.camera]})


def poses_of(request: TextToVideoRequest) -> list[CameraPose]:
    """The camera that a request asks for, at each frame."""
    speeds = request.pan_x, request.pan_y, request.zoom, request.rotation
    path = CameraPath(*speeds, request.reach, request.frames if request.loop else None)
    return [path.pose(frame) for frame in range(request.frames)]


def save_sheet(clips: Sequence[np.ndarray], path: Path) -> None:
    """Clips (f, h, w, 3) as rows of one picture."""
    rows = [np.concatenate(list(frames), axis=1) for frames in clips]
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))


def whiteness_table(frames: int, seeds: int = 32) -> str:
    """Markdown: how white noise of 4x64x64 is after the movement of the latents, and what keeping it so costs.

    lag-1: the larger of the mean products of neighbours in a row and in a column, at the worst frame.
    """
    shape = (4, 64, 64)
    lines = [
        "| camera | lag-1, smooth | lag-1, white | std, smooth | std, white | ms a frame, white |",
        "|---|" + "---|" * 5,
    ]
    for camera, speeds in CAMERA_PRESETS.items():
        path = CameraPath(**speeds, reach=0.25)
        sums, seconds = np.zeros((frames, 2, 3)), 0.0
        for seed in range(seeds):
            noise, scene = frame_noise(seed, 0, shape, "cpu"), NoiseScene(seed, shape)
            scene.seen(noise, CameraPose(0, 0, 1.01, 0))  # what is drawn once does not count
            for frame in range(frames):
                pose = path.pose(frame + 1)
                began = time.process_time()
                white = scene.seen(noise, pose)
                seconds += time.process_time() - began
                for column, seen in enumerate((warp(noise, pose), white)):
                    below, beside = seen[:, 1:] * seen[:, :-1], seen[..., 1:] * seen[..., :-1]
                    sums[frame, column] += [seen.square().mean(), below.mean(), beside.mean()]
        means = sums / seeds
        lags = np.abs(means[:, :, 1:]).max((0, 2))
        deviations = np.sqrt(means[:, :, 0])
        worst = deviations[np.abs(deviations - 1).argmax(0), [0, 1]]
        cells = [*(f"{value:.3f}" for value in (*lags, *worst)), f"{1000 * seconds / seeds / frames:.1f}"]
        lines.append(f"| {camera} | {' | '.join(cells)} |")
    return "\n".join(lines)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.time_axis", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="toyland", help="a model that knows Toyland's words")
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--spans", nargs="+", default=["681/781"], metavar="FROM/TO", help="T'/T")
    parser.add_argument("--smoothness", nargs="+", type=float, default=[0.0, 1.5, 4.0], help="τ in frames")
    parser.add_argument("--resampling", nargs="+", choices=RESAMPLING, default=["smooth"])
    parser.add_argument("--cameras", nargs="+", choices=list(CAMERA_PRESETS), default=["Pan right"])
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("--seed", type=int, default=2000)
    parser.add_argument("--whiteness", action="store_true", help="measure the start noise alone, and sample nothing")
    parser.add_argument("--sheets", type=Path, help="folder for a contact sheet of each scene, one row per setting")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table row by row."""
    chosen = parsed(arguments)
    if chosen.whiteness:
        print(whiteness_table(chosen.frames))
        return
    judge, reader = load_judge(TOYLAND_FOLDER / "judge"), load_reader(TOYLAND_FOLDER / "reader")
    asked = scenes(chosen.prompts, chosen.seed)
    clips: list[list[np.ndarray]] = [[] for _ in asked]
    titles = [field.name.replace("_", " ") for field in fields(Scores)]
    print(f"| camera | T'/T | τ | movement | {' | '.join(titles)} |\n|{'---|' * (4 + len(titles))}")
    began = time.perf_counter()
    with ModelManager("cpu").lend(find_checkpoint(chosen.model)) as pipeline, torch.inference_mode():
        for setting in settings(chosen):
            rows = []
            for number, scene in enumerate(asked):
                request = request_of(setting, scene, chosen.seed + number, chosen)
                frames = clip(pipeline, request)
                rows.append(scores_of(frames, scene, poses_of(request), judge, reader))
                clips[number].append(frames)
            print(row(setting, rows), flush=True)
    count = sum(map(len, clips))
    print(f"\n{count} clips, {(time.perf_counter() - began) / max(count, 1):.1f} s each")
    if chosen.sheets:
        chosen.sheets.mkdir(parents=True, exist_ok=True)
        for number, (scene, rows) in enumerate(zip(asked, clips, strict=True)):
            save_sheet(rows, chosen.sheets / f"{number} {plain_caption(scene)}.png")


if __name__ == "__main__":
    main()

"""Example clips for the tasks that begin with one: ``python -m toyland.world.clips --out assets/clips``.

Every clip ends where it began, so that it plays endlessly without a jump.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from text2video_zero.control.pose import draw_skeletons
from text2video_zero.media.video import Video
from toyland.world.scene import Rendering, Scene, render

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CLIPS", "ExampleClip", "frames_of", "write_clips"]

FRAMES, FPS, SIDE = 16, 8, 256


def picture(rendering: Rendering) -> np.ndarray:
    """The scene as a camera sees it, uint8 (h, w, 3)."""
    return rendering.image


def skeleton_map(rendering: Rendering) -> np.ndarray:
    """The subject's skeleton in OpenPose's drawing, uint8 (h, w, 3)."""
    return draw_skeletons(rendering.skeleton[None], *rendering.image.shape[:2])


def depth_map(rendering: Rendering) -> np.ndarray:
    """Depth as grey, near is bright, uint8 (h, w, 3)."""
    return np.repeat(np.round(rendering.depth * 255).astype(np.uint8)[..., None], 3, axis=-1)


@dataclass(frozen=True)
class ExampleClip:
    """A scene in motion.

    scene: its first frame. cycles: how often the action repeats. sway: how far the subject walks
    to and fro; pan: the same for the camera; both in fractions of the frame. look: what of each
    rendering is drawn.
    """

    scene: Scene
    cycles: int = 1
    sway: float = 0.0
    pan: float = 0.0
    look: Callable[[Rendering], np.ndarray] = picture

    def at(self, moment: float) -> Scene:
        """The scene at a moment in [0, 1)."""
        wave = float(np.sin(2 * np.pi * moment))
        return replace(
            self.scene, phase=(self.cycles * moment) % 1, x=self.scene.x + self.sway * wave,
            pan=self.scene.pan + self.pan * wave)


CLIPS = {
    "dancing-skeleton": ExampleClip(
        Scene("person", "red", "meadow", "dancing", height=0.76), cycles=2, look=skeleton_map),
    "walking-skeleton": ExampleClip(
        Scene("person", "red", "meadow", "walking", height=0.74), cycles=2, sway=0.06,
        look=skeleton_map),
    "walking-fox": ExampleClip(
        Scene("fox", "orange", "meadow", "walking", "sunny", y=0.64, height=0.56, detail_seed=4),
        cycles=2, pan=0.06),
    "dancing-panda": ExampleClip(
        Scene("panda", "red", "snow", "dancing", height=0.74, detail_seed=11), cycles=2),
    "depth-fly-by": ExampleClip(
        Scene("astronaut", "white", "city", "walking", height=0.66, y=0.6, detail_seed=6),
        cycles=2, pan=0.16, look=depth_map),
    "depth-horse": ExampleClip(
        Scene("horse", "white", "desert", "walking", height=0.66, y=0.6, detail_seed=3),
        cycles=2, pan=0.08, look=depth_map),
    "panda-in-a-meadow": ExampleClip(
        Scene("panda", "red", "meadow", "walking", "sunny", height=0.7, y=0.6, detail_seed=8),
        cycles=2, sway=0.04),
    "car-on-the-beach": ExampleClip(
        Scene("car", "yellow", "beach", "standing", "sunny", y=0.68, height=0.46, detail_seed=5),
        pan=0.08),
}
"""Name of the file -> what it shows."""


def frames_of(clip: ExampleClip, side: int = SIDE) -> np.ndarray:
    """All frames of a clip, uint8 (f, side, side, 3)."""
    return np.stack([clip.look(render(clip.at(k / FRAMES), side)) for k in range(FRAMES)])


def write_clips(folder: Path) -> list[Path]:
    """Write every clip as an MP4 and return the paths; the same files in every run."""
    return [
        Video(frames_of(clip), FPS, {}).save(folder / f"{name}.mp4")
        for name, clip in CLIPS.items()]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m toyland.world.clips", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/clips"))
    for path in write_clips(parser.parse_args().out):
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

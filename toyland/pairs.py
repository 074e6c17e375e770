"""Clips with prompts that go with them, for tasks that begin with a clip: many, and no two alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from text2video_zero.media.video import Video
from toyland.world.captions import plain_caption
from toyland.world.clips import FPS, ExampleClip, frames_of, picture
from toyland.world.edits import instructions, random_edit
from toyland.world.scene import COLORS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from toyland.world.scene import Rendering, Scene

__all__ = ["ClipPrompt", "edited", "recolored", "save_clips"]

_SEED = 3_000
_PAN = 0.08  # there and back in 16 frames: at most 4 of 128 pixels a frame
_JUDGED = ("color", "subject", "place")  # edits whose success Toyland's judge can tell


@dataclass(frozen=True)
class ClipPrompt:
    """A clip and what is asked for.

    shows: the first frame of what a video that does as it was told shows.
    """

    clip: ExampleClip
    prompt: str
    shows: Scene


def recolored(scenes: Sequence[Scene], look: Callable[[Rendering], np.ndarray]) -> list[ClipPrompt]:
    """For controls: the scene in motion, and the caption of the same in another colour. look: what the clip shows."""
    rng = np.random.default_rng(_SEED)
    wanted = [replace(scene, color=str(rng.choice([c for c in COLORS if c != scene.color]))) for scene in scenes]
    return [ClipPrompt(_in_motion(scene, look), plain_caption(after), after)
            for scene, after in zip(scenes, wanted, strict=True)]


def edited(scenes: Sequence[Scene]) -> list[ClipPrompt]:
    """For instructions: the scene in motion, and one that asks for another colour, subject or place."""
    rng = np.random.default_rng(_SEED)
    edits = []
    for scene in scenes:
        edit = random_edit(scene, rng)
        while edit.kind not in _JUDGED:
            edit = random_edit(scene, rng)
        edits.append(ClipPrompt(_in_motion(scene, picture), instructions(edit)[0], edit.after))
    return edits


def _in_motion(scene: Scene, look: Callable[[Rendering], np.ndarray]) -> ExampleClip:
    return ExampleClip(scene, cycles=2, pan=_PAN, look=look)


def save_clips(pairs: Sequence[ClipPrompt], folder: Path) -> list[Path]:
    """Write their clips as MP4 and return the paths; what is there already is taken for the same."""
    paths = [folder / f"{number:04}.mp4" for number in range(len(pairs))]
    for pair, path in zip(pairs, paths, strict=True):
        if not path.exists():
            Video(frames_of(pair.clip), FPS, {}).save(path)
    return paths

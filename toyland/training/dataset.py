"""Pictures of the world, rendered once and kept on disk as bytes."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from toyland.world.scene import COLORS, PLACES, SUBJECTS, Scene, random_scene, render
from toyland.world.skeleton import KEYPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = [
    "ARRAYS", "Pictures", "drawing_pool", "face_discs", "is_held_out", "load_pictures", "render_pictures", "scenes",
]

_CHUNK = 250
_HOLD_OUT_EVERY = 12
_PEOPLE_TIMES = 3


ARRAYS = ("images", "masks", "depths", "skeletons", "faces")
"""The fields of `Pictures` that are arrays."""


@dataclass(frozen=True)
class Pictures:
    """Pictures with their ground truth; the arrays are memory-mapped.

    images: uint8 (n, h, w, 3) RGB. masks: uint8 (n, h, w), 255 = subject. depths: uint8 (n, h, w),
    255 = near. skeletons: float32 (n, 18, 3), faces: float32 (n, 3), see `Rendering`; zeros where a
    subject has none.
    """

    images: np.ndarray
    masks: np.ndarray
    depths: np.ndarray
    skeletons: np.ndarray
    faces: np.ndarray
    scenes: list[Scene]

    @property
    def closing_rows(self) -> np.ndarray:
        """Rows, int64 (m,), that the generators' last trainings draw from: subjects that face right, people threefold.

        A model that is shown both sides, and told neither, draws animals with two heads. People differ more than
        others (skin, hair), and their faces come last.
        """
        times = [(scene.facing > 0) * (_PEOPLE_TIMES if scene.subject == "person" else 1) for scene in self.scenes]
        return np.repeat(np.arange(len(self.scenes)), times)


def face_discs(faces: np.ndarray, side: int) -> np.ndarray:
    """255 on each face (n, 3) and 0 elsewhere, uint8 (n, side, side)."""
    centres = (np.arange(side) + 0.5) / side
    x, y, radius = (faces[:, column, None, None] for column in range(3))
    inside = np.hypot(centres[None, None, :] - x, centres[None, :, None] - y) < radius
    return 255 * inside.astype(np.uint8)


def is_held_out(scene: Scene) -> bool:
    """Whether no generator may see this subject, colour and place together: one in twelve.

    The pattern is a lattice, so that every subject loses as many colours and places as any other.
    """
    row = SUBJECTS.index(scene.subject)
    number = row + 5 * COLORS.index(scene.color) + 7 * PLACES.index(scene.place)
    return number % _HOLD_OUT_EVERY == 0


def scenes(
    count: int, seed: int, *, held_out: bool | None = False,
    shown: Callable[[Scene], bool] = lambda _: True,
) -> list[Scene]:
    """Random scenes of those that are shown.

    held_out: only trained-on combinations, only held-out ones, or None: any.
    """
    rng = np.random.default_rng(seed)
    drawn: list[Scene] = []
    while len(drawn) < count:
        scene = random_scene(rng)
        if shown(scene) and (held_out is None or is_held_out(scene) == held_out):
            drawn.append(scene)
    return drawn


_NO_FACE = (0.0, 0.0, 0.0)


def _render_chunk(chunk: list[Scene], size: int) -> dict[str, np.ndarray]:
    """The arrays of Pictures, by their names."""
    made = [render(scene, size) for scene in chunk]
    return {
        "images": np.stack([r.image for r in made]),
        "masks": np.stack([np.round(r.mask * 255).astype(np.uint8) for r in made]),
        "depths": np.stack([np.round(r.depth * 255).astype(np.uint8) for r in made]),
        "skeletons": np.stack([r.skeleton for r in made]),
        "faces": np.array([r.face or _NO_FACE for r in made], np.float32),
    }


def drawing_pool(workers: int | None = None) -> ProcessPoolExecutor:
    """Processes that draw, one for each core.

    OpenCV's threads are ended before the processes are forked, which would inherit their locks; such small
    pictures are drawn as fast by one.
    """
    cv2.setNumThreads(1)
    return ProcessPoolExecutor(workers or os.cpu_count())


def render_pictures(
    folder: Path, count: int, size: int, seed: int, *, held_out: bool | None = False,
    shown: Callable[[Scene], bool] = lambda _: True, workers: int | None = None,
) -> Pictures:
    """Render pictures of `scenes` into a folder, or load those that are complete there."""
    if (folder / "scenes.json").exists():
        return load_pictures(folder)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = scenes(count, seed, held_out=held_out, shown=shown)
    kinds = {"images": (np.uint8, (size, size, 3)), "masks": (np.uint8, (size, size)),
             "depths": (np.uint8, (size, size)), "skeletons": (np.float32, (len(KEYPOINTS), 3)),
             "faces": (np.float32, (len(_NO_FACE),))}
    arrays = {name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, (count, *shape))
              for name, (kind, shape) in kinds.items()}
    chunks = [drawn[i : i + _CHUNK] for i in range(0, count, _CHUNK)]
    with drawing_pool(workers) as pool:
        rendered = pool.map(_render_chunk, chunks, [size] * len(chunks))
        for number, made in enumerate(rendered):
            for name, rows in made.items():
                arrays[name][number * _CHUNK : number * _CHUNK + len(rows)] = rows
    for array in arrays.values():
        array.flush()
    (folder / "scenes.json").write_text(json.dumps([asdict(scene) for scene in drawn]))
    return load_pictures(folder)


def load_pictures(folder: Path) -> Pictures:
    """Pictures that `render_pictures` has left in a folder."""
    records = json.loads((folder / "scenes.json").read_text())
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r")
              for name in ARRAYS}
    return Pictures(**arrays, scenes=[Scene(**r) for r in records])

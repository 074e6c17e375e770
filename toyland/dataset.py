"""Pictures of the world, rendered once and kept on disk as bytes."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from toyland.world import COLORS, PLACES, SUBJECTS, Scene, random_scene, render

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Pictures", "is_held_out", "load_pictures", "render_pictures", "scenes"]

_CHUNK = 250
_HOLD_OUT_EVERY = 12


@dataclass(frozen=True)
class Pictures:
    """images: uint8 (n, h, w, 3) RGB; masks: uint8 (n, h, w), 255 = subject; both memory-mapped."""

    images: np.ndarray
    masks: np.ndarray
    scenes: list[Scene]


def is_held_out(scene: Scene) -> bool:
    """Whether no generator may see this subject, colour and place together: one in twelve.

    The pattern is a lattice, so that every subject loses as many colours and places as any other.
    """
    row = SUBJECTS.index(scene.subject)
    number = row + 5 * COLORS.index(scene.color) + 7 * PLACES.index(scene.place)
    return number % _HOLD_OUT_EVERY == 0


def scenes(count: int, seed: int, *, held_out: bool | None = False) -> list[Scene]:
    """Random scenes; held_out: only trained-on combinations, only held-out ones, or None: any."""
    rng = np.random.default_rng(seed)
    drawn: list[Scene] = []
    while len(drawn) < count:
        scene = random_scene(rng)
        if held_out is None or is_held_out(scene) == held_out:
            drawn.append(scene)
    return drawn


def _render_chunk(chunk: list[Scene], size: int) -> tuple[np.ndarray, np.ndarray]:
    renderings = [render(scene, size) for scene in chunk]
    masks = np.stack([np.round(r.mask * 255).astype(np.uint8) for r in renderings])
    return np.stack([r.image for r in renderings]), masks


def render_pictures(
    folder: Path, count: int, size: int, seed: int, *, held_out: bool | None = False,
    workers: int | None = None,
) -> Pictures:
    """Render pictures into a folder, or load those that are complete there."""
    if (folder / "scenes.json").exists():
        return load_pictures(folder)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = scenes(count, seed, held_out=held_out)
    images = np.lib.format.open_memmap(
        folder / "images.npy", "w+", np.uint8, (count, size, size, 3))
    masks = np.lib.format.open_memmap(folder / "masks.npy", "w+", np.uint8, (count, size, size))
    chunks = [drawn[i : i + _CHUNK] for i in range(0, count, _CHUNK)]
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        rendered = pool.map(_render_chunk, chunks, [size] * len(chunks))
        for number, (chunk_images, chunk_masks) in enumerate(rendered):
            rows = slice(number * _CHUNK, number * _CHUNK + len(chunk_images))
            images[rows], masks[rows] = chunk_images, chunk_masks
    images.flush()
    masks.flush()
    (folder / "scenes.json").write_text(json.dumps([asdict(scene) for scene in drawn]))
    return load_pictures(folder)


def load_pictures(folder: Path) -> Pictures:
    """Pictures that `render_pictures` has left in a folder."""
    records = json.loads((folder / "scenes.json").read_text())
    return Pictures(np.load(folder / "images.npy", mmap_mode="r"),
                    np.load(folder / "masks.npy", mmap_mode="r"), [Scene(**r) for r in records])

"""The defect judge: whether a subject is drawn soundly, told from renders with and without a defect.

Every scene is seen twice in a batch, sound and spoiled, both blurred and noisy alike, so that only the
drawing tells them apart. Where they differ is known, so the judge is taught to point at it: every cell of a
picture is a lesson, which a verdict on the whole picture alone would take a hundred times as long to teach.
It looks at 128 pixels a side: of an eye nothing is left at 64.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name the field knows

from toyland.judges.judge import as_seen, load_small, roughened, save_small, trunk_of
from toyland.training.dataset import Pictures, drawing_pool, render_pictures
from toyland.training.loop import train
from toyland.world.defects import DRAWN, PAINTED, Defect, paint_defect
from toyland.world.scene import DEFECTS_OF, Scene, render

if TYPE_CHECKING:
    from toyland.judges.judge import Judge
    from toyland.training.config import Recipe

__all__ = [
    "KINDS", "DefectJudge", "Flawed", "defect_table", "load_defect_judge", "main", "render_flawed",
    "save_defect_judge", "separation", "soundness", "train_defect_judge",
]

KINDS = ("none", *DRAWN, *PAINTED)
_SIDE = 128
_SEED = 7
_ROUGHNESS = 0.4
_DRAWN_SHARE = 0.5
_TEST_SEED = 77_000
_CROP = 64  # pixels of a side around the defect, which the first part of the training sees alone
_WHOLE_SHARE = 0.35
_CELL_WEIGHT = 4.0
_VISIBLE, _LEAST_SHARE = 24, 0.012  # a cell is spoiled where that share of its pixels differs that much, of 255


class DefectJudge(nn.Module):
    """Pictures float (n, 3, h, w) in 0..1 -> logits (n, h / 16, w / 16), how surely each cell is spoiled."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = channels
        self.trunk = trunk_of(channels, first_stride=2)
        self.head = nn.Conv2d(channels[-1], 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        return self.head(self.trunk(pixels * 2 - 1))[:, 0]


@dataclass(frozen=True)
class Flawed:
    """Pictures drawn with a defect.

    images: uint8 (n, h, w, 3). rows: int64 (n,), the sound picture of the same scene. kinds: int64 (n,), the
    defect's number among `KINDS`.
    """

    images: np.ndarray
    rows: np.ndarray
    kinds: np.ndarray


def _drawn(scene: Scene, seed: int, size: int) -> tuple[np.ndarray, int]:
    """A scene with one of the defects that its subject can have, and the defect's number."""
    rng = np.random.default_rng((_SEED, seed))
    kinds = DEFECTS_OF[scene.subject]
    kind = kinds[int(rng.integers(len(kinds)))]
    image = render(scene, size, Defect(kind, rng.random(), rng.random())).image
    return image, KINDS.index(kind)


def render_flawed(pictures: Pictures, count: int, cache: Path, workers: int | None = None) -> Flawed:
    """The first `count` pictures whose subject can be drawn with a defect, with one; or what is in the cache."""
    if not cache.exists():
        rows = [row for row, scene in enumerate(pictures.scenes) if DEFECTS_OF[scene.subject]][:count]
        with drawing_pool(workers) as pool:
            made = list(pool.map(partial(_drawn, size=pictures.images.shape[1]),
                                 [pictures.scenes[row] for row in rows], rows, chunksize=20))
        cache.parent.mkdir(parents=True, exist_ok=True)
        half = cache.with_suffix(".partial.npz")
        np.savez(half, images=np.stack([image for image, _ in made]), rows=np.array(rows),
                 kinds=np.array([kind for _, kind in made]))
        half.replace(cache)
    return Flawed(**np.load(cache))


def _painted(pictures: Pictures, rows: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of some rows with painted defects, and the defects' numbers."""
    kinds = rng.integers(len(PAINTED), size=len(rows))
    images = [paint_defect(pictures.images[row], pictures.masks[row], PAINTED[kind], rng)
              for row, kind in zip(rows, kinds, strict=True)]
    return np.stack(images), kinds + 1 + len(DRAWN)


def _spoiled_cells(sound: np.ndarray, spoiled: np.ndarray, cells: int) -> Tensor:
    """1 where pictures (n, h, w, 3) differ visibly and 0 elsewhere, float (n, cells, cells)."""
    differs = np.abs(spoiled.astype(np.int16) - sound).max(axis=3) > _VISIBLE
    share = F.adaptive_avg_pool2d(torch.from_numpy(differs)[:, None].float(), cells)[:, 0]
    return (share > _LEAST_SHARE).float()


def _cropped(sound: np.ndarray, spoiled: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The same window of each pair of pictures (n, h, w, 3), around what differs."""
    room = sound.shape[1] - _CROP
    pairs = []
    for one, other in zip(sound, spoiled, strict=True):
        spots = np.argwhere(np.abs(other.astype(np.int16) - one).max(axis=2) > _VISIBLE)
        middle = spots.mean(axis=0) if len(spots) else np.full(2, sound.shape[1] / 2)
        corner = middle - _CROP / 2 + rng.uniform(-_CROP / 3, _CROP / 3, 2)
        y, x = np.clip(corner, 0, max(room, 0)).astype(int)
        pairs.append((one[y : y + _CROP, x : x + _CROP], other[y : y + _CROP, x : x + _CROP]))
    return np.stack([one for one, _ in pairs]), np.stack([other for _, other in pairs])


def train_defect_judge(
    recipe: Recipe, pictures: Pictures, flawed: Flawed, judge: Judge, checkpoint: Path, device: str
) -> DefectJudge:
    """Train, resume or only load the judge; half of a batch is sound, the other half the same scenes spoiled.

    judge: of attributes, with whose trunk it begins: who knows a panda sees sooner what is wrong with one.
    """
    plan = recipe.plans["defect-judge"]
    torch.manual_seed(recipe.seed)
    model = DefectJudge(judge.channels)
    model.trunk.load_state_dict(judge.trunk.state_dict())
    model.to(device)

    def loss(generator: torch.Generator, progress: float) -> Tensor:
        whole = progress > 1 - _WHOLE_SHARE
        count = max(2, plan.batch // (8 if whole else 2))
        drawn_count = round(count * _DRAWN_SHARE)
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        drawn = rng.integers(len(flawed.rows), size=drawn_count)
        rows = rng.integers(len(pictures.images), size=count - drawn_count)
        spoiled = np.concatenate([flawed.images[drawn], _painted(pictures, rows, rng)[0]])
        sound = pictures.images[np.concatenate([flawed.rows[drawn], rows])]
        if not whole:
            sound, spoiled = _cropped(sound, spoiled, rng)
        images = as_seen(np.concatenate([sound, spoiled]))
        mirrored = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
        images = torch.where(mirrored.repeat(2, 1, 1, 1), images.flip(3), images)
        found = model(roughened(images, generator, _ROUGHNESS).to(device)).float()
        cells = _spoiled_cells(sound, spoiled, found.shape[1])
        cells = torch.where(mirrored[:, 0], cells.flip(2), cells)
        cells = torch.cat([torch.zeros_like(cells), cells]).to(device)
        picture = F.binary_cross_entropy_with_logits(found.amax((1, 2)), cells.amax((1, 2)))
        return F.binary_cross_entropy_with_logits(found, cells) * _CELL_WEIGHT + picture

    return train(model, loss, plan, checkpoint, seed=recipe.seed + _SEED)


@torch.no_grad()
def soundness(judge: DefectJudge, images: np.ndarray, batch: int = 64) -> np.ndarray:
    """How surely each of the pictures uint8 (n, h, w, 3) is sound, float (n,) in 0..1; a half counts as spoiled."""
    found: list[Tensor] = []
    for start in range(0, len(images), batch):
        pixels = F.interpolate(as_seen(images[start : start + batch]), size=(_SIDE, _SIDE), mode="area")
        found.append(1 - judge(pixels).amax((1, 2)).sigmoid())
    return torch.cat(found).numpy()


def save_defect_judge(judge: DefectJudge, folder: Path) -> None:
    """judge.safetensors (float16) and config.json."""
    save_small(judge, folder / "judge.safetensors", {"channels": judge.channels})


def load_defect_judge(folder: Path) -> DefectJudge:
    """The judge that `save_defect_judge` has left in a folder, in float32."""
    judge = DefectJudge(tuple(json.loads((folder / "config.json").read_text())["channels"]))
    load_small(judge, folder / "judge.safetensors")
    return judge


def separation(sound: np.ndarray, spoiled: np.ndarray) -> float:
    """Area under the ROC curve: how often a sound picture is surer than a spoiled one, ties by half."""
    surer = (sound[:, None] > spoiled).mean() + (sound[:, None] == spoiled).mean() / 2
    return float(surer)


def defect_table(judge: DefectJudge, pictures: Pictures, flawed: Flawed) -> dict[str, tuple[int, float, float]]:
    """By kind of defect, and "none", how many pictures, the share that is judged rightly, and the area under ROC."""
    rng = np.random.default_rng(_TEST_SEED)
    painted, kinds = _painted(pictures, np.arange(len(pictures.images)), rng)
    sound = soundness(judge, np.asarray(pictures.images))
    spoiled = np.concatenate([soundness(judge, flawed.images), soundness(judge, painted)])
    kinds = np.concatenate([flawed.kinds, kinds])
    table = {"none": (len(sound), float((sound > 0.5).mean()), separation(sound, spoiled))}
    for number, kind in enumerate(KINDS[1:], 1):
        own = spoiled[kinds == number]
        if len(own):
            table[kind] = (len(own), float((own <= 0.5).mean()), separation(sound, own))
    right = ((sound > 0.5).mean() + (spoiled <= 0.5).mean()) / 2
    return table | {"all": (len(sound) + len(spoiled), float(right), separation(sound, spoiled))}


def main(argv: list[str] | None = None) -> None:
    """Print how well the exported judge tells unseen renders of all combinations."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", type=Path, default=Path("assets/toyland"))
    parser.add_argument("--pictures", type=int, default=600)
    options = parser.parse_args(argv)
    judge = load_defect_judge(options.model / "defect-judge")
    with tempfile.TemporaryDirectory() as folder:
        pictures = render_pictures(Path(folder), options.pictures, _SIDE, _TEST_SEED, held_out=None)
        flawed = render_flawed(pictures, options.pictures, Path(folder) / "flawed.npz")
        table = defect_table(judge, pictures, flawed)
    print("| defect | pictures | judged rightly, % | area under ROC |\n|---|---|---|---|")
    for kind, (count, right, area) in table.items():
        print(f"| {kind} | {count} | {100 * right:.1f} | {area:.4f} |")


if __name__ == "__main__":
    main()

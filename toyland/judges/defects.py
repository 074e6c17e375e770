"""The defect judge: whether a subject is drawn soundly, told from renders with and without a defect.

Every scene is seen twice in a batch, sound and spoiled, both blurred and noisy alike, so that only the
drawing tells them apart. It looks at 128 pixels a side: of an eye nothing is left at 64.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - the name the field knows

from toyland.judges.judge import Judge, as_seen, load_judge, roughened
from toyland.training.dataset import Pictures, drawing_pool, render_pictures
from toyland.training.loop import train
from toyland.world.defects import DRAWN, PAINTED, Defect, paint_defect
from toyland.world.scene import DEFECTS_OF, Scene, render

if TYPE_CHECKING:
    from torch import Tensor

    from toyland.training.config import Recipe

__all__ = ["DEFECT_HEADS", "Flawed", "render_flawed", "soundness", "train_defect_judge"]

DEFECT_HEADS = {"defect": ("none", *DRAWN, *PAINTED)}
_SIDE = 128
_SEED = 7
_ROUGHNESS = 0.4
_DRAWN_SHARE = 0.5
_TEST_SEED = 77_000


@dataclass(frozen=True)
class Flawed:
    """Pictures drawn with a defect.

    images: uint8 (n, h, w, 3). rows: int64 (n,), the sound picture of the same scene. kinds: int64 (n,), the
    defect's number among `DEFECT_HEADS`.
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
    return image, DEFECT_HEADS["defect"].index(kind)


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


def train_defect_judge(
    recipe: Recipe, pictures: Pictures, flawed: Flawed, checkpoint: Path, device: str
) -> Judge:
    """Train, resume or only load the judge; half of a batch is sound, the other half the same scenes spoiled."""
    plan = recipe.plans["defect-judge"]
    torch.manual_seed(recipe.seed)
    classes = {name: len(words) for name, words in DEFECT_HEADS.items()}
    model = Judge(recipe.judge_channels, classes, _SIDE).to(device)
    drawn_count = round(plan.batch / 2 * _DRAWN_SHARE)
    painted_count = plan.batch // 2 - drawn_count

    def loss(generator: torch.Generator, _progress: float) -> Tensor:
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        drawn = rng.integers(len(flawed.rows), size=drawn_count)
        rows = rng.integers(len(pictures.images), size=painted_count)
        painted, kinds = _painted(pictures, rows, rng)
        sound = pictures.images[np.concatenate([flawed.rows[drawn], rows])]
        images = as_seen(np.concatenate([sound, flawed.images[drawn], painted]))
        wanted = np.concatenate([np.zeros(len(sound), np.int64), flawed.kinds[drawn], kinds])
        mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
        images = roughened(torch.where(mirrored, images.flip(3), images), generator, _ROUGHNESS)
        return F.cross_entropy(model(images.to(device))["defect"].float(),
                               torch.from_numpy(wanted).to(device))

    return train(model, loss, plan, checkpoint, seed=recipe.seed + _SEED)


@torch.no_grad()
def soundness(judge: Judge, images: np.ndarray, batch: int = 64) -> np.ndarray:
    """How surely each of the pictures uint8 (n, h, w, 3) is sound, float (n,) in 0..1; a half counts as spoiled."""
    logits = [judge(as_seen(images[start : start + batch]))["defect"] for start in range(0, len(images), batch)]
    return torch.cat(logits).softmax(1)[:, 0].numpy()


def separation(sound: np.ndarray, spoiled: np.ndarray) -> float:
    """Area under the ROC curve: how often a sound picture is surer than a spoiled one, ties by half."""
    surer = (sound[:, None] > spoiled).mean() + (sound[:, None] == spoiled).mean() / 2
    return float(surer)


def defect_table(judge: Judge, pictures: Pictures, flawed: Flawed) -> dict[str, tuple[int, float, float]]:
    """By kind of defect, and "none", how many pictures, the share that is judged rightly, and the area under ROC."""
    rng = np.random.default_rng(_TEST_SEED)
    painted, kinds = _painted(pictures, np.arange(len(pictures.images)), rng)
    sound = soundness(judge, np.asarray(pictures.images))
    spoiled = np.concatenate([soundness(judge, flawed.images), soundness(judge, painted)])
    kinds = np.concatenate([flawed.kinds, kinds])
    table = {"none": (len(sound), float((sound > 0.5).mean()), separation(sound, spoiled))}
    for number, kind in enumerate(DEFECT_HEADS["defect"][1:], 1):
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
    judge = load_judge(options.model / "defect-judge")
    with tempfile.TemporaryDirectory() as folder:
        pictures = render_pictures(Path(folder), options.pictures, _SIDE, _TEST_SEED, held_out=None)
        flawed = render_flawed(pictures, options.pictures, Path(folder) / "flawed.npz")
        table = defect_table(judge, pictures, flawed)
    print("| defect | pictures | judged rightly, % | area under ROC |\n|---|---|---|---|")
    for kind, (count, right, area) in table.items():
        print(f"| {kind} | {count} | {100 * right:.1f} | {area:.4f} |")


if __name__ == "__main__":
    main()

"""The judge: a small convnet that says which subject, colour and place a picture shows.

It is trained apart from the generators, on renders of all combinations, with blur, noise and small
shifts of brightness, so that it judges what is drawn and not how cleanly.
"""

from __future__ import annotations

import itertools
import json
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name the field knows

from toyland.training.dataset import drawing_pool
from toyland.training.loop import train
from toyland.world.edits import snowed
from toyland.world.looks import LOOKS
from toyland.world.scene import COLORS, PLACES, SUBJECTS, Scene, render

if TYPE_CHECKING:
    from pathlib import Path

    from toyland.training.config import Recipe
    from toyland.training.dataset import Pictures

__all__ = [
    "HEADS", "LOOK_HEADS", "Judge", "as_seen", "build_judge", "labels_of", "load_judge", "load_small", "roughened",
    "save_judge", "save_small", "train_judge", "train_look_judge", "trunk_of", "verdicts",
]

HEADS: dict[str, tuple[str, ...]] = {"subject": SUBJECTS, "color": COLORS, "place": PLACES}
LOOK_HEADS: dict[str, tuple[str, ...]] = {**HEADS, "look": ("plain", "snowfall", *LOOKS)}
"""What the judge of edits and styles tells: the same, and the look of the whole picture."""
_SIDE = 64
_SMOOTHING = 0.05
_SNOWED = 3_000  # pictures that the look judge sees in snowfall, too


def trunk_of(channels: tuple[int, ...], first_stride: int = 1) -> nn.Sequential:
    """Blocks of two convolutions, each but the first at half the size of the one before."""
    return nn.Sequential(*(
        nn.Sequential(
            nn.Conv2d(before, after, 3, stride=2 if level else first_stride, padding=1),
            nn.GroupNorm(8, after), nn.SiLU(),
            nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU(),
        )
        for level, (before, after) in enumerate(itertools.pairwise((3, *channels)))
    ))


class Judge(nn.Module):
    """Pictures float (n, 3, h, w) in 0..1 -> logits by head, each (n, classes)."""

    def __init__(self, channels: tuple[int, ...], classes: dict[str, int]) -> None:
        super().__init__()
        self.channels = channels
        self.trunk = trunk_of(channels)
        self.heads = nn.ModuleDict({name: nn.Linear(2 * channels[-1], n) for name, n in classes.items()})

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """See the class."""
        pooled = self.features(pixels)
        return {name: head(pooled) for name, head in self.heads.items()}

    def features(self, pixels: Tensor) -> Tensor:
        """What the heads are given: means and maxima of the last channels, (n, 2 * channels)."""
        seen = self.trunk(F.interpolate(pixels, size=(_SIDE, _SIDE), mode="area") * 2 - 1)
        return torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1)


def as_seen(images: np.ndarray) -> Tensor:
    """Pictures uint8 (n, h, w, 3) as the judges are given them, float (n, 3, h, w) in 0..1."""
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 255


def build_judge(recipe: Recipe, heads: dict[str, tuple[str, ...]] = HEADS) -> Judge:
    """An untrained judge."""
    return Judge(recipe.judge_channels, {name: len(words) for name, words in heads.items()})


def labels_of(scenes: list[Scene]) -> dict[str, Tensor]:
    """Class numbers by head, each int64 (n,)."""
    return {name: torch.tensor([words.index(getattr(scene, name)) for scene in scenes])
            for name, words in HEADS.items()}


def roughened(pixels: Tensor, generator: torch.Generator, share: float = 1.0) -> Tensor:
    """Blur, noise and brightness, each picture by its own strength; pixels (n, 3, h, w) in 0..1.

    share: of the strength with which a judge of subjects can still cope.
    """
    count, side = len(pixels), pixels.shape[-1]
    small = F.interpolate(pixels, scale_factor=0.5, mode="area")
    smaller = F.interpolate(pixels, scale_factor=0.25, mode="area")
    blurred = [F.interpolate(p, size=(side, side), mode="bilinear") for p in (small, smaller)]
    choice = torch.randint(3, (count, 1, 1, 1), generator=generator)
    mixed = torch.where(choice == 1, blurred[0], torch.where(choice == 2, blurred[1], pixels))
    mix = share * torch.rand(count, 1, 1, 1, generator=generator)
    strength = 0.06 * share * torch.rand(count, 1, 1, 1, generator=generator)
    light = 1 + 0.1 * (torch.rand(count, 1, 1, 1, generator=generator) - 0.5)
    noise = torch.randn(pixels.shape, generator=generator)
    return ((pixels + mix * (mixed - pixels)) * light + strength * noise).clamp(0, 1)


def train_judge(recipe: Recipe, pictures: Pictures, checkpoint: Path, device: str) -> Judge:
    """Train, resume or only load the judge."""
    plan = recipe.plans["judge"]
    torch.manual_seed(recipe.seed)
    model = build_judge(recipe).to(device)
    labels = labels_of(pictures.scenes)

    def loss(generator: torch.Generator, _progress: float) -> Tensor:
        rows = torch.randint(len(pictures.images), (plan.batch,), generator=generator)
        images = as_seen(pictures.images[rows.numpy()])
        logits = model(roughened(images, generator).to(device))
        return torch.stack([
            F.cross_entropy(logits[name].float(), labels[name][rows].to(device), label_smoothing=_SMOOTHING)
            for name in HEADS]).sum()

    return train(model, loss, plan, checkpoint, seed=recipe.seed + 2)


def _in_snowfall(pictures: Pictures) -> tuple[np.ndarray, np.ndarray]:
    """Rows of pictures to which snow can be added, at most so many, and the pictures with it."""
    added = {row: snowed(scene) for row, scene in enumerate(pictures.scenes)}
    after = dict(itertools.islice(((row, scene) for row, scene in added.items() if scene), _SNOWED))
    with drawing_pool(torch.get_num_threads()) as pool:
        drawn = list(pool.map(render, after.values(), itertools.repeat(pictures.images.shape[1]), chunksize=50))
    return np.array([*after]), np.stack([one.image for one in drawn])


def train_look_judge(
    recipe: Recipe, pictures: Pictures, checkpoint: Path, device: str, start: Judge | None = None
) -> Judge:
    """Train, resume or only load the judge of edits and styles, on pictures in all looks; start: one to go on from."""
    plan, names = recipe.plans["look-judge"], LOOK_HEADS["look"]
    torch.manual_seed(recipe.seed)
    model = (start.train() if start else build_judge(recipe, LOOK_HEADS)).to(device)
    labels = labels_of(pictures.scenes)
    in_snowfall = cache(lambda: _in_snowfall(pictures))  # which is drawn where something is left to train

    def drawn(row: int, look: str) -> np.ndarray:
        image = pictures.images[row]
        return LOOKS[look](image, pictures.masks[row] / 255) if look in LOOKS else image

    def loss(generator: torch.Generator, _progress: float) -> Tensor:
        rows = torch.randint(len(pictures.images), (plan.batch,), generator=generator)
        looks = torch.randint(len(names), (plan.batch,), generator=generator)
        snowy_rows, snowy_images = in_snowfall()
        snowy = torch.randint(len(snowy_rows), (plan.batch,), generator=generator)
        snowing = looks == names.index("snowfall")
        rows[snowing] = torch.from_numpy(snowy_rows)[snowy[snowing]]
        images = np.stack([
            snowy_images[other] if snows else drawn(row, names[look]) for row, look, snows, other in
            zip(rows.tolist(), looks.tolist(), snowing.tolist(), snowy.tolist(), strict=True)])
        logits = model(roughened(as_seen(images), generator).to(device))
        already = torch.tensor([pictures.scenes[row].weather == "snowy" for row in rows])
        looks[already & (looks == names.index("plain"))] = names.index("snowfall")
        wanted = {name: label[rows] for name, label in labels.items()} | {"look": looks}
        # No one can tell the colour of what is drawn in one colour.
        wanted["color"] = wanted["color"].masked_fill(looks > names.index("night"), -100)
        return torch.stack([
            F.cross_entropy(logits[name].float(), wanted[name].to(device), label_smoothing=_SMOOTHING)
            for name in LOOK_HEADS]).sum()

    return train(model, loss, plan, checkpoint, seed=recipe.seed + 5)


@torch.no_grad()
def verdicts(judge: Judge, images: np.ndarray, batch: int = 64) -> dict[str, Tensor]:
    """Class numbers by head, each int64 (n,), of pictures uint8 (n, h, w, 3)."""
    found: dict[str, list[Tensor]] = {name: [] for name in judge.heads}
    for start in range(0, len(images), batch):
        for name, logits in judge(as_seen(images[start : start + batch])).items():
            found[name].append(logits.argmax(1))
    return {name: torch.cat(parts) for name, parts in found.items()}


def save_judge(judge: Judge, folder: Path) -> None:
    """judge.safetensors (float16) and config.json."""
    heads = {name: list(LOOK_HEADS[name]) for name in judge.heads}
    save_small(judge, folder / "judge.safetensors", {"channels": judge.channels, "heads": heads})


def load_judge(folder: Path) -> Judge:
    """The judge that `save_judge` has left in a folder, in float32."""
    record = json.loads((folder / "config.json").read_text())
    classes = {name: len(words) for name, words in record["heads"].items()}
    judge = Judge(tuple(record["channels"]), classes)
    load_small(judge, folder / "judge.safetensors")
    return judge


def save_small(network: nn.Module, path: Path, record: dict[str, object]) -> None:
    """A network's weights in float16, and beside them config.json with what it takes to build it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half().contiguous() for name, value in network.state_dict().items()}, path)
    path.with_name("config.json").write_text(json.dumps(record, indent=2) + "\n")


def load_small(network: nn.Module, path: Path) -> None:
    """Weights that `save_small` has written, in float32, into a network that is built and only looks from now on."""
    network.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    network.eval()

"""The judges' table: what exported models draw for prompts that they have not been trained on.

    python -m toyland.judges.evaluate --model assets/toyland --prompts 480 --steps 25 --guidance-scale 4

Several models share one table, one set of prompts and noise, and the judges of the first that has them all. Of a
model with a few-step student there is a row for that too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from diffusers import LCMScheduler, StableDiffusionPipeline
from PIL import Image

from toyland.judges.defects import DefectJudge, load_defect_judge, soundness
from toyland.judges.frechet import features_of, frechet_distance
from toyland.judges.judge import HEADS, Judge, labels_of, load_judge, verdicts
from toyland.parts.autoencoder import to_pixels
from toyland.parts.student import STEPS, STUDENT
from toyland.training.dataset import Pictures, render_pictures, scenes
from toyland.world.captions import caption
from toyland.world.scene import SUBJECTS, Scene, render

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Judges", "Score", "main", "reconstruction_quality", "sample", "save_grid", "score"]

_SEED = 20_261
_RENDER_SEED = 4_242
_BATCH = 20


@dataclass(frozen=True)
class Judges:
    """What looks at the pictures: at subject, colour and place, and, where it has been trained, at defects."""

    attributes: Judge
    defects: DefectJudge | None

    @classmethod
    def load(cls, folder: Path) -> Judges:
        """The judges of a model's folder."""
        defects = folder / "defect-judge"
        return cls(load_judge(folder / "judge"), load_defect_judge(defects) if defects.exists() else None)


@dataclass(frozen=True)
class Score:
    """What judges say of some pictures.

    right: shares 0..1 of pictures as they were asked for, by head and for all three together. sound: share 0..1
    without a defect. distance: Fréchet distance to renders. None: not measured.
    """

    count: int
    right: dict[str, float]
    sound: float | None
    distance: float | None

    def row(self, name: str) -> str:
        """A row of `TABLE_HEAD`, shares in percent."""
        shares = [*(self.right[head] for head in (*HEADS, "all")), self.sound]
        cells = ["–" if share is None else f"{100 * share:.1f}" for share in shares]
        cells.append("–" if self.distance is None else f"{self.distance:.3g}")
        return f"| {name} | {self.count} | {' | '.join(cells)} |"


TABLE_HEAD = ("| model and setting | pictures | subject | color | place | all three | sound | Fréchet distance |\n"
              "|---|---|---|---|---|---|---|---|")


def prompt_scenes(count: int, seed: int, *, held_out: bool) -> list[Scene]:
    """Scenes to ask for, as many of every subject as of any other (but for a rest)."""
    pool = scenes(40 * max(count, len(SUBJECTS)), seed, held_out=held_out)
    by_subject = [[s for s in pool if s.subject == subject] for subject in SUBJECTS]
    rows = [scene for several in zip(*by_subject, strict=False) for scene in several]
    return rows[:count]


@torch.no_grad()
def sample(
    pipeline: StableDiffusionPipeline, prompts: list[str], steps: int, guidance: float, seed: int
) -> np.ndarray:
    """Pictures uint8 (n, h, w, 3); picture i starts from the noise of seed + i."""
    factor = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    side = pipeline.unet.config.sample_size * factor
    made = []
    for start in range(0, len(prompts), _BATCH):
        some = prompts[start : start + _BATCH]
        noise = [torch.Generator().manual_seed(seed + start + i) for i in range(len(some))]
        found = pipeline(some, num_inference_steps=steps, guidance_scale=guidance, height=side,
                         width=side, generator=noise, output_type="np", return_dict=False)[0]
        made.append(np.round(found * 255).astype(np.uint8))
    return np.concatenate(made)


def score(judges: Judges, images: np.ndarray, wanted: list[Scene], renders: np.ndarray | None = None) -> Score:
    """Of pictures uint8 (n, h, w, 3) the share that shows what was asked for, and how they are drawn.

    renders: as many pictures (n, h, w, 3) as they should look like as a whole.
    """
    found, labels = verdicts(judges.attributes, images), labels_of(wanted)
    right = {name: found[name] == labels[name] for name in HEADS}
    right["all"] = torch.stack(list(right.values())).all(0)
    sound = None if judges.defects is None else float((soundness(judges.defects, images) > 0.5).mean())
    distance = None if renders is None else frechet_distance(
        *(features_of(judges.attributes, some) for some in (images, renders)))
    shares = {name: hit.float().mean().item() for name, hit in right.items()}
    return Score(len(images), shares, sound, distance)


def confusions(judge: Judge, images: np.ndarray, wanted: list[Scene]) -> dict[str, dict[str, int]]:
    """By head, how often "wanted -> seen" happened, the frequent mistakes first."""
    found, labels = verdicts(judge, images), labels_of(wanted)
    table: dict[str, dict[str, int]] = {}
    for name, words in HEADS.items():
        pairs = [f"{words[w]} -> {words[f]}"
                 for w, f in zip(labels[name].tolist(), found[name].tolist(), strict=True) if w != f]
        counts = {pair: pairs.count(pair) for pair in set(pairs)}
        table[name] = dict(sorted(counts.items(), key=lambda item: -item[1]))
    return table


@torch.no_grad()
def reconstruction_quality(
    pipeline: StableDiffusionPipeline, pictures: Pictures
) -> tuple[np.ndarray, dict[str, float]]:
    """Pictures through the autoencoder and back, and how near they come.

    L1 (0..1 scale), PSNR (dB), also of the subject, and the share of the pictures' Laplacian energy that is left.
    """
    made, images = [], np.asarray(pictures.images)
    for start in range(0, len(images), _BATCH):
        pixels = to_pixels(images[start : start + _BATCH]).to(pipeline.device)
        back = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mean).sample
        made.append(((back.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    pictures_back = np.concatenate(made)
    error = (pictures_back.astype(np.float32) - images) / 255
    inside = np.asarray(pictures.masks)[..., None] > 127
    square, subject = error**2, np.where(inside, error**2, 0).sum() / (3 * inside.sum())
    return pictures_back, {
        "L1": float(np.abs(error).mean()), "PSNR": float(-10 * np.log10(square.mean())),
        "PSNR subject": float(-10 * np.log10(subject)),
        "sharpness": _laplacian_energy(pictures_back) / _laplacian_energy(images),
    }


def _laplacian_energy(images: np.ndarray) -> float:
    return float(np.mean([np.square(cv2.Laplacian(image.astype(np.float32), cv2.CV_32F)).mean() for image in images]))


def save_grid(images: np.ndarray, path: Path, columns: int) -> None:
    """Pictures uint8 (n, h, w, 3) side by side in rows of `columns`, as PNG of 256 colours."""
    rows = [np.concatenate(list(images[i : i + columns]), 1)
            for i in range(0, len(images) - columns + 1, columns)]
    Image.fromarray(np.concatenate(rows)).quantize(256).save(path, optimize=True)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, nargs="+", default=[Path("assets/toyland")])
    parser.add_argument("--device", default="cpu", help="where pictures are sampled")
    parser.add_argument("--prompts", type=int, default=240, help="half of held-out combinations")
    parser.add_argument("--steps", type=int, nargs="+", default=[25])
    parser.add_argument("--guidance-scale", type=float, nargs="+", default=[4.0])
    parser.add_argument("--renders", type=int, default=0,
                        help="first test judges and autoencoders on this many unseen renders")
    parser.add_argument("--grid", type=Path, help="write the first 32 pictures of the last row here")
    parser.add_argument("--report", type=Path, help="write scores and confusions here (JSON)")
    return parser.parse_args(argv)


def _load_pipeline(folder: Path, device: str) -> StableDiffusionPipeline:
    """A model's pipeline in float32, quiet."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _test_on_renders(pipelines: dict[str, StableDiffusionPipeline], judges: Judges, count: int) -> None:
    """Print what the judges say of renders and of their reconstructions, and the reconstructions' quality."""
    with tempfile.TemporaryDirectory() as folder:
        side = next(iter(pipelines.values())).vae.config.sample_size
        pictures, others = (render_pictures(Path(folder) / str(seed), count, side, seed, held_out=None)
                            for seed in (_RENDER_SEED, _RENDER_SEED + 1))
        renders = np.asarray(pictures.images)
        print(score(judges, renders, pictures.scenes, np.asarray(others.images)).row("renders"))
        for name, pipeline in pipelines.items():
            back, quality = reconstruction_quality(pipeline, pictures)
            print(score(judges, back, pictures.scenes, renders).row(f"{name}, reconstructions"))
            print(json.dumps({measure: round(value, 4) for measure, value in quality.items()}), flush=True)


def _sampled(
    name: str, folder: Path, pipeline: StableDiffusionPipeline, prompts: list[str], options: argparse.Namespace
) -> Iterator[tuple[str, np.ndarray]]:
    """A model's pictures for all prompts, by the name of the setting; the student comes last."""
    for steps in options.steps:
        for guidance in options.guidance_scale:
            yield f"{name}, DDIM {steps}, guidance {guidance:g}", sample(pipeline, prompts, steps, guidance, _SEED)
    if (folder / STUDENT).exists():
        pipeline.load_lora_weights(str(folder / STUDENT))
        pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
        yield f"{name}, student, {STEPS} steps", sample(pipeline, prompts, STEPS, 1.0, _SEED)


def main(argv: list[str] | None = None) -> None:
    """Print one row for each model and setting, seen and unseen combinations apart."""
    options = _arguments(argv)
    judges = Judges.load(next((f for f in options.model if (f / "defect-judge").exists()), options.model[0]))
    pipelines = {str(folder): _load_pipeline(folder, options.device) for folder in options.model}
    half = options.prompts // 2
    wanted = [*prompt_scenes(half, _SEED, held_out=False),
              *prompt_scenes(options.prompts - half, _SEED + 1, held_out=True)]
    rng = np.random.default_rng(_SEED)
    prompts = [caption(scene, rng) for scene in wanted]
    renders = np.stack([render(scene, next(iter(pipelines.values())).vae.config.sample_size).image
                        for scene in wanted])
    print(TABLE_HEAD)
    if options.renders:
        _test_on_renders(pipelines, judges, options.renders)
    report: dict[str, object] = {}
    for folder, (model, pipeline) in zip(options.model, pipelines.items(), strict=True):
        for name, images in _sampled(model, folder, pipeline, prompts, options):
            rows = {name: score(judges, images, wanted, renders),
                    f"{name}, seen combinations": score(judges, images[:half], wanted[:half]),
                    f"{name}, unseen combinations": score(judges, images[half:], wanted[half:])}
            print("\n".join(result.row(title) for title, result in rows.items()), flush=True)
            report |= {title: asdict(result) for title, result in rows.items()}
            report[f"{name}, mistakes"] = confusions(judges.attributes, images, wanted)
            if options.grid:
                save_grid(images[:32], options.grid, 8)
    if options.report:
        options.report.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

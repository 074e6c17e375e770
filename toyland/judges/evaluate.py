"""The judge's table: what the exported model draws for prompts that it has not been trained on.

python -m toyland.judges.evaluate --model assets/toyland --prompts 240 --steps 50 --guidance-scale 7.5
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from toyland.judges.judge import HEADS, Judge, labels_of, load_judge, verdicts
from toyland.parts.autoencoder import to_pixels
from toyland.training.dataset import Pictures, render_pictures, scenes
from toyland.world.captions import caption
from toyland.world.scene import SUBJECTS, Scene

__all__ = ["Score", "judge_accuracy", "reconstruction_quality", "sample", "save_grid", "score"]

_SEED = 20_261
_RENDER_SEED = 4_242
_BATCH = 20


@dataclass(frozen=True)
class Score:
    """Shares of right pictures, 0..1, by head and for all three together; count: pictures."""

    count: int
    right: dict[str, float]

    def row(self, name: str) -> str:
        """A row of a Markdown table, in percent."""
        cells = [f"{100 * self.right[head]:.1f}" for head in (*HEADS, "all")]
        return f"| {name} | {self.count} | {' | '.join(cells)} |"


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
                         width=side, generator=noise, output_type="np").images
        made.append(np.round(found * 255).astype(np.uint8))
    return np.concatenate(made)


def score(judge: Judge, images: np.ndarray, wanted: list[Scene]) -> Score:
    """Share of pictures that show what was asked for."""
    found, labels = verdicts(judge, images), labels_of(wanted)
    right = {name: found[name] == labels[name] for name in HEADS}
    right["all"] = torch.stack(list(right.values())).all(0)
    return Score(len(images), {name: hit.float().mean().item() for name, hit in right.items()})


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


def judge_accuracy(judge: Judge, pictures: Pictures) -> Score:
    """The judge on renders that it has not seen."""
    return score(judge, np.asarray(pictures.images), pictures.scenes)


@torch.no_grad()
def reconstruction_quality(
    pipeline: StableDiffusionPipeline, pictures: Pictures
) -> tuple[np.ndarray, dict[str, float]]:
    """Pictures through the autoencoder and back, and L1 (0..1 scale) and PSNR (dB), also of masks."""
    made, images = [], np.asarray(pictures.images)
    for start in range(0, len(images), _BATCH):
        pixels = to_pixels(images[start : start + _BATCH])
        back = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mean).sample
        made.append(((back.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())
    pictures_back = np.concatenate(made)
    error = (pictures_back.astype(np.float32) - images) / 255
    inside = np.asarray(pictures.masks)[..., None] > 127
    square, subject = error**2, np.where(inside, error**2, 0).sum() / (3 * inside.sum())
    return pictures_back, {
        "L1": float(np.abs(error).mean()), "PSNR": float(-10 * np.log10(square.mean())),
        "PSNR subject": float(-10 * np.log10(subject)),
    }


def save_grid(images: np.ndarray, path: Path, columns: int) -> None:
    """Pictures uint8 (n, h, w, 3) side by side in rows of `columns`, as PNG of 256 colours."""
    rows = [np.concatenate(list(images[i : i + columns]), 1)
            for i in range(0, len(images) - columns + 1, columns)]
    Image.fromarray(np.concatenate(rows)).quantize(256).save(path, optimize=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("assets/toyland"))
    parser.add_argument("--prompts", type=int, default=240, help="half of held-out combinations")
    parser.add_argument("--steps", type=int, nargs="+", default=[50])
    parser.add_argument("--guidance-scale", type=float, nargs="+", default=[7.5])
    parser.add_argument("--renders", type=int, default=0,
                        help="first test judge and autoencoder on this many unseen renders")
    parser.add_argument("--grid", type=Path, help="write the first 32 pictures here")
    parser.add_argument("--report", type=Path, help="write scores and confusions here (JSON)")
    return parser.parse_args()


def _test_on_renders(pipeline: StableDiffusionPipeline, judge: Judge, count: int) -> None:
    """Print what the judge gets right of renders and of their reconstructions, and their quality."""
    with tempfile.TemporaryDirectory() as folder:
        side = pipeline.vae.config.sample_size
        pictures = render_pictures(Path(folder), count, side, _RENDER_SEED, held_out=None)
        back, quality = reconstruction_quality(pipeline, pictures)
        print(judge_accuracy(judge, pictures).row("renders"))
        print(score(judge, back, pictures.scenes).row("reconstructions"))
        print(json.dumps({name: round(value, 4) for name, value in quality.items()}))


def main() -> None:
    """Print one row for each setting, seen and unseen combinations apart."""
    options = _arguments()
    pipeline = StableDiffusionPipeline.from_pretrained(options.model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    judge = load_judge(options.model / "judge")
    if options.renders:
        _test_on_renders(pipeline, judge, options.renders)
    half = options.prompts // 2
    wanted = [*prompt_scenes(half, _SEED, held_out=False),
              *prompt_scenes(options.prompts - half, _SEED + 1, held_out=True)]
    rng = np.random.default_rng(_SEED)
    prompts = [caption(scene, rng) for scene in wanted]
    print("| setting | pictures | subject | color | place | all three |\n|---|---|---|---|---|---|")
    report: dict[str, object] = {}
    for steps in options.steps:
        for guidance in options.guidance_scale:
            images = sample(pipeline, prompts, steps, guidance, _SEED)
            name = f"DDIM {steps}, guidance {guidance:g}"
            rows = {name: score(judge, images, wanted),
                    f"{name}, seen combinations": score(judge, images[:half], wanted[:half]),
                    f"{name}, unseen combinations": score(judge, images[half:], wanted[half:])}
            print("\n".join(result.row(title) for title, result in rows.items()), flush=True)
            report |= {title: result.right for title, result in rows.items()}
            report[f"{name}, mistakes"] = confusions(judge, images, wanted)
    if options.grid:
        save_grid(images[:32], options.grid, 8)
    if options.report:
        options.report.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

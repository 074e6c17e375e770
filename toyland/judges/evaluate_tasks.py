"""Tables of what the task models do: controls, edits and styles, each against the model without.

python -m toyland.judges.evaluate_tasks --model assets/toyland --pictures 96

Asks for scenes that no generator has seen: half of them held-out combinations. `--task` picks some.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import cv2
import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DiffusionPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from scipy.stats import spearmanr

from text2video_zero.control.control_maps import CannyMapper
from text2video_zero.job import defaults_of
from text2video_zero.models.catalogue import DREAMBOOTH_STYLES
from toyland.judges.evaluate import save_grid
from toyland.judges.judge import HEADS, LOOK_HEADS, Judge, load_judge, verdicts
from toyland.judges.reader import Reader, load_reader, read
from toyland.parts.controls import CONTROLS, control_maps
from toyland.parts.style import STYLES
from toyland.training.config import PRESETS
from toyland.training.dataset import ARRAYS, Pictures, render_pictures
from toyland.training.export import WITHOUT_CHECKER
from toyland.world.bipeds import BIPEDS
from toyland.world.captions import plain_caption
from toyland.world.edits import EDITS, Edit, instructions, random_edit, render_edit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


AnyPipeline = TypeVar("AnyPipeline", bound=DiffusionPipeline)

__all__ = ["edge_f1", "main", "rank_correlation"]

_SEED = 30_407
_BATCH = 16
_TOLERANCE = 2  # pixels at 128
_SAME = 1e-6  # mean squared error that counts as none: 60 dB
_CLOSE = 0.05  # of the frame: a keypoint that is that near counts as found
_TASKS = (*CONTROLS, "instruct-pix2pix", "styles")


@dataclass(frozen=True)
class Trial:
    """What is asked for and how.

    pictures: the renders that controls and edits begin with. steps, guidance, device: of the sampling.
    """

    model: Path
    pictures: Pictures
    steps: int
    guidance: float
    device: str = "cpu"

    @cached_property
    def base(self) -> StableDiffusionPipeline:
        """The base model."""
        return _quiet(StableDiffusionPipeline.from_pretrained(self.model, dtype=torch.float32), self.device)

    @cached_property
    def judge(self) -> Judge:
        """Tells subject, colour, place and look."""
        return load_judge(self.model / "look-judge")

    @cached_property
    def reader(self) -> Reader:
        """Tells keypoints, foreground and depth."""
        return load_reader(self.model / "reader")

    @property
    def prompts(self) -> list[str]:
        """What the pictures show, in words."""
        return [plain_caption(scene) for scene in self.pictures.scenes]

    def sampled(
        self, pipeline: Callable[..., Any], prompts: Sequence[str], **inputs: Sequence[object]
    ) -> np.ndarray:
        """Pictures uint8 (n, h, w, 3); inputs: what each picture begins with, by the pipeline's name for it."""
        side, made = self.pictures.images.shape[1], []
        for start in range(0, len(prompts), _BATCH):
            rows = slice(start, start + _BATCH)
            noise = [torch.Generator().manual_seed(_SEED + start + i) for i in range(len(prompts[rows]))]
            own = {name: list(values[rows]) for name, values in inputs.items()}
            edits = isinstance(pipeline, StableDiffusionInstructPix2PixPipeline)
            size = {} if edits else {"height": side, "width": side}
            made.append(pipeline(list(prompts[rows]), num_inference_steps=self.steps, generator=noise,
                                 guidance_scale=self.guidance, output_type="np", **size, **own).images)
        return np.round(np.concatenate(made) * 255).astype(np.uint8)


def _quiet(pipeline: AnyPipeline, device: str) -> AnyPipeline:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def edge_f1(found: np.ndarray, wanted: np.ndarray, tolerance: int = _TOLERANCE) -> float:
    """F1 of edges uint8 (h, w) against edges, each right where the other has one within the tolerance (pixels)."""
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * tolerance + 1,) * 2)
    near = [cv2.dilate(edges, reach) > 0 for edges in (found, wanted)]
    precision = near[1][found > 0].mean() if found.any() else 0.0
    recall = near[0][wanted > 0].mean() if wanted.any() else 0.0
    return float(2 * precision * recall / max(precision + recall, 1e-9))


def rank_correlation(found: np.ndarray, wanted: np.ndarray) -> float:
    """Spearman's rank correlation of two depths (h, w)."""
    result: Any = cast("Any", spearmanr(found.ravel(), wanted.ravel()))  # scipy annotates no result
    return float(result.statistic)


def _closeness(kind: str, trial: Trial, pictures: Pictures, images: np.ndarray) -> dict[str, float]:
    """How near pictures come to the control of the renders, averaged, by the name of the measure."""
    if kind == "edge":
        mapper = CannyMapper()
        pairs = zip(mapper.seen(images), mapper.seen(pictures.images), strict=True)
        return {"edge F1": float(np.mean([edge_f1(found, wanted) for found, wanted in pairs]))}
    reading = read(trial.reader, images)
    side = reading.mask.shape[-1]
    if kind == "depth":
        depths = [cv2.resize(depth, (side, side), interpolation=cv2.INTER_AREA) for depth in pictures.depths]
        pairs = zip(reading.depth.numpy(), depths, strict=True)
        return {"rank correlation": float(np.mean([rank_correlation(*pair) for pair in pairs]))}
    two_legged = [scene.subject in BIPEDS for scene in pictures.scenes]  # of others the reader knows no keypoints
    apart = np.linalg.norm((reading.keypoints.numpy() - pictures.skeletons[..., :2])[two_legged], axis=-1)
    masks = np.stack([cv2.resize(m, (side, side), interpolation=cv2.INTER_AREA) for m in pictures.masks]) > 127
    found = reading.mask.numpy() > 0.5
    overlap = (found & masks).sum((1, 2)) / (found | masks).sum((1, 2))
    return {"keypoint error, % of frame": 100 * float(apart.mean()),
            "keypoints within 5 %": 100 * float((apart < _CLOSE).mean()),
            "mask IoU": float(overlap.mean())}


def control_table(kind: str, trial: Trial) -> tuple[dict[str, dict[str, float]], np.ndarray]:
    """Rows of the table of a control, and pictures to look at: control, result, without."""
    pictures = trial.pictures
    maps = control_maps(kind, pictures, np.arange(len(pictures.images)))
    found = trial.sampled(_steered(kind, trial, trial.base), trial.prompts, image=_as_images(maps))
    without = trial.sampled(trial.base, trial.prompts)
    rows = {name: _closeness(kind, trial, pictures, images) | _subject_right(trial, images)
            for name, images in (("with the ControlNet", found), ("without", without),
                                 ("the renders themselves", pictures.images))}
    return rows, np.stack([maps, found, without], axis=1)


def _steered(kind: str, trial: Trial, pipeline: StableDiffusionPipeline) -> StableDiffusionControlNetPipeline:
    """The pipeline with the family's ControlNet of a kind."""
    controlnet = ControlNetModel.from_pretrained(trial.model / f"controlnet-{kind}", dtype=torch.float32)
    parts = {name: part for name, part in pipeline.components.items() if name != "image_encoder"}
    return _quiet(StableDiffusionControlNetPipeline(
        **parts, controlnet=controlnet, requires_safety_checker=False), trial.device)


def _as_images(pictures: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(one) for one in pictures]


def _subject_right(trial: Trial, images: np.ndarray) -> dict[str, float]:
    seen = verdicts(trial.judge, images)
    right = [LOOK_HEADS["subject"][number] == scene.subject
             for number, scene in zip(seen["subject"].tolist(), trial.pictures.scenes, strict=True)]
    return {"subject right": 100 * float(np.mean(right))}


_KEPT = {"night": ("subject", "color", "place"), "pencil sketch": ("subject", "place"),
         "snowfall": ("subject", "color", "place"), "color": ("subject", "place"),
         "subject": ("color", "place"), "place": ("subject", "color")}


def _edit_row(trial: Trial, edits: list[Edit], images: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Whether edits happened, whether the rest stayed, and the distance from the renderer's own answer."""
    seen = verdicts(trial.judge, images)
    done, kept = [], []
    for number, edit in enumerate(edits):
        words = {head: LOOK_HEADS[head][seen[head][number]] for head in LOOK_HEADS}
        done.append(words[edit.kind] == getattr(edit.after, edit.kind) if edit.kind in HEADS
                    else words["look"] == edit.kind)
        kept.append(all(words[head] == getattr(edit.before, head) for head in _KEPT[edit.kind]))
    error = np.square(images.astype(np.float32) / 255 - after.astype(np.float32) / 255).mean((1, 2, 3))
    return {"edit done": 100 * float(np.mean(done)), "rest kept": 100 * float(np.mean(kept)),
            "both": 100 * float(np.mean(np.array(done) & np.array(kept))),
            "PSNR to the render": float(np.mean(-10 * np.log10(np.maximum(error, _SAME))))}


def edit_table(trial: Trial) -> tuple[dict[str, dict[str, float]], np.ndarray]:
    """Rows of the table of edits, by kind, and pictures to look at: before, after, by the renderer."""
    editor = UNet2DConditionModel.from_pretrained(trial.model / "instruct-pix2pix", dtype=torch.float32)
    base = trial.base
    pipeline = _quiet(StableDiffusionInstructPix2PixPipeline(
        vae=base.vae, text_encoder=base.text_encoder, tokenizer=base.tokenizer, unet=editor,
        scheduler=base.scheduler, **WITHOUT_CHECKER),
        trial.device)
    rng = np.random.default_rng(_SEED)
    edits = [random_edit(scene, rng) for scene in trial.pictures.scenes]
    asked = [instructions(edit)[0] for edit in edits]
    before = trial.pictures.images
    found = trial.sampled(pipeline, asked, image=_as_images(before))
    after = np.stack([render_edit(edit, before.shape[1])[0] for edit in edits])
    rows = {}
    for kind in (*EDITS, "all"):
        some = [number for number, edit in enumerate(edits) if kind in {edit.kind, "all"}]
        chosen = [edits[number] for number in some]
        for name, images in (("", found), (", the clip as it was", before), (", the renderer's answer", after)):
            if some and (not name or kind == "all"):
                rows[f"{kind} ({len(some)}){name}"] = _edit_row(trial, chosen, images[some], after[some])
    return rows, np.stack([before, found, after], axis=1)


def style_table(trial: Trial) -> tuple[dict[str, dict[str, float]], np.ndarray]:
    """Rows of the table of styles, and pictures to look at, one column for each row of it."""
    rows, columns = {}, []
    edges = _as_images(control_maps("edge", trial.pictures, np.arange(len(trial.pictures.images))))
    for name, style in STYLES.items():
        known = DREAMBOOTH_STYLES[name.replace("style", "toyland")]
        trial = replace(trial, guidance=defaults_of("dreambooth", known.name)["guidance_scale"])
        pipeline = _quiet(StableDiffusionPipeline.from_pretrained(trial.model, dtype=torch.float32), trial.device)
        called = [f"{prompt}, {style.trigger}" for prompt in trial.prompts]
        results = {"the base model, with its words": trial.sampled(pipeline, called)}
        if style.lora:
            (adapter,) = known.checkpoint.adapters
            pipeline.load_lora_weights(str(trial.model / name), adapter_name=style.look)
            pipeline.set_adapters(style.look, adapter.weight)
        else:
            unet = UNet2DConditionModel.from_pretrained(trial.model / name, dtype=torch.float32)
            torch.nn.Module.to(unet, trial.device)
            pipeline.unet = unet
        results |= {"the style, with its words": trial.sampled(pipeline, called),
                    "the style, without them": trial.sampled(pipeline, trial.prompts),
                    "the style, with its words and edges":
                        trial.sampled(_steered("edge", trial, pipeline), called, image=edges)}
        for kind, images in results.items():
            looks = verdicts(trial.judge, images)["look"].tolist()
            share = np.mean([LOOK_HEADS["look"][look] == style.look for look in looks])
            rows[f"{style.look}: {kind}"] = {"look seen": 100 * float(share)} | _subject_right(trial, images)
        columns.extend(results.values())
    return rows, np.stack(columns, axis=1)


def _print_table(title: str, rows: dict[str, dict[str, float]]) -> None:
    names = list(next(iter(rows.values())))
    print(f"\n| {title} | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(f'{value:.3g}' for value in values.values())} |", flush=True)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("assets/toyland"))
    parser.add_argument("--device", default="cpu", help="where pictures are sampled")
    parser.add_argument("--task", choices=_TASKS, nargs="+", default=list(_TASKS))
    parser.add_argument("--pictures", type=int, default=96, help="half of held-out combinations")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance-scale", type=float, default=4.0, help="of all but the styles, which have their own")
    parser.add_argument("--grid-folder", type=Path, help="write pictures to look at here, a file for each task")
    parser.add_argument("--report", type=Path, help="write the tables here (JSON)")
    return parser.parse_args(argv)


def _asked_for(folder: Path, count: int, side: int) -> Pictures:
    """Unseen renders of what the models were taught to draw, half of held-out combinations."""
    recipe = PRESETS["cpu"]
    halves = [render_pictures(folder / str(held_out), count // 2, side, _SEED, held_out=held_out, shown=recipe.teaches)
              for held_out in (False, True)]
    arrays = {name: np.concatenate([getattr(half, name) for half in halves]) for name in ARRAYS}
    return Pictures(**arrays, scenes=[scene for half in halves for scene in half.scenes])


def main(argv: list[str] | None = None) -> None:
    """See the module."""
    options = _arguments(argv)
    config: Any = AutoencoderKL.load_config(options.model / "vae")
    side = config["sample_size"]
    report = {}
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(options.model, _asked_for(Path(folder), options.pictures, side),
                      options.steps, options.guidance_scale, options.device)
        for task in options.task:
            if task in CONTROLS:
                rows, seen = control_table(task, trial)
            else:
                rows, seen = (edit_table if task == "instruct-pix2pix" else style_table)(trial)
            _print_table(task, rows)
            report[task] = rows
            if options.grid_folder:
                options.grid_folder.mkdir(parents=True, exist_ok=True)
                shown = seen[:: max(1, len(seen) // 8)][:8]
                save_grid(shown.transpose(1, 0, 2, 3, 4).reshape(-1, *shown.shape[2:]),
                          options.grid_folder / f"{task}.png", len(shown))
    if options.report:
        options.report.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

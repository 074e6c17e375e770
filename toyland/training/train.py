"""One command that trains the whole embedded family, stage by stage, skipping what is complete.

    python -m toyland.training.train --preset cpu --out assets/toyland

Checkpoints lie in the work folder; a run that was cut off goes on where it was. With `--start` the
weights go on from those of an earlier family, also from one with fewer latent channels; without the stage
`autoencoder` they go on in its latents.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from diffusers import StableDiffusionPipeline
from torch import distributed as dist
from transformers import CLIPModel, CLIPTokenizer

from toyland.judges.judge import build_judge, save_judge, train_judge
from toyland.parts.autoencoder import build_autoencoder, train_autoencoder
from toyland.parts.clip import build_clip, token_table, train_clip
from toyland.parts.unet import DrawingParts, ReadingLessons, build_unet, train_unet, widened
from toyland.training.dataset import Pictures, render_pictures
from toyland.training.export import (
    export_clip,
    export_pipeline,
    export_vocabulary,
    text_encoder_of,
)
from toyland.training.latents import FamilyTraining, Latents, scale_latents
from toyland.training.loop import load_trained
from toyland.training.noising import build_scheduler
from toyland.training.options import (
    chosen_device,
    chosen_recipe,
    chosen_work_folder,
    run_in_order,
    training_options,
)
from toyland.training.texts import corpus, lessons
from toyland.training.tokenizer import build_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from diffusers import AutoencoderKL


__all__ = ["STAGES", "Family", "main", "run_stage"]

_JUDGE_SEED = 1_000
_CORPUS_SCENES = 4_000


@dataclass
class Family(FamilyTraining):
    """The parts: `train_*` trains (or resumes) one, the properties read what is complete."""

    @cached_property
    def earlier(self) -> StableDiffusionPipeline | None:
        """The family whose weights this one goes on from."""
        if self.start is None:
            return None
        return StableDiffusionPipeline.from_pretrained(self.start, dtype=torch.float32)

    @cached_property
    def judge_pictures(self) -> Pictures:
        """What the judge sees: all combinations."""
        recipe = self.recipe
        return render_pictures(self.work / "judge_pictures", recipe.judge_pictures, recipe.size,
                               recipe.seed + _JUDGE_SEED, held_out=None)

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer, learned in a second."""
        if self.earlier is not None:
            return self.earlier.tokenizer
        folder = self.work / "tokenizer"
        if (folder / "merges.txt").exists():
            return CLIPTokenizer.from_pretrained(folder)
        texts = corpus(self.pictures.scenes[:_CORPUS_SCENES], self.recipe.seed)
        return build_tokenizer(texts, self.recipe.clip.tokens, folder)

    def train_autoencoder(self) -> None:
        """Pixels to latents and back."""
        train_autoencoder(self.recipe, self.pictures, self.checkpoint("autoencoder"), self.device,
                          self.earlier and self.earlier.vae)

    @cached_property
    def autoencoder(self) -> AutoencoderKL:
        """The autoencoder with its scaling factor; the earlier family's until it has been trained further."""
        if self.earlier is not None and not self.checkpoint("autoencoder").exists():
            return self.earlier.vae.to(self.device)
        model = build_autoencoder(self.recipe.autoencoder, self.recipe.size)
        load_trained(model, self.checkpoint("autoencoder"))
        torch.nn.Module.to(model, self.device).eval()
        scale_latents(model, self.pictures, self.device, self.earlier and self.earlier.vae)
        return model

    def encoder(self) -> AutoencoderKL:
        """The trained autoencoder."""
        return self.autoencoder

    def train_clip(self) -> None:
        """Texts and pictures in one space."""
        train_clip(self.recipe, self.pictures, self.tokenizer, self.checkpoint("clip"),
                   self.device)

    @cached_property
    def clip(self) -> CLIPModel:
        """The CLIP pair."""
        model = build_clip(self.recipe.clip, self.tokenizer)
        load_trained(model, self.checkpoint("clip"))
        return model.eval()

    @cached_property
    def drawing_parts(self) -> DrawingParts:
        """UNet and text encoder as their training finds them: new, or as the earlier family has left them."""
        recipe = self.recipe
        unet = build_unet(recipe.unet, recipe.clip.text_width, *self.latents.values.shape[1:3])
        if self.earlier is None:
            return DrawingParts(unet, text_encoder_of(self.clip))
        return DrawingParts(widened(self.earlier.unet, unet), self.earlier.text_encoder)

    def train_judge(self) -> None:
        """Pictures to attributes, apart from all generators."""
        train_judge(self.recipe, self.judge_pictures, self.checkpoint("judge"), self.device)

    def train_unet(self) -> None:
        """Noise in latents, by text."""
        reading = ReadingLessons(lessons(self.pictures.scenes, self.recipe.seed), self.tokenizer)
        self._train_drawing("unet", slice(None), reading)

    def train_unet_on_right(self) -> None:
        """The UNet alone on the subjects that face right, see `Pictures.closing_rows`."""
        if self.start is None or self.checkpoint("unet").exists():
            load_trained(self.drawing_parts, self.checkpoint("unet"))
        self._train_drawing("unet-right", self.pictures.closing_rows, None)

    def _train_drawing(self, part: str, rows: np.ndarray | slice, reading: ReadingLessons | None) -> None:
        """Train by the plan of that name on some of the pictures."""
        recipe = self.recipe
        latents = Latents(self.latents.values[rows], self.latents.masks[rows])
        tokens = token_table(self.pictures, self.tokenizer, recipe.captions, recipe.seed)[rows]
        train_unet(recipe, recipe.plans[part], latents, tokens, reading, self.tokenizer,
                   self.drawing_parts, self.checkpoint(part), self.device)

    def export(self) -> None:
        """Write the family; the UNet may still be in training in another process."""
        parts = self.drawing_parts.cpu()
        found = [path for path in map(self.checkpoint, ("unet", "unet-right")) if path.exists()]
        newest = max(found, key=lambda path: path.stat().st_mtime_ns, default=self.checkpoint("unet"))
        share = load_trained(parts, newest)
        print(f"exporting a UNet that is {100 * share:.0f} % trained", flush=True)
        export_vocabulary(self.out)
        export_pipeline(self.out, unet=parts.unet, autoencoder=self.autoencoder,
                        text_encoder=parts.text_encoder, tokenizer=self.tokenizer,
                        scheduler=build_scheduler())
        if self.start is not None:  # judge and CLIP pair know pictures, not latents: the earlier ones serve
            for part in ("clip", "judge") if self.start != self.out else ():
                shutil.copytree(self.start / part, self.out / part, dirs_exist_ok=True)
            return
        export_clip(self.out, self.clip, self.tokenizer)
        judge = build_judge(self.recipe)
        load_trained(judge, self.checkpoint("judge"))
        save_judge(judge, self.out / "judge")


STAGES: dict[str, Callable[[Family], object]] = {
    "pictures": lambda family: (family.pictures, family.judge_pictures, family.tokenizer),
    "clip": Family.train_clip,
    "judge": Family.train_judge,
    "autoencoder": Family.train_autoencoder,
    "latents": lambda family: family.latents,
    "unet": Family.train_unet,
    "unet-right": Family.train_unet_on_right,
    "export": Family.export,
}
"""In an order in which each finds what it builds on."""

_SHARED = ("clip", "judge", "autoencoder", "unet", "unet-right")


def _work_on(rank: int, stage: str, family: Family, workers: int, meeting: str) -> None:
    """One of several single-threaded workers on a stage, each with its part of every batch.

    They meet once a step. Threads within an operation meet thousands of times, which is slower
    even on idle cores and far slower where other programs run.
    """
    torch.set_num_threads(1)
    plan = family.recipe.plans[stage]
    family.recipe.plans[stage] = replace(plan, batch=max(1, plan.batch // workers))
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=workers)
    STAGES[stage](family)
    dist.destroy_process_group()


def run_stage(stage: str, family: Family, workers: int) -> None:
    """Run a stage here, or on several workers where it is a training on the CPU."""
    if stage not in _SHARED or workers < 2:
        STAGES[stage](family)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/meeting"
        fresh = Family(family.recipe, family.work, family.out, family.device, family.start)
        torch.multiprocessing.spawn(
            _work_on, (stage, fresh, workers, meeting), nprocs=workers)


def main(argv: list[str] | None = None) -> None:
    """See the module."""
    parser = training_options(__doc__, STAGES, "unet=60 autoencoder=30")
    parser.add_argument("--workers", type=int, default=os.cpu_count(),
                        help="training processes on the CPU")
    options = parser.parse_args(argv)
    device = chosen_device(options)
    family = Family(chosen_recipe(options), chosen_work_folder(options), options.out, device, options.start)
    workers = options.workers if device == "cpu" else 1
    run_in_order(STAGES, options.stage, lambda name: run_stage(name, family, workers))


if __name__ == "__main__":
    main()

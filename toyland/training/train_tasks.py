"""One command that trains what the tasks need on top of the base model: controls, edits, styles.

    python -m toyland.training.train_tasks --preset cpu --out assets/toyland

It reads the base model from its folder, as `toyland.training.train` has left it, and writes beside it.
Checkpoints lie in the work folder; a run that was cut off goes on where it was.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
from diffusers import ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel

from toyland.judges.defects import render_flawed, save_defect_judge, train_defect_judge
from toyland.judges.judge import load_judge, save_judge, train_look_judge
from toyland.judges.reader import save_reader, train_reader
from toyland.parts.controlnet import train_controlnet
from toyland.parts.controls import CONTROLS
from toyland.parts.decoder import train_decoder
from toyland.parts.editor import EditPairs, edit_pairs, train_editor
from toyland.parts.student import STUDENT, resampled, train_student
from toyland.parts.style import STYLES, train_style
from toyland.training.dataset import Pictures, render_pictures
from toyland.training.export import export_lora, export_network, export_vocabulary
from toyland.training.latents import FamilyTraining
from toyland.training.loop import save_atomically
from toyland.training.options import (
    chosen_device,
    chosen_recipe,
    chosen_work_folder,
    run_in_order,
    training_options,
)
from toyland.world.edits import instruction_vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import AutoencoderKL
    from torch import Tensor

__all__ = ["STAGES", "TaskModels", "main"]

_JUDGE_SEED = 3_000


@dataclass
class TaskModels(FamilyTraining):
    """What is trained on a base model that is already there; each training exports what it made.

    out: folder of the base model.  start: of an earlier family, whose ControlNets, editor, look judge and student these
    go on from.
    """

    @cached_property
    def base(self) -> StableDiffusionPipeline:
        """The base model in float32."""
        return StableDiffusionPipeline.from_pretrained(self.out, dtype=torch.float32)

    def encoder(self) -> AutoencoderKL:
        """The base model's."""
        return self.base.vae.to(self.device)

    @cached_property
    def sampled(self) -> Tensor:
        """All pictures' latents as the student samples them."""
        cache = self.work / "resampled.pt"
        if not cache.exists():
            student = StableDiffusionPipeline.from_pretrained(self.out, dtype=torch.float32)
            student.load_lora_weights(str(self.out / STUDENT))
            save_atomically(
                resampled(self.recipe, student, self.pictures, self.latents.values, self.device), cache)
        return torch.load(cache, weights_only=True, mmap=True)

    def train_decoder(self) -> None:
        """Latents to pixels once more, with the encoder as it is."""
        made = train_decoder(self.recipe, self.pictures, self.latents.values, self.sampled, self.encoder(),
                             load_judge(self.out / "judge"), self.checkpoint("decoder"))
        export_network(made, self.out / "vae")

    def train_controlnet(self, kind: str) -> None:
        """A clip's edges, poses or depth to a picture."""
        part = f"controlnet-{kind}"
        start = self.start and ControlNetModel.from_pretrained(self.start / part)
        made = train_controlnet(kind, self.recipe, self.base, self.pictures, self.latents,
                                self.checkpoint(part), self.device, start)
        export_network(made, self.out / part)

    @cached_property
    def edits(self) -> EditPairs:
        """Pictures, instructions, and the pictures that should come of them."""
        return edit_pairs(self.recipe, self.base, self.pictures, self.work / "edits.pt",
                          self.device, torch.get_num_threads())

    def train_editor(self) -> None:
        """A picture and an instruction to another picture."""
        part = "instruct-pix2pix"
        start = self.start and UNet2DConditionModel.from_pretrained(self.start / part)
        made = train_editor(self.recipe, self.base, self.latents, self.edits,
                            self.checkpoint(part), self.device, start)
        export_network(made, self.out / part)
        export_vocabulary(self.out / part, instruction_vocabulary())

    @cached_property
    def judge_pictures(self) -> Pictures:
        """What judge and reader see: all combinations, all poses."""
        recipe = self.recipe
        return render_pictures(self.work / "task_judge_pictures", recipe.judge_pictures,
                               recipe.size, recipe.seed + _JUDGE_SEED, held_out=None)

    def train_look_judge(self) -> None:
        """Pictures to attributes and looks."""
        start = self.start and load_judge(self.start / "look-judge")
        made = train_look_judge(
            self.recipe, self.judge_pictures, self.checkpoint("look-judge"), self.device, start)
        save_judge(made.cpu(), self.out / "look-judge")

    def train_reader(self) -> None:
        """Pictures to keypoints, masks and depth."""
        made = train_reader(
            self.recipe, self.judge_pictures, self.checkpoint("reader"), self.device)
        save_reader(made.cpu(), self.out / "reader")

    def train_defect_judge(self) -> None:
        """Pictures to what is wrong with their subject."""
        flawed = render_flawed(
            self.judge_pictures, self.recipe.judge_pictures, self.work / "flawed.npz")
        made = train_defect_judge(self.recipe, self.judge_pictures, flawed, load_judge(self.out / "judge"),
                                  self.checkpoint("defect-judge"), self.device)
        save_defect_judge(made.cpu(), self.out / "defect-judge")

    def train_student(self) -> None:
        """Many steps with guidance to a few without."""
        earlier = self.start and self.start / STUDENT
        start = earlier if earlier and earlier.is_dir() else None  # families of before had none
        made = train_student(self.recipe, self.base, self.pictures, self.latents,
                             self.checkpoint(STUDENT), self.device, start)
        export_lora(made, self.out / STUDENT)

    def train_style(self, name: str) -> None:
        """A dozen pictures to a style."""
        base = StableDiffusionPipeline.from_pretrained(self.out, dtype=torch.float32)
        edges = ControlNetModel.from_pretrained(self.out / "controlnet-edge")
        made = train_style(name, self.recipe, base, edges, self.pictures, self.latents,
                           self.checkpoint(name), self.device)
        (export_lora if STYLES[name].lora else export_network)(made, self.out / name)


STAGES: dict[str, Callable[[TaskModels], object]] = {
    "latents": lambda models: models.latents,
    STUDENT: TaskModels.train_student,
    "decoder": TaskModels.train_decoder,
    **{f"controlnet-{kind}": partial(TaskModels.train_controlnet, kind=kind) for kind in CONTROLS},
    **{name: partial(TaskModels.train_style, name=name) for name in STYLES},
    "look-judge": TaskModels.train_look_judge,
    "reader": TaskModels.train_reader,
    "defect-judge": TaskModels.train_defect_judge,
    "edits": lambda models: models.edits,
    "instruct-pix2pix": TaskModels.train_editor,
}
"""In an order in which each finds what it builds on: of the trainings the styles do, on the ControlNet of edges."""


def main(argv: list[str] | None = None) -> None:
    """See the module."""
    parser = training_options(
        __doc__, STAGES, "decoder=30 controlnet-pose=10")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="on the CPU")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    models = TaskModels(
        chosen_recipe(options), chosen_work_folder(options), options.out, chosen_device(options), options.start)
    run_in_order(STAGES, options.stage, lambda name: STAGES[name](models))


if __name__ == "__main__":
    main()

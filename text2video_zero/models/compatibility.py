"""What does not fit together and what cannot be read, in one sentence each."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pickle import UnpicklingError
from traceback import walk_tb
from typing import TYPE_CHECKING

from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.loaders.single_file_utils import SingleFileComponentError
from safetensors import SafetensorError

from text2video_zero.errors import UserError
from text2video_zero.models.catalogue import name_of
from text2video_zero.models.checkpoints import INSTRUCT_PIX2PIX, TEXT_TO_IMAGE, short_name
from text2video_zero.models.weights import FAMILY_NAMES, family_of_unet, is_lora, lora_text_width

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from diffusers import ControlNetModel, UNet2DConditionModel

    from text2video_zero.models.checkpoints import Checkpoint
    from text2video_zero.models.weights import Shapes


# What a model_index.json may name, and what reads it
PIPELINE_CLASSES = {
    "StableDiffusionPipeline": StableDiffusionPipeline,
    "StableDiffusionControlNetPipeline": StableDiffusionPipeline,
    "StableDiffusionInstructPix2PixPipeline": StableDiffusionPipeline,
    "StableDiffusionXLPipeline": StableDiffusionXLPipeline,
}
# What tells of a file by its class: OSError of one that is missing, empty or no JSON (diffusers and transformers raise
# it bare; the Hub client's EntryNotFoundError is one), the others of what is in it.
UNREADABLE = (
    OSError,
    SafetensorError,
    SingleFileComponentError,
    json.JSONDecodeError,
    UnicodeDecodeError,
    UnpicklingError,
)
# Of tensors of another shape or name the libraries tell by a bare ValueError, KeyError or RuntimeError. These count
# where they are raised by the modules that hold a file against its configuration, and are bugs anywhere else.
READERS = (
    "controlnet_aux",
    "diffusers.configuration_utils",
    "diffusers.loaders",
    "diffusers.models.model_loading_utils",
    "diffusers.models.modeling_utils",
    "diffusers.pipelines.pipeline_loading_utils",
    "diffusers.pipelines.pipeline_utils",
    "diffusers.utils.peft_utils",
    "peft",
    "torch.nn.modules.module",  # load_state_dict
    "torch.serialization",
    "transformers.configuration_utils",
    "transformers.core_model_loading",
    "transformers.modeling_utils",
    "transformers.models.auto",
    "transformers.utils.loading_report",
)


@contextmanager
def errors_in_one_sentence(source: str) -> Generator[None]:
    """A file that cannot be read becomes a UserError; every other error is a bug, and stays what it is.

    source: how the person named the model.
    """
    try:
        yield
    except (*UNREADABLE, ValueError, KeyError, RuntimeError) as error:
        if not isinstance(error, UNREADABLE) and not _raised_by_a_reader(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"The model {short_name(source)!r} could not be read ({reason.rstrip('.')}): check that it is complete "
            "and of the kind that is asked for."
        ) from error


def _raised_by_a_reader(error: Exception) -> bool:
    *_, (innermost, _) = walk_tb(error.__traceback__)
    module = str(innermost.f_globals.get("__name__"))
    return any(module == reader or module.startswith(f"{reader}.") for reader in READERS)


def pipeline_class_of(folder: Path) -> type[StableDiffusionPipeline | StableDiffusionXLPipeline]:
    """The class that reads a whole model in a folder; raises UserError for other folders, and for other models."""
    if not (folder / "model_index.json").is_file():
        raise UserError(f"The folder {folder.name!r} holds no model_index.json: give a folder in diffusers layout.")
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    kind = index.get("_class_name", "pipeline of no class")
    if kind not in PIPELINE_CLASSES:
        raise UserError(f"The folder {folder.name!r} holds a {kind}: choose a Stable Diffusion 1.x, 2.x or XL model.")
    return PIPELINE_CLASSES[kind]


def check_kind(checkpoint: Checkpoint, unet: UNet2DConditionModel) -> None:
    """Raises UserError where the UNet takes other inputs than the task gives it."""
    latents = unet.config["out_channels"]  # 4 of Stable Diffusion 1.x to XL, others have more
    kinds = {latents: TEXT_TO_IMAGE, 2 * latents: INSTRUCT_PIX2PIX, 2 * latents + 1: "inpainting"}
    kind = kinds.get(unet.config["in_channels"], "other inputs")
    if kind != checkpoint.kind:
        raise UserError(f"The model {name_of(checkpoint)!r} is made for {kind}: choose one for {checkpoint.kind} here.")


def check_controlnet(
    source: str, controlnet: ControlNetModel, checkpoint: Checkpoint, unet: UNet2DConditionModel
) -> None:
    """Raises UserError where the ControlNet was made for a UNet of another shape.

    source: how the person named the ControlNet.
    """
    if any(controlnet.config[name] != unet.config[name] for name in ("cross_attention_dim", "block_out_channels")):
        ours, theirs = (FAMILY_NAMES[family_of_unet(model.config)] for model in (unet, controlnet))
        raise UserError(
            f"The ControlNet {short_name(source)!r} ({theirs}) does not fit the model "
            f"{name_of(checkpoint)!r} ({ours}): choose a ControlNet of that model's own kind."
        )


def check_adapter(source: str, file: Path, shapes: Shapes, unet: UNet2DConditionModel) -> None:
    """Raises UserError where the file is no LoRA, or one that was trained on a model of another shape.

    source: how the person named it.  shapes: of the file's tensors.
    """
    if not is_lora(shapes):
        raise UserError(f"The file {file.name!r} is no LoRA: give a whole model as the model, not as an adapter.")
    theirs, ours = lora_text_width(shapes), unet.config["cross_attention_dim"]
    if theirs not in {None, ours}:
        raise UserError(
            f"The LoRA {short_name(source)!r} was made for another base (text width {theirs}, the model's is {ours}): "
            "choose one that was trained on the model's own family."
        )

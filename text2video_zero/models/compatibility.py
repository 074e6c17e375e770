"""What does not fit together and what cannot be read, in one sentence each."""

from __future__ import annotations

import json
import reprlib
from contextlib import contextmanager
from pickle import UnpicklingError
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.loaders.single_file_utils import SingleFileComponentError
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from text2video_zero.errors import UserError, ran_out_of_memory
from text2video_zero.models.catalogue import name_of
from text2video_zero.models.checkpoints import INSTRUCT_PIX2PIX, TEXT_TO_IMAGE, short_name
from text2video_zero.models.files.configurations import read_json
from text2video_zero.models.weights import (
    FAMILY_NAMES,
    family_of_unet,
    index_of,
    is_inversion,
    is_lora,
    lora_text_width,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from diffusers import ControlNetModel, UNet2DConditionModel

    from text2video_zero.models.checkpoints import Checkpoint
    from text2video_zero.models.weights import Shapes


PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")  # that a model_index.json must name
# What a model_index.json may name, and what reads it
PIPELINE_CLASSES = {
    "StableDiffusionPipeline": StableDiffusionPipeline,
    "StableDiffusionControlNetPipeline": StableDiffusionPipeline,
    "StableDiffusionInstructPix2PixPipeline": StableDiffusionPipeline,
    "StableDiffusionXLPipeline": StableDiffusionXLPipeline,
}
# Of a scheduler's configuration
KNOWN_OPTIONS = {
    "beta_schedule": ("scaled_linear", "linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "timestep_spacing": ("leading", "linspace", "trailing"),
}
FEWEST_TIMESTEPS, MOST_TIMESTEPS = 40, 100_000
# What tells of a file by its class: OSError of one that is missing, empty or no JSON (diffusers and transformers raise
# it bare; the Hub client's EntryNotFoundError is one), the others of what is in it.
UNREADABLE = (
    OSError,
    SafetensorError,
    SingleFileComponentError,
    json.JSONDecodeError,
    StrictDataclassError,  # transformers', of a configuration's values
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
    "diffusers.utils.hub_utils",  # lists of the files that weights are spread over
    "diffusers.utils.peft_utils",
    "lycoris",
    "peft",
    "torch.nn.modules.module",  # load_state_dict
    "torch.serialization",
    "transformers.configuration_utils",
    "transformers.core_model_loading",
    "transformers.modeling_utils",
    "transformers.models.auto",
    "transformers.utils.loading_report",
)
# What Python and torch raise of a network of a size or shape that none can have, and where libraries build one
IMPOSSIBLE = (TypeError, ArithmeticError, AttributeError, IndexError, AssertionError)
BUILDERS = frozenset(
    {"diffusers.configuration_utils", "transformers.configuration_utils", "transformers.modeling_utils"}
)
BUILDING = frozenset({"from_config", "from_dict", "from_pretrained"})
MADE = frozenset({"__init__", "init_with_validate"})  # the latter of the Hub client's strict dataclasses


@contextmanager
def errors_in_one_sentence(source: str) -> Generator[None]:
    """A file that cannot be read, or that no memory holds, becomes a UserError; every other error is a bug, and stays.

    source: how the person named the model.
    """
    try:
        yield
    except (*UNREADABLE, *IMPOSSIBLE, ValueError, KeyError, RuntimeError, MemoryError) as error:
        if ran_out_of_memory(error):
            raise UserError(
                f"The memory does not hold the model {short_name(source)!r}: close other programs, or choose a smaller "
                "model."
            ) from error
        told = isinstance(error, UNREADABLE) or _raised_while_building(error)
        if not told and (isinstance(error, IMPOSSIBLE) or not _raised_by_a_reader(error)):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"The model {short_name(source)!r} could not be read ({reason.rstrip('.:')}): check that it is complete "
            "and of the kind that is asked for."
        ) from error


def _raised_by_a_reader(error: Exception) -> bool:
    *_, (innermost, _) = walk_tb(error.__traceback__)
    module = str(innermost.f_globals.get("__name__"))
    return any(module == reader or module.startswith(f"{reader}.") for reader in READERS)


def _raised_while_building(error: Exception) -> bool:
    """Whether a network was being built of what its configuration says: in what makes it, below a builder."""
    frames = iter([frame for frame, _ in walk_tb(error.__traceback__)])
    builds = any(frame.f_globals.get("__name__") in BUILDERS and frame.f_code.co_name in BUILDING for frame in frames)
    return builds and any(frame.f_code.co_name in MADE for frame in frames)  # of the frames further in


def pipeline_class_of(folder: Path) -> type[StableDiffusionPipeline | StableDiffusionXLPipeline]:
    """The class that reads a whole model in a folder; raises UserError for other folders, and for other models."""
    index = read_json(index_of(folder))
    kind = index.get("_class_name", "pipeline of no class")
    if not isinstance(kind, str) or kind not in PIPELINE_CLASSES:
        kind = kind if isinstance(kind, str) and len(kind) < 60 else reprlib.repr(kind)
        raise UserError(f"The folder {folder.name!r} holds a {kind}: choose a Stable Diffusion 1.x, 2.x or XL model.")
    for part in PARTS:
        if not (isinstance(entry := index.get(part), list) and [type(value) for value in entry] == [str, str]):
            raise UserError(
                f"The folder {folder.name!r} has {reprlib.repr(entry)} for its {part} in model_index.json: download it "
                "again."
            )
    return PIPELINE_CLASSES[kind]


def check_kind(checkpoint: Checkpoint, unet: UNet2DConditionModel) -> None:
    """Raises UserError where the UNet takes other inputs than the task gives it."""
    latents = unet.config["out_channels"]  # 4 of Stable Diffusion 1.x to XL, others have more
    kinds = {latents: TEXT_TO_IMAGE, 2 * latents: INSTRUCT_PIX2PIX, 2 * latents + 1: "inpainting"}
    kind = kinds.get(unet.config["in_channels"], "other inputs")
    if kind != checkpoint.kind:
        raise UserError(f"The model {name_of(checkpoint)!r} is made for {kind}: choose one for {checkpoint.kind} here.")


def check_configuration(source: str, path: Path) -> None:
    """Raises UserError where a model's scheduler could not be made as it says.

    path: of the model, a folder, or a single file with a folder of its name beside it.
    """
    config = (path.with_suffix("") if path.is_file() else path) / "scheduler" / "scheduler_config.json"
    if config.is_file():
        check_scheduler(source, read_json(config))


def check_scheduler(source: str, config: Mapping[str, Any]) -> None:
    """Raises UserError where a scheduler's configuration asks for what no sampler here does, or no scheduler could.

    source: how the person named the model.
    """
    for name, known in KNOWN_OPTIONS.items():
        if config.get(name, known[0]) not in known:
            raise _unusable(source, name, config[name], f"{' or '.join(known)} is known here")
    for name in ("beta_start", "beta_end"):
        if not _is_level(config.get(name, 0.01)):
            raise _unusable(source, name, config[name], "it must lie between 0 and 1")
    steps = config.get("num_train_timesteps", 1000)
    if type(steps) is not int or not FEWEST_TIMESTEPS <= steps <= MOST_TIMESTEPS:
        raise _unusable(source, "num_train_timesteps", steps, "1000 is usual")
    levels = config.get("trained_betas")
    if levels is not None and not (isinstance(levels, list) and len(levels) == steps and all(map(_is_level, levels))):
        raise _unusable(source, "trained_betas", levels, f"it must be {steps} numbers between 0 and 1")


def _is_level(value: object) -> bool:
    return isinstance(value, float | int) and 0 < value <= 1


def _unusable(source: str, name: str, value: object, remedy: str) -> UserError:
    return UserError(
        f"The model {short_name(source)!r} has {name} = {reprlib.repr(value)} in its scheduler's configuration, but "
        f"{remedy}: mend it, or choose another model."
    )


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
    if is_inversion(shapes):
        raise UserError(
            f"The file {file.name!r} is a textual inversion: put it into models/ and write its name in the prompt."
        )
    if not is_lora(shapes):
        raise UserError(f"The file {file.name!r} is no LoRA: give a whole model as the model, not as an adapter.")
    theirs, ours = lora_text_width(shapes), unet.config["cross_attention_dim"]
    if theirs not in {None, ours}:
        raise UserError(
            f"The LoRA {short_name(source)!r} was made for another base (text width {theirs}, the model's is {ours}): "
            "choose one that was trained on the model's own family."
        )

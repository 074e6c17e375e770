"""What does not fit together and what cannot be read, in one sentence each."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from text2video_zero.errors import UserError
from text2video_zero.models.checkpoints import FAMILY_NAMES, INSTRUCT_PIX2PIX, TEXT_TO_IMAGE, family_of_unet, short_name
from text2video_zero.models.weights import is_lora, lora_text_width

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusers import ControlNetModel, UNet2DConditionModel

    from text2video_zero.models.checkpoints import Checkpoint
    from text2video_zero.models.weights import Shapes


@contextmanager
def errors_in_one_sentence(source: str) -> Iterator[None]:
    """Every reason why reading weights fails becomes a UserError."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"The model {short_name(source)!r} could not be read ({reason.rstrip('.')}): check that it is complete "
            "and of the kind that is asked for."
        ) from error


def refuse_other_kind_of_unet(checkpoint: Checkpoint, unet: UNet2DConditionModel) -> None:
    """Raises UserError where the UNet takes other inputs than the task gives it."""
    latents = unet.config.out_channels  # 4 of Stable Diffusion 1.x to XL, others have more
    kinds = {latents: TEXT_TO_IMAGE, 2 * latents: INSTRUCT_PIX2PIX, 2 * latents + 1: "inpainting"}
    kind = kinds.get(unet.config.in_channels, "other inputs")
    if kind != checkpoint.kind:
        raise UserError(f"The model {checkpoint.name!r} is made for {kind}: choose one for {checkpoint.kind} here.")


def refuse_other_family(checkpoint: Checkpoint, controlnet: ControlNetModel, unet: UNet2DConditionModel) -> None:
    """Raises UserError where the ControlNet was made for a UNet of another shape."""
    if any(controlnet.config[name] != unet.config[name] for name in ("cross_attention_dim", "block_out_channels")):
        ours, theirs = (FAMILY_NAMES[family_of_unet(model.config)] for model in (unet, controlnet))
        raise UserError(
            f"The ControlNet {short_name(checkpoint.controlnet)!r} ({theirs}) does not fit the model "
            f"{checkpoint.name!r} ({ours}): choose a ControlNet of that model's own kind."
        )


def refuse_other_adapter(source: str, file: Path, shapes: Shapes, unet: UNet2DConditionModel) -> None:
    """Raises UserError where the file is no LoRA, or one that was trained on a model of another shape.

    source: how the person named it.  shapes: of the file's tensors.
    """
    if not is_lora(shapes):
        raise UserError(f"The file {file.name!r} is no LoRA: give a whole model as the model, not as an adapter.")
    theirs, ours = lora_text_width(shapes), unet.config.cross_attention_dim
    if theirs not in {None, ours}:
        raise UserError(
            f"The LoRA {short_name(source)!r} was made for another base (text width {theirs}, the model's is {ours}): "
            "choose one that was trained on the model's own family."
        )

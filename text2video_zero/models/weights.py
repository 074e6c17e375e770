"""Looks into .safetensors files without loading them: whether they are whole, and what they are for."""

from __future__ import annotations

import json
import re
import struct
from types import MappingProxyType
from typing import TYPE_CHECKING

from text2video_zero.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Shapes = dict[str, tuple[int, ...]]

FAMILY_NAMES: Mapping[str, str] = MappingProxyType(
    {"sd1": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "Stable Diffusion XL", "toyland": "Toyland"}
)
LARGEST_HEADER = 100 * 2**20  # the format's own limit
LORA_KEY = re.compile(r"\.lora_(?:up|down|A|B)\.|\.lora\.(?:up|down)\.|_lora\.(?:up|down)\.")
TEXT_KEY_DOWN = re.compile(r"attn2[._](?:processor\.)?to_k(?:_lora)?\.(?:lora_down|lora_A|lora\.down|down)\.")
CONTROLNET_INPUT = re.compile(r"controlnet_cond_embedding\.conv_in\.weight$|input_hint_block\.0\.weight$")
FAMILY_OF_TEXT_WIDTH: Mapping[int, str] = MappingProxyType({768: "sd1", 1024: "sd2", 2048: "sdxl"})
UNET_INPUT = "model.diffusion_model.input_blocks.0.0.weight"


def read_shapes(path: Path) -> Shapes:
    """Shapes of all tensors of a .safetensors file, by name.

    Raises UserError when there is no such file, when it is another format under that name, or when its end is
    missing, as after a download that broke off.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, LARGEST_HEADER)))
        header.pop("__metadata__", None)
        shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except FileNotFoundError as error:
        raise UserError(f"The model file {path.name!r} does not exist: check the path.") from error
    # What is no header may be no JSON (JSONDecodeError and UnicodeDecodeError are ValueErrors), or any other.
    except (struct.error, ValueError, AttributeError, TypeError, LookupError) as error:
        raise UserError(
            f"The model file {path.name!r} is broken or no safetensors file: download it again, or convert it."
        ) from error
    if path.stat().st_size < end:
        raise UserError(f"The model file {path.name!r} ends at byte {path.stat().st_size} of {end}: download it again.")
    return shapes


def check_whole(folder: Path) -> None:
    """Raises UserError, naming the file, when a .safetensors file, or one in the folder or below, is not whole."""
    below = (*folder.glob("*.safetensors"), *folder.glob("*/*.safetensors"))
    for path in sorted(below) if folder.is_dir() else [folder]:
        read_shapes(path)


def variant_of(folder: Path) -> str | None:
    """Tell "fp16" where a folder has weights of that variant alone, None for the usual names."""
    names = [path.name for path in folder.glob("*.safetensors")]
    halves = [name for name in names if ".fp16" in name]
    return "fp16" if halves and len(halves) == len(names) else None


def family_of_file(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Tell "sd1", "sd2" or "sdxl" by a whole model's tensor names; raises UserError for anything else."""
    if UNET_INPUT not in shapes:
        what = "a LoRA" if is_lora(shapes) else "no Stable Diffusion model"
        raise UserError(f"The file {path.name!r} is {what}: choose a whole Stable Diffusion 1.x, 2.x or XL model.")
    for prefix, family in (
        ("conditioner.embedders.1.", "sdxl"),
        ("cond_stage_model.model.", "sd2"),
        ("cond_stage_model.transformer.", "sd1"),
    ):
        if any(name.startswith(prefix) for name in shapes):
            return family
    raise UserError(f"The file {path.name!r} holds no text encoder: choose a file that holds the whole model.")


def family_of_controlnet(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Tell "sd1", "sd2" or "sdxl" by a ControlNet's tensors; raises UserError for anything else."""
    widths = {shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")}
    families = {FAMILY_OF_TEXT_WIDTH.get(width, "") for width in widths}
    if not any(CONTROLNET_INPUT.search(name) for name in shapes) or len(families) != 1 or "" in families:
        raise UserError(f"The file {path.name!r} is no ControlNet: choose one that was made for the model's family.")
    return families.pop()


def family_of_unet(config: Mapping[str, object]) -> str:
    """Tell "sd1", "sd2" or "sdxl" by the configuration of a UNet or a ControlNet."""
    if config.get("addition_embed_type") == "text_time":
        return "sdxl"
    return "sd2" if config.get("cross_attention_dim") == 1024 else "sd1"


def is_lora(names: Iterable[str]) -> bool:
    """Whether tensors of these names are a LoRA."""
    return any(LORA_KEY.search(name) for name in names)


def is_lora_file(path: Path) -> bool:
    """Whether a .safetensors file is a LoRA; a broken one is not, so that whoever reads it says what is wrong."""
    try:
        return is_lora(read_shapes(path))
    except UserError:
        return False


def lora_text_width(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Width of the text embeddings that a LoRA was trained on; None where it does not touch them.

    It tells the bases apart: 768 for Stable Diffusion 1.x, 1024 for 2.x, 2048 for XL.
    """
    return next((shape[1] for name, shape in shapes.items() if TEXT_KEY_DOWN.search(name)), None)

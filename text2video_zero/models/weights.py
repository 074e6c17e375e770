"""Looks into files of weights without loading them: whether they are whole, and what they are for."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from text2video_zero.errors import UserError
from text2video_zero.models.files.configurations import read_json
from text2video_zero.models.files.pickled import is_pickle, pickled_shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Shapes = dict[str, tuple[int, ...]]

FAMILY_NAMES: Mapping[str, str] = MappingProxyType(
    {"sd1": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "Stable Diffusion XL", "toyland": "Toyland"}
)
LARGEST_HEADER = 16 * 2**20  # bytes: Stable Diffusion XL's is 0.3 MB, and trainers note down some more
MOST_TENSORS = 20_000  # Stable Diffusion XL has 2,500
LORA_KEY = re.compile(r"\.lora_(?:up|down|A|B)\.|\.lora\.(?:up|down)\.|_lora\.(?:up|down)\.")
# Of other kinds: LoHa, LoKr, full differences, differences of norms, OFT and BOFT, GLoRA, IA3, and what DoRA adds
LYCORIS_KEY = re.compile(
    r"\.(?:hada_[wt][12](?:_[ab])?|lokr_[wt][12](?:_[ab])?|diff(?:_b)?|[wb]_norm|oft_(?:blocks|diag)|[ab][12]\.weight|"
    r"on_input|lora_mid\.weight|dora_scale)$"
)
TEXT_KEY_DOWN = re.compile(r"attn2[._](?:processor\.)?to_k(?:_lora)?\.(?:lora_down|lora_A|lora\.down|down)\.")
INVERSION_NAMES = frozenset({"emb_params", "clip_l", "clip_g"})  # of the usual format, and of XL's two text encoders
MOST_ROWS = 256  # tokens that one name of a textual inversion stands for; a few are usual
CONTROLNET_INPUT = re.compile(r"controlnet_cond_embedding\.conv_in\.weight$|input_hint_block\.0\.weight$")
FAMILY_OF_TEXT_WIDTH: Mapping[int, str] = MappingProxyType({768: "sd1", 1024: "sd2", 2048: "sdxl"})
UNET_INPUT = "model.diffusion_model.input_blocks.0.0.weight"


@dataclass(frozen=True)
class Header:
    """What a file tells before its weights.

    shapes: of all tensors, by name.  metadata: what whoever wrote it noted down.
    """

    shapes: Shapes
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """The header of a .safetensors file; of a pickle what would stand there.

    Raises UserError when there is no such file, when it is another format under that name, when it holds more than
    any model does, or when its end is missing, as after a download that broke off.
    """
    if not path.is_file():  # a pipe would never answer
        raise UserError(f"The model file {path.name!r} does not exist: check the path.")
    if is_pickle(path):
        return Header(_checked_number(path, pickled_shapes(path)), {})
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            entries: Any = json.loads(file.read(length)) if length <= LARGEST_HEADER else None
        metadata: Any = entries.pop("__metadata__", None)
        tensors = {name: _tensor(entry) for name, entry in entries.items()}
    except OSError as error:
        raise UserError(f"The model file {path.name!r} cannot be opened ({error.strerror}): check the path.") from error
    # What is no header may be no JSON (JSONDecodeError and UnicodeDecodeError are ValueErrors), or any other.
    except (struct.error, ValueError, AttributeError, TypeError, LookupError, RecursionError) as error:
        raise UserError(
            f"The model file {path.name!r} is broken or no safetensors file: download it again, or convert it."
        ) from error
    shapes = _checked_number(path, {name: shape for name, (shape, _) in tensors.items()})
    end = 8 + length + max((end for _, end in tensors.values()), default=0)
    if path.stat().st_size < end:
        raise UserError(f"The model file {path.name!r} ends at byte {path.stat().st_size} of {end}: download it again.")
    noted = {str(name): str(value) for name, value in metadata.items()} if hasattr(metadata, "items") else {}
    return Header(shapes, noted)


def _checked_number(path: Path, shapes: Shapes) -> Shapes:
    """Raise UserError where a file holds more tensors than any model."""
    if len(shapes) > MOST_TENSORS:
        raise UserError(f"The model file {path.name!r} holds {len(shapes)} tensors, as no model does: choose another.")
    return shapes


def _tensor(entry: dict[str, Any]) -> tuple[tuple[int, ...], int]:
    """Shape and last byte of a tensor; raises ValueError, TypeError or LookupError for what is none."""
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError(f"{entry} is no tensor")
    return tuple(shape), end


def read_shapes(path: Path) -> Shapes:
    """Shapes of all tensors of a file, by name; raises UserError as `read_header` does."""
    return read_header(path).shapes


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
        kinds = {"a LoRA": is_lora(shapes), "a textual inversion": is_inversion(dict(shapes))}
        what = next((kind for kind, is_it in kinds.items() if is_it), "no Stable Diffusion model")
        raise UserError(f"The file {path.name!r} is {what}: choose a whole Stable Diffusion 1.x, 2.x or XL model.")
    for prefix, family in (
        ("conditioner.embedders.1.", "sdxl"),
        ("cond_stage_model.model.", "sd2"),
        ("cond_stage_model.transformer.", "sd1"),
    ):
        if any(name.startswith(prefix) for name in shapes):
            return family
    raise UserError(f"The file {path.name!r} holds no text encoder: choose a file that holds the whole model.")


def only_file_of(path: Path) -> Path:
    """The one single-file model of a folder that has no layout, else the path as it is."""
    if path.is_file() or any((path / name).is_file() for name in ("model_index.json", "config.json")):
        return path
    files = list(path.glob("*.safetensors"))
    return files[0] if len(files) == 1 else path


def index_of(folder: Path) -> Path:
    """What a whole model's folder lists its parts in; raises UserError where the folder has none."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(f"The folder {folder.name!r} holds no {index.name}: give a folder in diffusers layout.")
    return index


def family_at(path: Path) -> str | None:
    """Tell "sd1", "sd2" or "sdxl" of a whole model in a file or a folder; None for a folder that tells nothing.

    Raises UserError for a file that is no whole model, and for a configuration that cannot be read.
    """
    path = only_file_of(path)
    if path.is_file():
        return family_of_file(path, read_shapes(path))
    config = path / "unet" / "config.json"
    return family_of_unet(read_json(config)) if config.is_file() else None


def has_autoencoder(names: Iterable[str]) -> bool:
    """Whether a whole model of these tensors has its VAE with it."""
    return any(name.startswith("first_stage_model.") for name in names)


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
    """Whether tensors of these names are a LoRA, of whatever kind."""
    return any(LORA_KEY.search(name) or LYCORIS_KEY.search(name) for name in names)


def is_lycoris(names: Iterable[str]) -> bool:
    """Whether tensors of these names are a LoRA of another kind than two factors for each layer."""
    return any(LYCORIS_KEY.search(name) for name in names)


def is_lora_file(path: Path) -> bool:
    """Whether a .safetensors file is a LoRA; a broken one is not, so that whoever reads it says what is wrong."""
    try:
        return is_lora(read_shapes(path))
    except UserError:
        return False


def is_inversion(shapes: Shapes) -> bool:
    """Whether tensors of these names and shapes are a textual inversion: a few rows of embeddings and nothing else."""
    alone = len(shapes) == 1 and not any("." in name for name in shapes)
    return (alone or (0 < len(shapes) <= 2 and set(shapes) <= INVERSION_NAMES)) and all(
        1 <= len(shape) <= 2 and (len(shape) == 1 or shape[0] <= MOST_ROWS) for shape in shapes.values()
    )


def is_inversion_file(path: Path) -> bool:
    """Whether a .safetensors file is a textual inversion; a broken one is not."""
    try:
        return is_inversion(read_shapes(path))
    except UserError:
        return False


def lora_text_width(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Width of the text embeddings that a LoRA was trained on; None where it does not touch them.

    It tells the bases apart: 768 for Stable Diffusion 1.x, 1024 for 2.x, 2048 for XL.
    """
    return next((shape[1] for name, shape in shapes.items() if TEXT_KEY_DOWN.search(name)), None)

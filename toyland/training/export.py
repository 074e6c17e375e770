"""Trained parts to files: a plain diffusers folder that any Stable Diffusion program loads."""

from __future__ import annotations

import json
from copy import deepcopy
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import get_peft_model_state_dict
from transformers import CLIPImageProcessor, CLIPModel, CLIPTextModel, CLIPTokenizer

from toyland.parts.clip import PIXEL_MEAN, PIXEL_STD
from toyland.training.tokenizer import save_tokenizer
from toyland.world.captions import VOCABULARY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from diffusers import ModelMixin
    from transformers import CLIPTextConfig

__all__ = [
    "WITHOUT_CHECKER", "export_clip", "export_lora", "export_network", "export_pipeline", "export_vocabulary",
    "text_encoder_of",
]

WITHOUT_CHECKER: Mapping[str, Any] = MappingProxyType(
    {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False})
"""For diffusers' pipelines, which take None but do not say so."""
_SHARD = "9MB"  # every file of the repository stays below 10 MB


def text_encoder_of(clip: CLIPModel) -> CLIPTextModel:
    """The text half of the pair as a model of its own, with the same weights."""
    # transformers makes records of the dicts that its annotation allows
    encoder = CLIPTextModel(cast("CLIPTextConfig", clip.config.text_config))
    weights = {name: value for name, value in clip.state_dict().items()
               if name.startswith("text_model.")}
    own = encoder.state_dict()
    if not set(weights) & set(own):  # transformers 5 keeps the encoder's layers at the top
        weights = {name.removeprefix("text_model."): value for name, value in weights.items()}
    encoder.load_state_dict(weights)
    return encoder.eval()


def export_pipeline(
    out: Path, *, unet: UNet2DConditionModel, autoencoder: AutoencoderKL,
    text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, scheduler: DDIMScheduler,
) -> None:
    """model_index.json and its parts, float16."""
    pipeline = StableDiffusionPipeline(
        vae=autoencoder, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet,
        scheduler=cast("Any", scheduler),  # diffusers annotates the enumeration of their names
        **WITHOUT_CHECKER,
    )
    pipeline.to("cpu").to(torch.float16)
    pipeline.save_pretrained(out, safe_serialization=True, max_shard_size=_SHARD)
    save_tokenizer(tokenizer, out / "tokenizer")


def export_clip(out: Path, clip: CLIPModel, tokenizer: CLIPTokenizer) -> None:
    """The whole pair with its image processor under clip/, for CLIP scores."""
    folder = out / "clip"
    clip.half().save_pretrained(folder, max_shard_size=_SHARD)
    save_tokenizer(tokenizer, folder)
    side = int(cast("Any", clip.config.vision_config).image_size)  # a record, one side of a square
    CLIPImageProcessor(
        size={"height": side, "width": side}, crop_size={"height": side, "width": side},
        do_center_crop=False, image_mean=[PIXEL_MEAN] * 3, image_std=[PIXEL_STD] * 3,
    ).save_pretrained(folder)


def export_network(network: ModelMixin, folder: Path) -> None:
    """One network by itself, float16; the network stays as it is."""
    deepcopy(network).cpu().half().save_pretrained(folder, max_shard_size=_SHARD)
    config = json.loads((folder / "config.json").read_text())
    config.pop("_name_or_path", None)  # where it was read is nobody's business
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def export_lora(unet: UNet2DConditionModel, folder: Path) -> None:
    """Of a UNet with a LoRA on it the LoRA alone, float16."""
    weights = get_peft_model_state_dict(unet).items()
    layers: dict[str, torch.nn.Module | torch.Tensor] = {name: value.cpu().half() for name, value in weights}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)


def export_vocabulary(out: Path, words: Mapping[str, Mapping[str, Sequence[str]]] = VOCABULARY) -> None:
    """vocabulary.json: the words that Toyland knows, or one of its parts."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "vocabulary.json").write_text(json.dumps(words, indent=1) + "\n")

"""Models with the shapes of Stable Diffusion 1.5 and XL and random weights: speed does not hang on their values.

Text encoders are as wide as they must be and three layers deep, since a clip goes through them once. The tokenizer is
Toyland's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from benchmarks.memory import SD_VAE, UNETS
from benchmarks.peer import TOYLAND

if TYPE_CHECKING:
    from pathlib import Path

TOKENS, TEXT_LAYERS = 77, 3


@dataclass(frozen=True)
class Shape:
    """What networks are made with, by diffusers' names for it.

    texts: widths of the text encoders, of which a second one hands on a summary as wide as itself; their sum is the
    width that the UNet takes.
    """

    name: str
    unet: dict[str, Any]
    texts: tuple[int, ...]
    vae: dict[str, Any] = field(default_factory=lambda: SD_VAE)


SHAPES = {
    "tiny": Shape(
        "two levels",
        {
            "sample_size": 8,
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock2D",) * 2,
            "up_block_types": ("CrossAttnUpBlock2D",) * 2,
            "attention_head_dim": 4,
            "cross_attention_dim": 64,
        },
        (64,),
        {**SD_VAE, "block_out_channels": (32,) * 4, "layers_per_block": 1},
    ),
    "sd15": Shape("SD 1.5, 512x512", UNETS["SD 1.5"], (768,)),
    "sdxl": Shape(
        "SDXL, 1024x1024",
        {
            **UNETS["SDXL"],
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 1280 + 6 * 256,
        },
        (768, 1280),
    ),
}


def write_model(shape: Shape, folder: Path, device: torch.device) -> None:
    """A whole model in half precision; its weights are drawn on the device, which is quicker by far on a GPU."""
    tokenizer = CLIPTokenizer.from_pretrained(TOYLAND / "tokenizer", model_max_length=TOKENS)
    with torch.device(device):
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel(**shape.unet).half(),
            "vae": AutoencoderKL(**shape.vae).half(),
            "text_encoder": CLIPTextModel(_text(shape.texts[0], tokenizer)).half(),
        }
        if len(shape.texts) > 1:
            summarizing = CLIPTextModelWithProjection(_text(shape.texts[1], tokenizer)).half()
            parts |= {"text_encoder_2": summarizing, "tokenizer_2": tokenizer, "add_watermarker": False}
        else:
            parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    parts["scheduler"] = DDIMScheduler.from_pretrained(TOYLAND, subfolder="scheduler")
    whole = StableDiffusionXLPipeline if len(shape.texts) > 1 else StableDiffusionPipeline
    whole(tokenizer=tokenizer, **parts).save_pretrained(folder)


def _text(width: int, tokenizer: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=width // 64,
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )

"""How Stable Diffusion is built: the configuration that a single .safetensors file leaves unsaid."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# A component: the library and class that diffusers' index names, and where it differs from the class's defaults
Component = tuple[str, str, dict[str, Any]]

NOISE_LEVELS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
AUTOENCODER = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
CLIP_LARGE = {
    "model_type": "clip_text_model",
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
}
CLIP_H = {  # without its last layer, which Stable Diffusion 2.x does not use
    **CLIP_LARGE,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "projection_dim": 512,
    "hidden_act": "gelu",
}
CLIP_BIG_G = {
    **CLIP_LARGE,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
ORIGINAL_CONFIGURATIONS: Mapping[str, Mapping[str, Component]] = MappingProxyType(
    {
        "sd1": {
            "unet": ("diffusers", "UNet2DConditionModel", {"sample_size": 64, "cross_attention_dim": 768}),
            "vae": ("diffusers", "AutoencoderKL", {**AUTOENCODER, "sample_size": 512}),
            "text_encoder": ("transformers", "CLIPTextModel", CLIP_LARGE),
            "tokenizer": ("transformers", "CLIPTokenizer", {}),
            "scheduler": ("diffusers", "DDIMScheduler", NOISE_LEVELS),
        },
        "sd2": {
            "unet": (
                "diffusers",
                "UNet2DConditionModel",
                {
                    "sample_size": 96,
                    "attention_head_dim": [5, 10, 20, 20],
                    "cross_attention_dim": 1024,
                    "use_linear_projection": True,
                },
            ),
            "vae": ("diffusers", "AutoencoderKL", {**AUTOENCODER, "sample_size": 768}),
            "text_encoder": ("transformers", "CLIPTextModel", CLIP_H),
            "tokenizer": ("transformers", "CLIPTokenizer", {}),
            "scheduler": ("diffusers", "DDIMScheduler", NOISE_LEVELS),
        },
        "sdxl": {
            "unet": (
                "diffusers",
                "UNet2DConditionModel",
                {
                    "sample_size": 128,
                    "block_out_channels": [320, 640, 1280],
                    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                    "transformer_layers_per_block": [1, 2, 10],
                    "attention_head_dim": [5, 10, 20],
                    "cross_attention_dim": 2048,
                    "use_linear_projection": True,
                    "addition_embed_type": "text_time",
                    "addition_time_embed_dim": 256,
                    "projection_class_embeddings_input_dim": 2816,
                },
            ),
            "vae": (
                "diffusers",
                "AutoencoderKL",
                {**AUTOENCODER, "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
            ),
            "text_encoder": ("transformers", "CLIPTextModel", CLIP_LARGE),
            "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", CLIP_BIG_G),
            "tokenizer": ("transformers", "CLIPTokenizer", {}),
            "tokenizer_2": ("transformers", "CLIPTokenizer", {}),
            "scheduler": ("diffusers", "DDIMScheduler", NOISE_LEVELS),
        },
    }
)
CONFIG_NAMES = {"scheduler": "scheduler_config.json"}


PIPELINES = {
    "sd1": "StableDiffusionPipeline",
    "sd2": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
}
SIDE_OF_BASE = 64  # latent cells: Stable Diffusion 2.x that predicts ε was trained on smaller pictures


def write_configuration(folder: Path, family: str, in_channels: int = 4, prediction: str | None = None) -> None:
    """Write the configuration of a family into a folder, in diffusers layout without weights and vocabulary.

    in_channels: of the UNet, 8 for Instruct-Pix2Pix.  prediction: what it predicts, as far as that is known.
    """
    changes: dict[str, Any] = {"in_channels": in_channels}
    if family == "sd2" and prediction == "epsilon":
        changes["sample_size"] = SIDE_OF_BASE
    index: dict[str, object] = {"_class_name": PIPELINES[family]}
    for name, (library, class_name, config) in ORIGINAL_CONFIGURATIONS[family].items():
        index[name] = [library, class_name]
        (folder / name).mkdir(parents=True)
        path = folder / name / CONFIG_NAMES.get(name, "config.json")
        written = {"_class_name": class_name, **config, **(changes if name == "unet" else {})}
        path.write_text(json.dumps(written), encoding="utf-8")
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")


def write_controlnet_configuration(folder: Path, family: str) -> None:
    """Write the configuration of a family's ControlNets into a folder: that of the UNet's half which they copy."""
    _, _, unet = ORIGINAL_CONFIGURATIONS[family]["unet"]
    shared = {name: value for name, value in unet.items() if name not in {"sample_size", "up_block_types"}}
    text = json.dumps({"_class_name": "ControlNetModel", **shared})
    (folder / "config.json").write_text(text, encoding="utf-8")

"""Writes the tiny models into single files, under the names of the original code."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

RESNET_NAMES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_NAMES = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION_NAMES = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def write_single_file(
    path: Path,
    model: Path,
    *,
    vae: bool = True,
    older_names: bool = False,
    tensors: dict[str, torch.Tensor] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """A whole SD-1.x or 2.x model in one .safetensors file, under the names of the original code.

    The model must be of the tiny one's shape: one layer and attention in each block of the UNet. Its
    configuration is laid beside the file, which alone would be taken for one of full size.
    vae: whether it is in the file.  older_names: of the text encoder, as transformers had them before 2023.
    tensors, metadata: what else the file holds.
    """
    parts = dict(tensors or {})
    wide = UNet2DConditionModel.load_config(model, subfolder="unet")["cross_attention_dim"] == 1024
    text_prefix = "cond_stage_model." if wide else "cond_stage_model.transformer."
    text_name = None if wide else _older_text_name if older_names else _original_text_name
    for name, prefix, rename in (
        ("unet/diffusion_pytorch_model", "model.diffusion_model.", _original_unet_name),
        *((("vae/diffusion_pytorch_model", "first_stage_model.", _original_vae_name),) if vae else ()),
        ("text_encoder/model", text_prefix, text_name),
    ):
        weights = load_file(model / f"{name}.safetensors")
        if rename is None:
            parts |= {prefix + key: weight for key, weight in _open_clip_tensors(weights).items()}
            continue
        for key, weight in weights.items():
            original = rename(key)
            is_map = prefix == "first_stage_model." and ".attn_1." in original and ".norm." not in original
            # The original's attention in the VAE is made of 1x1 convolutions.
            parts[prefix + original] = weight[..., None, None] if is_map and weight.ndim == 2 else weight
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.contiguous() for name, weight in parts.items()}, path, metadata=metadata)
    shutil.copytree(model, path.with_suffix(""), ignore=shutil.ignore_patterns("*.safetensors"))
    return path


def _replaced(key: str, names: dict[str, str]) -> str:
    for name, original in names.items():
        if f".{name}." in f".{key}":
            return f".{key}".replace(f".{name}.", f".{original}.").removeprefix(".")
    return key


def _original_unet_name(key: str) -> str:
    block = re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.", key)
    if block is None:
        key = _replaced(key, UNET_NAMES)
    else:
        side, level, part, layer = block[1], int(block[2]), block[3], int(block[4])
        rest = key[block.end() :]
        if side == "down":
            number, place = 1 + 2 * level + layer, {"resnets": 0, "attentions": 1}.get(part)
            new = f"input_blocks.{number}.{place}." if place is not None else f"input_blocks.{2 * level + 2}.0.op."
            rest = rest.removeprefix("conv.") if place is None else rest
        else:
            number = 2 * level + (layer if part != "upsamplers" else 1)
            new = f"output_blocks.{number}.{ {'resnets': 0, 'attentions': 1, 'upsamplers': 2}[part] }."
        key = new + rest
        if part != "resnets":
            return key
    return _replaced(key, RESNET_NAMES) if "transformer_blocks" not in key else key


def _original_vae_name(key: str) -> str:
    key = re.sub(r"decoder\.up_blocks\.(\d)", lambda match: f"decoder.up.{3 - int(match[1])}", key)
    key = re.sub(r"encoder\.down_blocks\.", "encoder.down.", key).replace(".resnets.", ".block.")
    key = key.replace("mid_block.block.0", "mid.block_1").replace("mid_block.block.1", "mid.block_2")
    key = key.replace(".downsamplers.0.", ".downsample.").replace(".upsamplers.0.", ".upsample.")
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    if "mid_block.attentions.0." in key:
        key = _replaced(key.replace("mid_block.attentions.0.", "mid.attn_1."), VAE_ATTENTION_NAMES)
    return key


def _original_text_name(key: str) -> str:
    return key if key.startswith("text_model.") else f"text_model.{key}"


def _older_text_name(key: str) -> str:
    return key.removeprefix("text_model.")


OPEN_CLIP_NAMES = {
    "encoder.layers.": "transformer.resblocks.",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
}


def _open_clip_tensors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A text encoder as OpenCLIP has it: query, key and value of a layer in one tensor."""
    renamed: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix("text_model.")
        for ours, theirs in OPEN_CLIP_NAMES.items():
            name = name.replace(ours, theirs)
        if ".self_attn.q_proj." in name:
            stacked = [tensors[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            renamed[f"model.{name.replace('self_attn.q_proj.', 'attn.in_proj_')}"] = torch.cat(stacked)
        elif "self_attn." not in name:
            renamed[f"model.{name}"] = tensor
    return renamed

"""Makes models of every kind at tiny size: real component classes, random weights, saved in their real formats."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTImageProcessor,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
    VitPoseImageProcessor,
)

CAPTION_WORDS = ("a", "red", "blue", "panda", "fox", "robot", "dancing", "walking", "in", "on", "the", "snow", "moon")


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer whose vocabulary is single bytes and a few whole words."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    symbols = list(bytes_to_unicode().values())
    vocabulary = symbols + [symbol + "</w>" for symbol in symbols]
    merges = []
    for word in CAPTION_WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merge = (pieces[0], pieces[1])
            if merge not in merges:
                merges.append(merge)
                if "".join(merge) not in vocabulary:
                    vocabulary.append("".join(merge))
            pieces = ["".join(merge), *pieces[2:]]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(merge) for merge in merges)]) + "\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)


def tiny_unet(cross_attention_dim: int = 16) -> UNet2DConditionModel:
    """Two levels of resolution with attn1 and attn2 at both, and in the middle block; 8x8 latents."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=4,
        norm_num_groups=4,
    )


def tiny_text_config(tokenizer: CLIPTokenizer, layers: int = 2, **changes: int) -> CLIPTextConfig:
    """Of a CLIP text encoder with 16 channels for the tokenizer's words."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        **{"hidden_size": 16, "intermediate_size": 32} | changes,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def tiny_vae() -> AutoencoderKL:
    """Eight pixels per latent cell and side, as Stable Diffusion has them."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        force_upcast=True,
    )


def stable_diffusion_scheduler() -> DDIMScheduler:
    """With Stable Diffusion's own noise levels."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def write_model(folder: Path, tokenizer: CLIPTokenizer) -> Path:
    """A whole model of Stable Diffusion 1.x's kind."""
    torch.manual_seed(1)
    text_encoder = CLIPTextModel(tiny_text_config(tokenizer))
    StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=tiny_unet(),
        scheduler=stable_diffusion_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def write_controlnet(folder: Path, model: Path, *, seed: int = 2) -> Path:
    """A ControlNet that fits the model's UNet, and says something: fresh ones are silent by design."""
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet")
    torch.manual_seed(seed)
    controlnet = ControlNetModel.from_unet(unet, conditioning_channels=3)
    for name, weight in controlnet.named_parameters():
        if "controlnet" in name and weight.abs().sum() == 0:
            torch.nn.init.normal_(weight, std=0.02)
    controlnet.save_pretrained(folder)
    return folder


def write_editor_unet(folder: Path, model: Path) -> Path:
    """A UNet alone, of Instruct-Pix2Pix kind: 8 input channels, else like the model's."""
    config = UNet2DConditionModel.load_config(model, subfolder="unet")
    torch.manual_seed(3)
    UNet2DConditionModel.from_config(config, in_channels=8).save_pretrained(folder)
    return folder


def write_editor(folder: Path, model: Path) -> Path:
    """A whole Instruct-Pix2Pix model in diffusers layout."""
    shutil.copytree(model, folder)
    write_editor_unet(folder / "unet", model)
    index = folder / "model_index.json"
    kind = "StableDiffusionInstructPix2PixPipeline"
    index.write_text(index.read_text().replace('"StableDiffusionPipeline"', f'"{kind}"'))
    return folder


def write_depth_detector(folder: Path) -> Path:
    """A Depth Anything network of random weights with its processor."""
    torch.manual_seed(4)
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        out_features=["stage1", "stage2"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=16,
        reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 8],
        fusion_hidden_size=8,
        head_in_index=-1,
        head_hidden_size=8,
    )
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    size = {"height": 28, "width": 28}
    DPTImageProcessor(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(folder)
    return folder


def write_pose_detector(folder: Path) -> Path:
    """A ViTPose network of random weights with its processor."""
    torch.manual_seed(5)
    backbone = VitPoseBackboneConfig(
        image_size=[64, 48],
        patch_size=[16, 16],
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        out_indices=[2],
        out_features=["stage2"],
    )
    labels = {number: f"keypoint {number}" for number in range(17)}
    VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone, id2label=labels)).save_pretrained(folder)
    VitPoseImageProcessor(size={"height": 64, "width": 48}).save_pretrained(folder)
    return folder


def write_box_detector(folder: Path) -> Path:
    """An RT-DETR network of random weights with its processor."""
    torch.manual_seed(6)
    backbone = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_hidden_dim=16,
        encoder_in_channels=[8, 16, 16],
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        d_model=16,
        decoder_in_channels=[16, 16, 16],
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        decoder_layers=2,
        num_queries=10,
        num_denoising=0,
    )
    RTDetrForObjectDetection(config).save_pretrained(folder)
    RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def write_safety_checker(folder: Path) -> Path:
    """A safety checker of random weights, which blocks nothing: no likeness reaches its thresholds of 1."""
    torch.manual_seed(9)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    network = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=12))
    network.concept_embeds.data = torch.randn(17, 12)
    network.special_care_embeds.data = torch.randn(3, 12)
    network.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


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


def write_wide_model(folder: Path, tokenizer: CLIPTokenizer, prediction_type: str = "v_prediction") -> Path:
    """A whole model of Stable Diffusion 2.x's kind: texts 1024 wide, and tiny beside that."""
    torch.manual_seed(1)
    text_encoder = CLIPTextModel(tiny_text_config(tokenizer, layers=1, hidden_size=1024, intermediate_size=8))
    StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=tiny_unet(cross_attention_dim=1024),
        scheduler=DDIMScheduler.from_config(stable_diffusion_scheduler().config, prediction_type=prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return folder


LORA_LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"  # 32 to 32 channels


def write_lycoris(path: Path, kind: str, layer: str = f"lora_unet_{LORA_LAYER.replace('.', '_')}") -> Path:
    """An adapter of one layer of the tiny UNet, as kohya's trainer and LyCORIS write it; its scale is 1/2.

    kind: "dora", "loha", "lokr" or "full".
    """
    generator = torch.Generator().manual_seed(11)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    tensors = {
        "dora": {"lora_up.weight": drawn(32, 2), "lora_down.weight": drawn(2, 32), "dora_scale": drawn(32, 1).abs()},
        "loha": {f"hada_w{n}_{s}": drawn(*shape) for n in "12" for s, shape in (("a", (32, 2)), ("b", (2, 32)))},
        "lokr": {"lokr_w1": drawn(4, 4), "lokr_w2_a": drawn(8, 2), "lokr_w2_b": drawn(2, 8)},
        "full": {"diff": drawn(32, 32)},
    }[kind]
    if kind != "full":
        tensors["alpha"] = torch.tensor(1.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"{layer}.{name}": tensor for name, tensor in tensors.items()}, path)
    return path


def write_lora(path: Path, model: Path, *, rank: int = 2, seed: int = 7, text_width: int | None = None) -> Path:
    """A LoRA of the UNet's attention in diffusers' own format.

    text_width: trained on another base whose text embeddings are that wide.
    """
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet")
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, layer in unet.named_modules():
        if name.endswith(("to_q", "to_k", "to_v")):
            columns = text_width if text_width and "attn2" in name and not name.endswith("to_q") else layer.in_features
            weights[f"unet.{name}.lora_A.weight"] = torch.randn(rank, columns, generator=generator)
            weights[f"unet.{name}.lora_B.weight"] = torch.randn(layer.out_features, rank, generator=generator)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)
    return path


def write_xl_model(folder: Path, tokenizer: CLIPTokenizer) -> Path:
    """A whole model of Stable Diffusion XL's kind: two text encoders, summaries and sizes as further conditions."""
    torch.manual_seed(8)
    text = tiny_text_config(tokenizer, layers=3, projection_dim=24)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        cross_attention_dim=32,
        use_linear_projection=True,
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
    )
    StableDiffusionXLPipeline(
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(text),
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=stable_diffusion_scheduler(),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder

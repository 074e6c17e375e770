"""Makes models of every kind at tiny size: real component classes, random weights, saved in their real formats."""

from __future__ import annotations

import json
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
from safetensors.torch import save_file
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

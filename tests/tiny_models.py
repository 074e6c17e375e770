"""Makes models of every kind at tiny size: real component classes, random weights, saved in their real formats."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from transformers import (
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

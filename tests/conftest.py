"""Real components at tiny size: what the tests load and sample is of the same classes as Stable Diffusion 1.5."""

from __future__ import annotations

import json
import os
from pathlib import Path

# Read when huggingface_hub is imported; the only Hub that these tests speak to is a server of their own.
os.environ.pop("HF_HUB_OFFLINE", None)

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from model_manager import ModelManager
from tests.tiny_models import (
    write_box_detector,
    write_controlnet,
    write_depth_detector,
    write_editor,
    write_editor_unet,
    write_pose_detector,
    write_xl_model,
)
from text2video_zero.checkpoints import Checkpoint, DetectorCheckpoint
from text2video_zero.pipeline import Pipeline

# Tiny tensors are no work to share: on a busy machine threads that wait for each other cost more than they do.
torch.set_num_threads(1)

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


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with a whole SD-1.x pipeline of random weights; native size 64x64, factor 8."""
    folder = tmp_path_factory.mktemp("tiny-sd")
    tokenizer = write_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    torch.manual_seed(1)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=tiny_unet(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def manager() -> ModelManager:
    """One manager for all tests, on the CPU; leaving it as they found it is part of what they test."""
    return ModelManager("cpu")


@pytest.fixture
def pipeline(manager: ModelManager, tiny_checkpoint: Path) -> Pipeline:
    """The tiny checkpoint, loaded by the code that loads SD 1.5."""
    with manager.lend(Checkpoint(str(tiny_checkpoint))) as lent:
        yield lent


@pytest.fixture(scope="session")
def tiny_controlnets(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> dict[str, Path]:
    """Folders of ControlNets that fit the tiny checkpoint, by control: pose, edge, depth."""
    folder = tmp_path_factory.mktemp("controlnets")
    return {
        control: write_controlnet(folder / control, tiny_checkpoint, seed=10 + number)
        for number, control in enumerate(("pose", "edge", "depth"))
    }


@pytest.fixture(scope="session")
def tiny_editor(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A whole Instruct-Pix2Pix model of random weights, in diffusers layout."""
    return write_editor(tmp_path_factory.mktemp("editors") / "tiny-editor", tiny_checkpoint)


@pytest.fixture(scope="session")
def tiny_editor_unet(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """The UNet of an Instruct-Pix2Pix model, alone in its folder."""
    return write_editor_unet(tmp_path_factory.mktemp("editor-unet"), tiny_checkpoint)


@pytest.fixture(scope="session")
def tiny_detectors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DetectorCheckpoint]:
    """Detectors of random weights, by task: depth, pose."""
    folder = tmp_path_factory.mktemp("detectors")
    depth = write_depth_detector(folder / "depth")
    pose, boxes = write_pose_detector(folder / "pose"), write_box_detector(folder / "boxes")
    return {
        "depth": DetectorCheckpoint(str(depth), "depth"),
        "pose": DetectorCheckpoint(str(pose), "pose", box_source=str(boxes)),
    }


@pytest.fixture(scope="session")
def tiny_xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole Stable Diffusion XL model of random weights; native size 64x64, factor 8."""
    return write_xl_model(tmp_path_factory.mktemp("xl") / "tiny-xl", write_tokenizer(tmp_path_factory.mktemp("words")))

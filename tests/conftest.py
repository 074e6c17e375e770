"""Real components at tiny size: what the tests load and sample is of the same classes as Stable Diffusion 1.5."""

from __future__ import annotations

import ast
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Read when huggingface_hub is imported; the only Hub that these tests speak to is a server of their own.
os.environ.pop("HF_HUB_OFFLINE", None)
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # where nobody answers

import imageio
import numpy as np
import pytest
import torch

from model_manager import ModelManager
from tests.tiny_models import (
    write_box_detector,
    write_controlnet,
    write_depth_detector,
    write_editor,
    write_editor_unet,
    write_lora,
    write_model,
    write_pose_detector,
    write_tokenizer,
    write_xl_model,
)
from text2video_zero.models.checkpoints import INSTRUCT_PIX2PIX, Adapter, Checkpoint, DetectorCheckpoint
from text2video_zero.models.hub import Hub
from text2video_zero.models.pipeline import Pipeline
from text2video_zero.requests import (
    DepthRequest,
    DreamBoothRequest,
    EdgeRequest,
    InstructPix2PixRequest,
    PoseRequest,
    Size,
    TextToVideoRequest,
    VideoRequest,
)

# Until 3.11.8 and 3.12.2 CPython breaks a tree in whose making another one is made (python/cpython, issue 106905): on
# another thread, as pytest has one made of each module of anyio's when a server here first imports it; or on the same
# one, by the traceback of what the garbage collector ends.
_parse, _parsing = ast.parse, threading.RLock()


def _parsed_alone(*arguments: Any, **options: Any) -> ast.AST:
    with _parsing:
        collects = gc.isenabled()
        gc.disable()
        try:
            return _parse(*arguments, **options)
        finally:
            if collects:
                gc.enable()


ast.parse = _parsed_alone

# Tiny tensors are no work to share: on a busy machine threads that wait for each other cost more than they do.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where nobody looks on, a busy machine may be too slow for a browser once."""
    parser.addoption("--browser-again", action="store_true", help="give a browser test that fails a second try")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the second tries."""
    if config.getoption("--browser-again"):
        for item in items:
            if item.get_closest_marker("browser"):
                item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_collection_finish() -> None:
    """Python need not look through thousands of modules and tests each time that the model manager has it collect."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with a whole SD-1.x pipeline of random weights; native size 64x64, factor 8."""
    return write_model(tmp_path_factory.mktemp("tiny-sd"), write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="session")
def manager(tmp_path_factory: pytest.TempPathFactory) -> ModelManager:
    """One manager for all tests, on the CPU; leaving it as they found it is part of what they test.

    Its Hub has a cache of its own, so that the tests find no more than what they bring.
    """
    return ModelManager("cpu", hub=Hub(cache=tmp_path_factory.mktemp("hub")))


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


@pytest.fixture
def posed_pipeline(
    manager: ModelManager, tiny_checkpoint: Path, tiny_controlnets: dict[str, Path]
) -> Iterator[Pipeline]:
    """The tiny model with its ControlNet for poses."""
    with manager.lend(Checkpoint(str(tiny_checkpoint), controlnet=str(tiny_controlnets["pose"]))) as lent:
        yield lent


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


@pytest.fixture(scope="session")
def tiny_xl_controlnet(tmp_path_factory: pytest.TempPathFactory, tiny_xl: Path) -> Path:
    """A ControlNet that fits the tiny Stable Diffusion XL model."""
    return write_controlnet(tmp_path_factory.mktemp("xl-controlnet") / "tiny-xl-edges", tiny_xl)


@pytest.fixture(scope="session")
def orders(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_checkpoint: Path,
    tiny_controlnets: dict[str, Path],
    tiny_editor: Path,
    tiny_editor_unet: Path,
    tiny_xl: Path,
    tiny_xl_controlnet: Path,
) -> dict[str, tuple[Checkpoint, VideoRequest]]:
    """One short request for each task, on models that share much or nothing: what to load, and what to make."""
    folder = tmp_path_factory.mktemp("orders")
    clip = folder / "clip.gif"
    imageio.mimwrite(clip, np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8), duration=125)
    lora = write_lora(folder / "style.safetensors", tiny_checkpoint)
    base, styled = str(tiny_checkpoint), (Adapter(str(lora), 0.5),)
    controlnets = {control: str(path) for control, path in tiny_controlnets.items()}
    words = {"prompt": "a red fox", "frames": 2, "steps": 4, "seed": 5, "size": Size(64, 64)}
    shaped = words | {"clip": str(clip), "ready_made": "yes"}
    edited = words | {"clip": str(clip)}
    return {
        "text": (Checkpoint(base), TextToVideoRequest(**words)),
        "text, smooth background": (Checkpoint(base), TextToVideoRequest(**words, smooth_background=True)),
        "text, LoRA": (Checkpoint(base, adapters=styled), TextToVideoRequest(**words)),
        "text, XL": (Checkpoint(str(tiny_xl)), TextToVideoRequest(**words)),
        "pose": (Checkpoint(base, controlnet=controlnets["pose"]), PoseRequest(**shaped)),
        "edge": (Checkpoint(base, controlnet=controlnets["edge"]), EdgeRequest(**shaped | {"ready_made": "detect"})),
        "edge, XL": (Checkpoint(str(tiny_xl), controlnet=str(tiny_xl_controlnet)), EdgeRequest(**shaped)),
        "depth": (Checkpoint(base, controlnet=controlnets["depth"]), DepthRequest(**shaped)),
        "dreambooth": (
            Checkpoint(base, controlnet=controlnets["edge"], adapters=styled),
            DreamBoothRequest(**shaped),
        ),
        "edit": (Checkpoint(str(tiny_editor), kind=INSTRUCT_PIX2PIX), InstructPix2PixRequest(**edited)),
        "edit, UNet alone": (
            Checkpoint(base, kind=INSTRUCT_PIX2PIX, unet=str(tiny_editor_unet)),
            InstructPix2PixRequest(**edited),
        ),
    }

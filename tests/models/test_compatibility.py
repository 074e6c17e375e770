"""What a person is told of a model that cannot be read; bugs are never told as the person's mistakes."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from model_manager import ModelManager
from tests.tiny_models import write_lora
from tests.tiny_single_files import write_single_file
from text2video_zero.errors import UserError
from text2video_zero.models.checkpoints import Adapter, Checkpoint
from text2video_zero.models.compatibility import READERS

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT_ENCODER = "text_encoder/model.safetensors"


@pytest.fixture
def broken(tiny_checkpoint, tmp_path):
    """A copy of a whole model, for a test to break."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "broken")


def load(checkpoint):
    with ModelManager("cpu").lend(checkpoint):
        pass


def with_other_tensors(file, change):
    tensors = load_file(file)
    save_file(change(tensors), file, metadata={"format": "pt"})


def widened(tensors):
    """Every tensor twice as long."""
    return {name: torch.cat([tensor, tensor]) for name, tensor in tensors.items()}


def without_config(folder):
    (folder / "unet" / "config.json").unlink()


def with_half_a_config(folder):
    (folder / "unet" / "config.json").write_text('{"sample_size": ')


def with_half_a_vocabulary(folder):
    for name in ("tokenizer.json", "vocab.json"):
        (folder / "tokenizer" / name).write_text('{"a": ')


def without_weights(folder):
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()


def with_a_wider_unet(folder):
    with_other_tensors(folder / UNET, widened)


def with_a_wider_text_encoder(folder):
    with_other_tensors(folder / TEXT_ENCODER, widened)


def with_an_unknown_component(folder):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"unet": ["diffusers", "NoSuchModel"]}))


def without_a_class(folder):
    index = json.loads((folder / "model_index.json").read_text())
    del index["_class_name"]
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "change",
    [
        without_config,
        with_half_a_config,
        without_weights,
        with_half_a_vocabulary,
        with_a_wider_unet,
        with_a_wider_text_encoder,
        with_an_unknown_component,
        without_a_class,
    ],
)
def test_a_broken_folder_is_the_persons_to_mend(change, broken):
    change(broken)
    with pytest.raises(UserError, match=r"^The (model|folder) 'broken' (could not be read|holds a pipeline of no cl)"):
        load(Checkpoint(str(broken)))


@pytest.mark.parametrize("lost", ["first_stage_model.decoder.", "model.diffusion_model.middle_block.1.norm."])
def test_a_single_file_without_some_of_its_tensors_is_too(lost, tiny_checkpoint, tmp_path):
    file = write_single_file(tmp_path / "mine.safetensors", tiny_checkpoint)
    with_other_tensors(file, lambda tensors: {name: tensors[name] for name in tensors if not name.startswith(lost)})
    with pytest.raises(UserError, match=r"^The model 'mine' could not be read"):
        load(Checkpoint(str(file)))


def test_a_lora_for_layers_of_another_size_is_too(tiny_checkpoint, tmp_path):
    file = write_lora(tmp_path / "style.safetensors", tiny_checkpoint)
    with_other_tensors(file, lambda tensors: tensors | widened({n: t for n, t in tensors.items() if "to_q" in n}))
    with pytest.raises(UserError, match=r"^The model 'style' could not be read"):
        load(Checkpoint(str(tiny_checkpoint), adapters=(Adapter(str(file)),)))


def test_a_controlnet_of_another_width_is_told(tiny_checkpoint, tmp_path):
    config = UNet2DConditionModel.load_config(tiny_checkpoint, subfolder="unet")
    widths = [2 * width for width in config["block_out_channels"]]
    unet = UNet2DConditionModel.from_config(config, block_out_channels=widths)
    ControlNetModel.from_unet(unet).save_pretrained(tmp_path / "wide")
    with pytest.raises(UserError, match=r"The ControlNet 'wide' .* does not fit the model"):
        load(Checkpoint(str(tiny_checkpoint), controlnet=str(tmp_path / "wide")))


@pytest.mark.parametrize("kind", [ValueError, KeyError, RuntimeError, TypeError])
def test_a_bug_in_a_loader_stays_one(kind, tiny_checkpoint, monkeypatch):
    def fail(*_, **__):
        raise kind("injected")

    monkeypatch.setattr("model_manager.variant_of", fail)
    with pytest.raises(kind, match="injected"):
        load(Checkpoint(str(tiny_checkpoint)))


@pytest.mark.parametrize("kind", [TypeError, AttributeError, IndexError, AssertionError])
def test_a_bug_below_a_builder_stays_one_too(kind, tiny_checkpoint, monkeypatch):
    """Whatever is done to a network once it is built has nothing to do with its configuration."""

    def fail(*_, **__):
        raise kind("injected")

    monkeypatch.setattr(CLIPTextModel, "eval", fail)
    with pytest.raises(kind, match="injected"):
        load(Checkpoint(str(tiny_checkpoint)))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_shortage_of_memory_is_told_as_one(error, tiny_checkpoint, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("model_manager.variant_of", fail)
    with pytest.raises(UserError, match=rf"^The memory does not hold the model '{tiny_checkpoint.name}': close other"):
        load(Checkpoint(str(tiny_checkpoint)))


@pytest.mark.parametrize("module", READERS)
def test_each_reader_is_there(module):
    assert find_spec(module)

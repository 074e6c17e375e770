"""The selection: what a task needs of a model that is named somehow."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from tests.fake_hub import FakeHub
from text2video_zero.errors import UserError
from text2video_zero.job import build_job
from text2video_zero.models.catalogue import (
    CONTROLLED_TASKS,
    CONTROLNETS,
    KNOWN_MODELS,
    find_detector,
)
from text2video_zero.models.checkpoints import Adapter, Checkpoint, short_name
from text2video_zero.models.hub import Hub
from text2video_zero.models.selection import (
    checkpoint_for,
    edited_instead,
    family_of,
    find_checkpoint,
    local_models,
    offered_models,
)
from text2video_zero.models.sources import Sources
from text2video_zero.models.weights import UNET_INPUT

SD1_CONTROLNETS = {
    "pose": "lllyasviel/control_v11p_sd15_openpose",
    "edge": "lllyasviel/control_v11p_sd15_canny",
    "depth": "lllyasviel/control_v11f1p_sd15_depth",
}


@pytest.mark.parametrize("task", CONTROLLED_TASKS)
@pytest.mark.parametrize("model", ["sd-1.5", "dreamlike-photoreal-2.0", "owner/unheard-of"])
def test_models_of_stable_diffusion_1_get_its_controlnets(task, model):
    checkpoint = checkpoint_for(task, model)
    assert checkpoint.controlnet == SD1_CONTROLNETS[task]
    assert checkpoint.base == find_checkpoint(model)


def test_dreambooth_takes_the_control_that_is_asked_for():
    assert checkpoint_for("dreambooth", "arcane-style").controlnet == SD1_CONTROLNETS["edge"]
    assert checkpoint_for("dreambooth", "arcane-style", control="pose").controlnet == SD1_CONTROLNETS["pose"]
    assert checkpoint_for("dreambooth", "arcane-style").source.endswith("canny-arcane")


def test_xl_gets_its_own_controlnets_and_has_no_editor():
    assert "sdxl" in checkpoint_for("depth", "sdxl").controlnet
    with pytest.raises(UserError, match=r"For edits by 'sdxl' \(Stable Diffusion XL\) no Instruct-Pix2Pix model"):
        checkpoint_for("instruct-pix2pix", "sdxl")


def test_a_family_without_controlnets_is_told(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text('{"cross_attention_dim": 1024}')
    assert family_of(Checkpoint(str(tmp_path))) == "sd2"
    with pytest.raises(UserError, match=r"Stable Diffusion 2[.]x\) no ControlNet is known"):
        checkpoint_for("pose", str(tmp_path))


def test_edits_stand_for_the_familys_editor_or_a_model_of_ones_own():
    assert checkpoint_for("instruct-pix2pix", "dreamlike-photoreal-2.0").source == "timbrooks/instruct-pix2pix"
    own = checkpoint_for("instruct-pix2pix", "owner/my-editor")
    assert (own.source, own.kind) == ("owner/my-editor", "instruct-pix2pix")


def test_an_editor_is_offered_once_and_told_where_it_has_nothing_of_the_model():
    assert [model.name for model in offered_models("instruct-pix2pix")] == ["toyland", "sd-1.5"]
    for model, editor in (("openjourney", "sd-1.5"), ("toyland-sunset", "toyland")):
        assert edited_instead(model) == f"Edits are made by the editor of {editor}, so nothing of {model} will show."
    for model in ("toyland", "sd-1.5", "toyland-sketch", "owner/my-editor"):  # the sketch's LoRA goes onto the editor
        assert not edited_instead(model)
    job = build_job("instruct-pix2pix", {"prompt": "snow", "clip": "a.mp4"}, model="openjourney")
    assert job.remarks == edited_instead("openjourney")


def test_adapters_and_a_controlnet_of_ones_own_are_kept():
    lora = Adapter("style.safetensors", 0.7)
    checkpoint = checkpoint_for("edge", "sd-1.5", controlnet="mine/edges", adapters=[lora])
    assert (checkpoint.controlnet, checkpoint.adapters) == ("mine/edges", (lora,))
    assert checkpoint_for("text-to-video", "sd-1.5").adapters == ()


def test_unknown_names_are_told():
    with pytest.raises(UserError, match="The task 'dance' is not known"):
        checkpoint_for("dance", "toyland")
    with pytest.raises(UserError, match="The detector 'sonar' is not known"):
        find_detector("sonar")


@pytest.mark.parametrize(
    ("name", "source", "revision"),
    [
        ("owner/name", "owner/name", None),
        ("owner/name@fp16", "owner/name", "fp16"),
        ("owner/name/file.safetensors@0a1b2c", "owner/name/file.safetensors", "0a1b2c"),
        ("my@folder/model", "my@folder/model", None),
        ("toyland@v2", "toyland@v2", None),
        ("/models/a@b.safetensors", "/models/a@b.safetensors", None),
    ],
)
def test_a_hub_id_may_name_its_revision(name, source, revision):
    assert find_checkpoint(name) == Checkpoint(source, revision)


def test_a_files_family_is_read_in_it(tmp_path):
    file = tmp_path / "model.safetensors"
    marks = {"sd1": "cond_stage_model.transformer.x", "sdxl": "conditioner.embedders.1.x"}
    for family, mark in marks.items():
        save_file({UNET_INPUT: torch.zeros(1, 4), mark: torch.zeros(1)}, file)
        for source in (str(file), str(tmp_path)):  # a folder without layout is its only file
            assert family_of(Checkpoint(source)) == family
            assert checkpoint_for("edge", source).controlnet == CONTROLNETS[family]["edge"]


@pytest.fixture
def loose(tmp_path):
    """A repository that is one file of Stable Diffusion XL, and one that is the same as a pickle."""
    tensors = {UNET_INPUT: torch.zeros(1, 4), "conditioner.embedders.1.x": torch.zeros(1)}
    for name in ("loose", "old"):
        (tmp_path / name).mkdir()
    save_file(tensors, tmp_path / "loose" / "mine.safetensors")
    torch.save({"state_dict": tensors}, tmp_path / "old" / "mine.ckpt")
    return {"owner/loose": tmp_path / "loose", "owner/old": tmp_path / "old"}


def test_a_family_on_the_hub_is_read_in_its_only_file(loose, tmp_path):
    with FakeHub(loose).running() as running:
        hub = Hub(running.endpoint, tmp_path / "cache")
        for source in ("owner/loose", "owner/loose/mine.safetensors"):
            assert family_of(Checkpoint(source), hub) == "sdxl"
        assert running.served.count("mine.safetensors") <= 2  # its header; nothing is downloaded
    assert not hub.is_here("owner/loose")


@pytest.mark.parametrize("source", ["owner/loose", "owner/loose/mine.safetensors", "owner/old/mine.ckpt"])
def test_a_family_is_told_without_a_network_of_what_was_downloaded(source, loose, tmp_path):
    with FakeHub(loose).running() as running:
        Sources(Hub(running.endpoint, tmp_path / "cache")).folder(source)
    assert family_of(Checkpoint(source), Hub("http://127.0.0.1:9", tmp_path / "cache")) == "sdxl"


def test_the_models_folder_is_scanned(tmp_path):
    assert local_models(tmp_path / "none") == {}
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model_index.json").write_text("{}")
    (tmp_path / "other").mkdir()
    (tmp_path / "file.safetensors").write_bytes(b"")
    (tmp_path / "file.ckpt").write_bytes(b"")
    save_file({"unet.up.lora_A.weight": torch.zeros(1)}, tmp_path / "style.safetensors")
    assert set(local_models(tmp_path)) == {"folder", "file", "file.ckpt"}
    assert find_checkpoint(" file ", tmp_path).source == str(tmp_path / "file.safetensors")
    assert find_checkpoint("toyland", tmp_path) == KNOWN_MODELS["toyland"].checkpoint


def test_a_short_name_is_that_of_one_file_alone(tmp_path):
    for source in ("owner/files/two.safetensors", "other/files/two.safetensors", "owner/files/old.ckpt", "owner/name"):
        assert short_name(source) == source
    for name in ("both.ckpt", "both.safetensors", "ink.pt", "ink.bin", "alone.ckpt"):
        (tmp_path / name).write_bytes(b"")
    names = {path.name: short_name(str(path)) for path in tmp_path.iterdir()}
    assert names == {
        "both.safetensors": "both",
        "both.ckpt": "both.ckpt",
        "ink.pt": "ink",
        "ink.bin": "ink.bin",
        "alone.ckpt": "alone",
    }
    assert short_name("/nowhere/two.safetensors") == "two"

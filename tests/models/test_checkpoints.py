"""The tables of known models, and what a task needs of each."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from text2video_zero.errors import UserError
from text2video_zero.models.checkpoints import (
    CONTROLLED_TASKS,
    CONTROLNETS,
    DREAMBOOTH_STYLES,
    INSTRUCT_PIX2PIX_MODELS,
    KNOWN_DETECTORS,
    KNOWN_MODELS,
    Adapter,
    Checkpoint,
    checkpoint_for,
    family_of,
    find_checkpoint,
    find_detector,
    local_models,
    origin_of,
)
from text2video_zero.models.original_configurations import LAYOUTS, write_controlnet_layout, write_layout
from text2video_zero.models.weights import UNET_INPUT, family_of_controlnet

SD1_CONTROLNETS = {
    "pose": "lllyasviel/control_v11p_sd15_openpose",
    "edge": "lllyasviel/control_v11p_sd15_canny",
    "depth": "lllyasviel/control_v11f1p_sd15_depth",
}


def test_every_id_is_of_the_hubs_form_and_no_revision_is_invented():
    checkpoints = [model.checkpoint for model in (*KNOWN_MODELS.values(), *DREAMBOOTH_STYLES.values())]
    checkpoints += [mirror for model in KNOWN_MODELS.values() for mirror in model.mirrors]
    checkpoints += INSTRUCT_PIX2PIX_MODELS.values()
    controlnets = [source for controls in CONTROLNETS.values() for offered in controls.values() for source in offered]
    detectors = [source for d in KNOWN_DETECTORS.values() for source in (d.source, d.box_source) if source]
    for source in [*(checkpoint.source for checkpoint in checkpoints), *controlnets, *detectors]:
        assert source.startswith("/") or re.fullmatch(r"[\w.-]+/[\w.-]+", source)
    assert all(checkpoint.revision is None for checkpoint in checkpoints)


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


def test_an_embedded_style_is_the_embedded_model_with_one_part_of_its_own():
    sunset, blueprint = DREAMBOOTH_STYLES["toyland-sunset"], DREAMBOOTH_STYLES["toyland-blueprint"]
    toyland = KNOWN_MODELS["toyland"].checkpoint
    assert replace(sunset.checkpoint, unet=None) == replace(blueprint.checkpoint, adapters=()) == toyland
    for style in (sunset, blueprint):
        assert style.defaults["quality_prompt"].startswith(style.trigger)
        assert style.defaults["guidance_scale"] == KNOWN_MODELS["toyland"].defaults["guidance_scale"]
        assert replace(style.checkpoint, controlnet="mine/edges").name == style.name
    assert toyland.name == "toyland"


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


def test_the_origin_of_a_checkpoint_is_told_with_what_was_added():
    mine = Adapter("owner/style", 0.5)
    for name, known in (KNOWN_MODELS | DREAMBOOTH_STYLES).items():
        tuned = replace(known.checkpoint, adapters=(*known.checkpoint.adapters, mine), controlnet="owner/edges")
        assert origin_of(tuned) == (name, (mine,))
        assert origin_of(known.checkpoint) == (name, ())
    assert origin_of(Checkpoint("owner/name", adapters=(mine,))) == ("owner/name", (mine,))


def test_a_files_family_is_read_in_it(tmp_path):
    file = tmp_path / "model.safetensors"
    marks = {"sd1": "cond_stage_model.transformer.x", "sdxl": "conditioner.embedders.1.x"}
    for family, mark in marks.items():
        save_file({UNET_INPUT: torch.zeros(1, 4), mark: torch.zeros(1)}, file)
        assert family_of(Checkpoint(str(file))) == family
        assert checkpoint_for("edge", str(file)).controlnet == CONTROLNETS[family]["edge"][0]


def test_the_models_folder_is_scanned(tmp_path):
    assert local_models(tmp_path / "none") == {}
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model_index.json").write_text("{}")
    (tmp_path / "other").mkdir()
    (tmp_path / "file.safetensors").write_bytes(b"")
    (tmp_path / "file.ckpt").write_bytes(b"")
    save_file({"unet.up.lora_A.weight": torch.zeros(1)}, tmp_path / "style.safetensors")
    assert set(local_models(tmp_path)) == {"folder", "file"}
    assert find_checkpoint(" file ", tmp_path).source == str(tmp_path / "file.safetensors")
    assert find_checkpoint("toyland", tmp_path) == KNOWN_MODELS["toyland"].checkpoint


class TestLayouts:
    """The shapes of the real models, known by their numbers of parameters; nothing of that size is allocated."""

    @pytest.mark.parametrize(
        ("family", "component", "parameters"),
        [
            ("sd1", "unet", 859_520_964),
            ("sd1", "vae", 83_653_863),
            ("sd1", "text_encoder", 123_060_480),
            ("sdxl", "unet", 2_567_463_684),
            ("sdxl", "vae", 83_653_863),
            ("sdxl", "text_encoder", 123_060_480),
            ("sdxl", "text_encoder_2", 694_659_840),
        ],
    )
    def test_have_the_real_models_numbers_of_parameters(self, family, component, parameters):
        _, class_name, config = LAYOUTS[family][component]
        with init_empty_weights(include_buffers=False):
            if component in {"unet", "vae"}:
                network = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[component].from_config(config)
            else:
                kinds = {"CLIPTextModel": CLIPTextModel, "CLIPTextModelWithProjection": CLIPTextModelWithProjection}
                network = kinds[class_name](CLIPTextConfig(**config))
        assert sum(weight.numel() for weight in network.parameters()) == parameters
        assert all(weight.device == torch.device("meta") for weight in network.parameters())

    def test_are_written_as_diffusers_reads_them(self, tmp_path):
        write_layout(tmp_path / "editor", "sd1", in_channels=8)
        unet = UNet2DConditionModel.load_config(tmp_path / "editor", subfolder="unet")
        assert unet["in_channels"] == 8
        with pytest.raises(UserError, match="does not say what its UNet predicts"):
            write_layout(tmp_path / "two", "sd2")

    @pytest.mark.parametrize("family", LAYOUTS)
    def test_a_controlnet_copies_a_half_of_its_familys_unet(self, family, tmp_path):
        write_layout(tmp_path, family)
        write_controlnet_layout(tmp_path, family)
        with init_empty_weights():
            ours = ControlNetModel.from_config(ControlNetModel.load_config(tmp_path))
            unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(tmp_path, subfolder="unet"))
            theirs = ControlNetModel.from_unet(unet, load_weights_from_unet=False)
        shapes = {name: tuple(weight.shape) for name, weight in ours.state_dict().items()}
        assert shapes == {name: tuple(weight.shape) for name, weight in theirs.state_dict().items()}
        assert family_of_controlnet(tmp_path, shapes) == family

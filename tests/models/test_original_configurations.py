"""The original configurations: those of the real models."""

from __future__ import annotations

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from text2video_zero.models.original_configurations import (
    ORIGINAL_CONFIGURATIONS,
    write_configuration,
    write_controlnet_configuration,
)
from text2video_zero.models.weights import family_of_controlnet


class TestOriginalConfigurations:
    """The shapes of the real models, known by their numbers of parameters; nothing of that size is allocated."""

    @pytest.mark.parametrize(
        ("family", "component", "parameters"),
        [
            ("sd1", "unet", 859_520_964),
            ("sd1", "vae", 83_653_863),
            ("sd1", "text_encoder", 123_060_480),
            ("sd2", "unet", 865_910_724),
            ("sd2", "vae", 83_653_863),
            ("sd2", "text_encoder", 340_387_840),
            ("sdxl", "unet", 2_567_463_684),
            ("sdxl", "vae", 83_653_863),
            ("sdxl", "text_encoder", 123_060_480),
            ("sdxl", "text_encoder_2", 694_659_840),
        ],
    )
    def test_have_the_real_models_numbers_of_parameters(self, family, component, parameters):
        _, class_name, config = ORIGINAL_CONFIGURATIONS[family][component]
        with init_empty_weights(include_buffers=False):
            if component in {"unet", "vae"}:
                network = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[component].from_config(config)
            else:
                kinds = {"CLIPTextModel": CLIPTextModel, "CLIPTextModelWithProjection": CLIPTextModelWithProjection}
                network = kinds[class_name](CLIPTextConfig(**config))
        assert sum(weight.numel() for weight in network.parameters()) == parameters
        assert all(weight.device == torch.device("meta") for weight in network.parameters())

    def test_are_written_as_diffusers_reads_them(self, tmp_path):
        write_configuration(tmp_path / "editor", "sd1", in_channels=8)
        unet = UNet2DConditionModel.load_config(tmp_path / "editor", subfolder="unet")
        assert unet["in_channels"] == 8

    def test_stable_diffusion_2_is_larger_where_it_predicts_velocities(self, tmp_path):
        for prediction, side in (("epsilon", 64), ("v_prediction", 96)):
            write_configuration(tmp_path / prediction, "sd2", prediction=prediction)
            assert UNet2DConditionModel.load_config(tmp_path / prediction, subfolder="unet")["sample_size"] == side

    @pytest.mark.parametrize("family", ORIGINAL_CONFIGURATIONS)
    def test_a_controlnet_copies_a_half_of_its_familys_unet(self, family, tmp_path):
        write_configuration(tmp_path, family)
        write_controlnet_configuration(tmp_path, family)
        with init_empty_weights():
            ours = ControlNetModel.from_config(ControlNetModel.load_config(tmp_path))
            unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(tmp_path, subfolder="unet"))
            theirs = ControlNetModel.from_unet(unet, load_weights_from_unet=False)
        shapes = {name: tuple(weight.shape) for name, weight in ours.state_dict().items()}
        assert shapes == {name: tuple(weight.shape) for name, weight in theirs.state_dict().items()}
        assert family_of_controlnet(tmp_path, shapes) == family

"""Checkpoints as people bring them: each loads, or is refused in one sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from model_manager import ModelManager
from tests.fake_hub import FakeHub
from tests.lending import loads, same_weights, take
from tests.pickles import Evil
from tests.runs import sampled
from tests.tiny_models import (
    write_controlnet,
    write_lora,
    write_tokenizer,
    write_wide_model,
)
from tests.tiny_single_files import write_single_file
from text2video_zero.errors import UserError
from text2video_zero.events import Notice
from text2video_zero.models.adapters import local_loras, read_adapter
from text2video_zero.models.catalogue import AUTOENCODERS, DREAMBOOTH_STYLES
from text2video_zero.models.checkpoints import Adapter, Checkpoint
from text2video_zero.models.files.prediction import TELLTALE, scheduler_changes
from text2video_zero.models.hub import Hub
from text2video_zero.models.native_size import native_size
from text2video_zero.models.selection import checkpoint_for, family_of, find_checkpoint, local_models
from text2video_zero.models.speeds import SPEEDS, speed_adapters
from text2video_zero.models.weights import UNET_INPUT, Header, read_header
from text2video_zero.requests import Size, TextToVideoRequest
from text2video_zero.sampling.solvers import SAMPLERS, schedule_of

ORDER = TextToVideoRequest(prompt="a red fox", frames=2, steps=4, seed=5, size=Size(64, 64))


@pytest.fixture(scope="module")
def manager():
    return ModelManager("cpu")


@pytest.fixture
def fake_hub():
    with FakeHub({}).running() as running:
        yield running


@pytest.fixture
def hub(fake_hub, tmp_path):
    return Hub(fake_hub.endpoint, tmp_path / "cache")


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A whole model of Stable Diffusion 2.x's kind that predicts velocities."""
    return write_wide_model(tmp_path_factory.mktemp("wide") / "tiny-sd2", write_tokenizer(tmp_path_factory.mktemp("w")))


# A list of ten lists of ten lists …, each ten times the same one, is a kilobyte of YAML.
LAUGHS = (
    "a0: &a0 [x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    + "model: {params: {parameterization: *a11, ztsnr: *a11}}"
)


class TestSingleFiles:
    def test_one_without_a_vae_gets_its_familys_own(self, fake_hub, hub, tiny_checkpoint, tmp_path):
        file = write_single_file(tmp_path / "mine.safetensors", tiny_checkpoint, vae=False)
        shutil.rmtree(file.with_suffix("") / "vae", ignore_errors=True)
        shutil.copytree(tiny_checkpoint / "vae", tmp_path / "repository")
        (file.with_suffix("") / "vae").mkdir()
        shutil.copy(tiny_checkpoint / "vae" / "config.json", file.with_suffix("") / "vae")
        fake_hub.repositories[AUTOENCODERS["sd1"]] = tmp_path / "repository"
        manager = ModelManager("cpu", hub=hub)
        whole = take(manager, Checkpoint(str(tiny_checkpoint)))
        list(manager.fetch(Checkpoint(str(file))))
        fake_hub.repositories.clear()  # all that loading needs is here
        single = take(manager, Checkpoint(str(file)))
        assert same_weights(single.components.vae, whole.components.vae)
        assert torch.equal(sampled(ORDER, single), sampled(ORDER, whole))

    def test_one_without_a_vae_and_without_a_network_is_one_sentence(self, tiny_checkpoint, tmp_path):
        file = write_single_file(tmp_path / "mine.safetensors", tiny_checkpoint, vae=False)
        manager = ModelManager("cpu", hub=Hub("http://127.0.0.1:9", tmp_path / "cache"))
        with pytest.raises(UserError, match=f"'{AUTOENCODERS['sd1']}' is not on this machine"):
            take(manager, Checkpoint(str(file)))

    def test_a_text_encoder_under_older_names_is_the_same(self, manager, tiny_checkpoint, tmp_path):
        file = write_single_file(tmp_path / "old.safetensors", tiny_checkpoint, older_names=True)
        assert "cond_stage_model.transformer.final_layer_norm.weight" in read_header(file).shapes
        single, whole = take(manager, Checkpoint(str(file))), take(manager, Checkpoint(str(tiny_checkpoint)))
        assert same_weights(single.components.text_encoder, whole.components.text_encoder)
        assert isinstance(single.components.text_encoder, CLIPTextModel)

    @pytest.mark.parametrize(
        ("tensors", "metadata", "yaml", "told"),
        [
            ((), {}, "", {}),
            (("v_pred",), {}, "", {"prediction_type": "v_prediction"}),
            ((), {"v_pred": "true"}, "", {"prediction_type": "v_prediction"}),
            ((), {"ss_v_parameterization": "True"}, "", {"prediction_type": "v_prediction"}),
            ((), {"ss_v_parameterization": "False"}, "", {}),
            ((), {"modelspec.prediction_type": "v"}, "", {"prediction_type": "v_prediction"}),
            ((), {"modelspec.prediction_type": "epsilon"}, "", {"prediction_type": "epsilon"}),
            (
                ("v_pred", "ztsnr"),
                {},
                "",
                {
                    "prediction_type": "v_prediction",
                    "rescale_betas_zero_snr": True,
                    "timestep_spacing": "trailing",
                },
            ),
            ((), {}, "model: {params: {parameterization: v}}", {"prediction_type": "v_prediction"}),
            ((), {}, "model: {params: {parameterization: x0, linear_end: 0.02}}", {"beta_end": 0.02}),
            (
                (),
                {"modelspec.prediction_type": "epsilon"},
                "model: {params: {parameterization: v, ztsnr: true}}",
                {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
            ),
        ],
    )
    def test_what_it_predicts_is_read_wherever_it_is_written(
        self, manager, tiny_checkpoint, tmp_path, tensors, metadata, yaml, told
    ):
        marks = {name: torch.zeros(0) for name in tensors}
        file = write_single_file(tmp_path / "m.safetensors", tiny_checkpoint, tensors=marks, metadata=metadata)
        if yaml:
            file.with_suffix(".yaml").write_text(yaml)
        scheduler = take(manager, Checkpoint(str(file))).components.scheduler
        usual = take(manager, Checkpoint(str(tiny_checkpoint))).components.scheduler
        assert {name: scheduler.config[name] for name in told} == told
        if not told:
            assert all(schedule_of(name, 8, scheduler) == schedule_of(name, 8, usual) for name in SAMPLERS)

    @pytest.mark.parametrize("content", ["model: [", "- a\n- b", "model: {params: 3}", "a: &a [*a]", "\x00", LAUGHS])
    def test_a_yaml_of_any_content_is_no_traceback(self, tmp_path, content):
        file = tmp_path / "m.safetensors"
        file.with_suffix(".yaml").write_text(content)
        try:
            assert scheduler_changes(file, Header({}, {}), "sd1") == {}
        except UserError as error:
            assert "m.yaml" in str(error)  # noqa: PT017 - either is right

    def test_a_yaml_of_impossible_levels_is_told(self, manager, tiny_checkpoint, tmp_path):
        file = write_single_file(tmp_path / "m.safetensors", tiny_checkpoint)
        file.with_suffix(".yaml").write_text("model: {params: {timesteps: 1000000000000}}")
        with pytest.raises(UserError, match=r"'m' has num_train_timesteps = 1000000000000 in"):
            take(manager, Checkpoint(str(file)))

    @pytest.mark.parametrize(("spread", "prediction"), [(0.2, "v_prediction"), (0.01, "epsilon")])
    def test_stable_diffusion_2_is_told_by_its_weights(self, tmp_path, spread, prediction):
        file = tmp_path / "sd2.safetensors"
        save_file({TELLTALE: torch.randn(64, generator=torch.Generator().manual_seed(0)) * spread}, file)
        assert scheduler_changes(file, read_header(file), "sd2")["prediction_type"] == prediction
        file.with_suffix(".yaml").write_text("model: {params: {parameterization: eps}}")
        assert scheduler_changes(file, read_header(file), "sd2")["prediction_type"] == "epsilon"

    def test_one_in_eight_bits_is_read_in_the_type_that_is_computed_in(self, manager, tiny_checkpoint, tmp_path):
        file = write_single_file(tmp_path / "small.safetensors", tiny_checkpoint)
        tensors = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in load_file(file).items()}
        save_file(tensors, file)
        small, whole = (take(manager, Checkpoint(str(one))) for one in (file, tiny_checkpoint))
        ours, theirs = (one.components.unet.conv_in.weight for one in (small, whole))
        assert torch.equal(ours, theirs.to(torch.float8_e4m3fn).float())
        assert sampled(ORDER, small).isfinite().all()


class TestStableDiffusion2:
    def test_loads_from_folder_file_and_hub_and_knows_what_it_predicts(self, wide, fake_hub, hub, tmp_path):
        fake_hub.repositories["owner/wide"] = wide
        manager = ModelManager("cpu", hub=hub)
        file = write_single_file(tmp_path / "two.safetensors", wide)
        folder, single, brought = (take(manager, Checkpoint(source)) for source in (str(wide), str(file), "owner/wide"))
        assert {pipeline.family for pipeline in (folder, single, brought)} == {"sd2"}
        for pipeline in (single, brought):
            assert pipeline.components.scheduler.config.prediction_type == "v_prediction"
            assert same_weights(pipeline.components.text_encoder, folder.components.text_encoder)
            assert torch.equal(sampled(ORDER, pipeline), sampled(ORDER, folder))
        assert sampled(ORDER, folder).isfinite().all()
        assert not torch.equal(sampled(replace(ORDER, prediction="epsilon"), folder), sampled(ORDER, folder))
        by_hand = replace(ORDER, prediction="v-prediction")
        assert torch.equal(sampled(by_hand, folder), sampled(ORDER, folder))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prediction_type", "flow"),
        ("prediction_type", [1]),
        ("timestep_spacing", "odd"),
        ("beta_schedule", None),
        ("beta_end", "much"),
        ("beta_end", 12),
        ("num_train_timesteps", 10**9),
        ("num_train_timesteps", 0),
        ("trained_betas", [0.1, 0.2]),
        ("trained_betas", "none"),
        ("trained_betas", [float("nan")] * 1000),
    ],
)
def test_a_scheduler_that_nobody_could_make_is_told(manager, tiny_checkpoint, tmp_path, name, value):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "odd")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {name: value}))
    with pytest.raises(UserError, match=rf"'odd' has {name} = .* in its scheduler's configuration, but") as caught:
        take(manager, Checkpoint(str(folder)))
    assert len(str(caught.value)) < 300


class TestHub:
    def test_the_family_is_read_before_anything_is_chosen_or_downloaded(self, fake_hub, hub, tiny_xl, wide, tmp_path):
        single = write_single_file(tmp_path / "files" / "two.safetensors", wide)
        fake_hub.repositories |= {"owner/real-xl": tiny_xl, "owner/wide": wide, "owner/files": single.parent}
        assert "sdxl" in checkpoint_for("edge", "owner/real-xl", hub=hub).controlnet
        assert speed_adapters("LCM", "owner/real-xl", hub) == (SPEEDS["LCM"].adapters["sdxl"],)
        assert native_size(Checkpoint("owner/real-xl"), hub) == Size(1024, 1024)
        with pytest.raises(UserError, match=r"\(Stable Diffusion 2[.]x\) no ControlNet is known"):
            checkpoint_for("pose", "owner/wide", hub=hub)
        assert family_of(Checkpoint("owner/files/two.safetensors"), hub) == "sd2"
        assert set(fake_hub.served) <= {"unet/config.json", "two.safetensors"}
        assert not hub.is_here("owner/real-xl")

    def test_a_family_that_nobody_can_tell_is_taken_for_the_first(self, fake_hub, hub, monkeypatch):
        assert family_of(Checkpoint("owner/unheard-of"), hub) == "sd1"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert family_of(Checkpoint("owner/offline"), hub) == "sd1"
        assert fake_hub.served == []

    def test_of_loose_checkpoints_none_is_downloaded(self, fake_hub, hub, tiny_checkpoint, tmp_path):
        loose = tmp_path / "loose"
        for name in ("a", "b", "c", "d"):
            write_single_file(loose / f"{name}.safetensors", tiny_checkpoint)
            shutil.rmtree(loose / name)
        fake_hub.repositories["owner/loose"] = loose
        manager = ModelManager("cpu", hub=hub)
        with pytest.raises(UserError, match=r"'owner/loose' holds 4 .*: name one of them, as in owner/loose/a\.safete"):
            take(manager, Checkpoint("owner/loose"))
        assert fake_hub.served == []

    def test_the_only_one_is_taken(self, fake_hub, hub, tiny_checkpoint, tmp_path):
        single = write_single_file(tmp_path / "one" / "one.safetensors", tiny_checkpoint)
        shutil.move(single.with_suffix(""), tmp_path / "beside")
        fake_hub.repositories["owner/one"] = single.parent
        found = ModelManager("cpu", hub=hub)._sources.folder("owner/one")
        assert [path.name for path in found.iterdir()] == ["one.safetensors"]
        # Of full size, as far as anybody can tell, which the tiny one is not: it is read as a file.
        with pytest.raises(UserError, match=r"'openai/clip-vit-large-patch14' is not on the Hub"):
            take(ModelManager("cpu", hub=hub), Checkpoint("owner/one"))

    def test_unets_that_are_pickles_alone_are_read_as_plain_tensors_and_told(
        self, fake_hub, hub, tiny_checkpoint, tmp_path
    ):
        folder = pickled(tiny_checkpoint, tmp_path / "gta5")
        fake_hub.repositories["owner/gta5"] = folder
        manager = ModelManager("cpu", hub=hub)
        told = [event.text for event in manager.fetch(Checkpoint("owner/gta5")) if isinstance(event, Notice)]
        assert told == ["owner/gta5 has its unet as pickles: they are read as plain tensors, no code of theirs is run."]
        ours, theirs = (take(manager, Checkpoint(source)) for source in ("owner/gta5", str(tiny_checkpoint)))
        assert same_weights(ours.components.unet, theirs.components.unet)
        alone = take(manager, Checkpoint(str(tiny_checkpoint), unet=str(folder)))
        assert same_weights(alone.components.unet, theirs.components.unet)

    def test_a_pickle_that_is_more_than_tensors_is_refused(self, manager, tiny_checkpoint, tmp_path):
        folder = pickled(tiny_checkpoint, tmp_path / "evil")
        torch.save({"weight": Evil()}, folder / "unet" / "diffusion_pytorch_model.bin")
        with pytest.raises(UserError, match=r"^The model 'evil' could not be read"):
            take(manager, Checkpoint(str(folder)))

    def test_the_four_styles_of_the_paper_are_offered(self):
        assert {f"{style}-style" for style in ("anime", "avatar", "gta5", "arcane")} <= set(DREAMBOOTH_STYLES)


def pickled(model, folder):
    """A copy of a model whose UNet is a pickle."""
    shutil.copytree(model, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    return folder


class TestNames:
    @pytest.fixture
    def folder(self, tiny_checkpoint, tmp_path):
        folder = tmp_path / "models"
        folder.mkdir()
        whole = {UNET_INPUT: torch.zeros(1, 4), "cond_stage_model.transformer.x": torch.zeros(1)}
        save_file(whole, folder / "mine.safetensors")
        write_lora(folder / "ink.safetensors", tiny_checkpoint)
        return folder

    def test_are_found_with_their_suffix(self, folder):
        for name in ("mine", "mine.safetensors", " mine.safetensors "):
            assert find_checkpoint(name, folder) == Checkpoint(str(folder / "mine.safetensors"))
        for name in ("ink", "ink.safetensors"):
            assert read_adapter(f"{name}:0.5", folder) == Adapter(str(folder / "ink.safetensors"), 0.5)
        assert set(local_models(folder)) == {"mine"}
        assert set(local_loras(folder)) == {"ink"}

    @pytest.mark.parametrize("name", ["a" * 300, "/models/" + "ä" * 200, "a/" * 3000, "owner/\0name"])
    def test_that_no_file_can_have_are_one_sentence(self, name, folder):
        for find in (find_checkpoint, read_adapter, lambda name, _: checkpoint_for("edge", "sd-1.5", controlnet=name)):
            with pytest.raises(UserError, match="none that a file can have") as caught:
                find(name, folder)
            assert len(str(caught.value)) < 200


class TestChangedFiles:
    def test_a_folder_that_changed_under_its_name_is_read_anew(self, tiny_checkpoint, tmp_path):
        folder = shutil.copytree(tiny_checkpoint, tmp_path / "mine")
        manager, checkpoint = ModelManager("cpu"), Checkpoint(str(folder))
        first = take(manager, checkpoint)
        assert take(manager, checkpoint) is first
        weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
        tensors = load_file(weights)
        save_file({name: tensor * 2 for name, tensor in tensors.items()}, weights, metadata={"format": "pt"})
        assert not manager.is_loaded(checkpoint)
        second = take(manager, checkpoint)
        assert torch.equal(second.components.unet.conv_in.weight, tensors["conv_in.weight"] * 2)
        assert second.weights != first.weights

    def test_a_lora_and_a_controlnet_too_and_what_is_shared_is_not(self, tiny_checkpoint, tmp_path):
        lora = write_lora(tmp_path / "ink.safetensors", tiny_checkpoint, seed=1)
        controlnet = write_controlnet(tmp_path / "edges", tiny_checkpoint, seed=1)
        manager = ModelManager("cpu")
        tuned = Checkpoint(str(tiny_checkpoint), adapters=(Adapter(str(lora)),))
        controlled = Checkpoint(str(tiny_checkpoint), controlnet=str(controlnet))
        before = [take(manager, checkpoint) for checkpoint in (tuned, controlled)]
        write_lora(lora, tiny_checkpoint, seed=2)
        write_controlnet(controlnet, tiny_checkpoint, seed=2)
        with loads() as counts:
            after = [take(manager, checkpoint) for checkpoint in (tuned, controlled)]
        assert counts == {"UNet2DConditionModel": 0, "AutoencoderKL": 0, "CLIPTextModel": 0, "ControlNetModel": 1}
        assert not same_weights(after[0].components.unet, before[0].components.unet)
        assert not same_weights(after[1].controlnet, before[1].controlnet)


def test_previews_are_fitted_in_float32_whatever_the_vaes_type(tiny_checkpoint):
    half, full = ModelManager("cpu", dtype="float16"), ModelManager("cpu")
    vae = take(half, Checkpoint(str(tiny_checkpoint))).components.vae
    assert vae.dtype == torch.float16
    seen = []
    vae.encoder.register_forward_hook(lambda _module, _inputs, out: seen.append(out.dtype))
    fitted = type(take(half, Checkpoint(str(tiny_checkpoint))).preview_decoder).fit(vae)
    assert seen == [torch.float32]
    assert vae.dtype == torch.float16
    exact = take(full, Checkpoint(str(tiny_checkpoint))).preview_decoder
    assert abs(fitted.matrix - exact.matrix).max() < 0.05

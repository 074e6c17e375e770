"""The model manager: what it loads, what it shares, what it keeps, and what it says when it cannot."""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file

from model_manager import ModelManager, _Reader
from tests.fake_hub import FakeHub
from tests.lending import loads, take
from tests.tiny_models import write_lora
from tests.tiny_single_files import write_single_file
from text2video_zero.device.memory import Holding, to_send_away, weight_bytes
from text2video_zero.device.self_check import self_check
from text2video_zero.errors import UserError
from text2video_zero.models.catalogue import DREAMBOOTH_STYLES
from text2video_zero.models.checkpoints import Adapter, Checkpoint
from text2video_zero.models.hub import Hub


@pytest.fixture
def own_manager():
    return ModelManager("cpu")


@pytest.fixture
def checkpoints(tiny_checkpoint, tiny_controlnets):
    """One checkpoint for each task on one base."""
    base = str(tiny_checkpoint)
    controlled = {control: Checkpoint(base, controlnet=str(path)) for control, path in tiny_controlnets.items()}
    return {"text": Checkpoint(base), **controlled}


class TestSharing:
    def test_tasks_on_one_base_hold_one_unet_vae_and_text_encoder(self, own_manager, checkpoints):
        with loads() as counts:
            pipelines = {}
            for name in ("text", "pose", "edge", "depth", "text", "edge"):
                with own_manager.lend(checkpoints[name]) as pipeline:
                    pipelines[name] = pipeline
        assert counts == {"UNet2DConditionModel": 1, "AutoencoderKL": 1, "CLIPTextModel": 1, "ControlNetModel": 3}
        assert len({id(pipeline.components.unet) for pipeline in pipelines.values()}) == 1
        assert len({id(pipeline.controlnet) for pipeline in pipelines.values()}) == 4

    def test_an_editors_unet_alone_takes_the_rest_from_its_base(self, own_manager, checkpoints, tiny_editor_unet):
        source = checkpoints["text"].source
        editor = Checkpoint(source, kind="instruct-pix2pix", unet=str(tiny_editor_unet))
        with own_manager.lend(checkpoints["text"]) as base, loads() as counts, own_manager.lend(editor) as edits:
            assert counts == {"UNet2DConditionModel": 1, "AutoencoderKL": 0, "CLIPTextModel": 0, "ControlNetModel": 0}
            assert edits.components.vae is base.components.vae
            assert edits.components.unet.config.in_channels == 8
            assert base.components.unet.config.in_channels == 4

    def test_requests_for_one_key_at_the_same_time_load_once(self, own_manager, checkpoints):
        lent = []

        def use():
            with own_manager.lend(checkpoints["pose"]) as pipeline:
                lent.append(pipeline)

        with loads() as counts:
            threads = [threading.Thread(target=use) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert set(counts.values()) == {1}
        assert len(lent) == 6
        assert len({id(pipeline) for pipeline in lent}) == 1

    def test_two_at_the_same_time_on_one_base_load_it_once(self, own_manager, checkpoints, monkeypatch):
        read_base, lent = _Reader.base, {}

        def slowly(*arguments):
            time.sleep(0.3)  # whoever is not kept out comes in meanwhile
            return read_base(*arguments)

        def use(name):
            lent[name] = take(own_manager, checkpoints[name])

        monkeypatch.setattr(_Reader, "base", slowly)
        with loads() as counts:
            threads = [threading.Thread(target=use, args=(name,)) for name in ("pose", "edge")]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert counts == {"UNet2DConditionModel": 1, "AutoencoderKL": 1, "CLIPTextModel": 1, "ControlNetModel": 2}
        assert lent["pose"].components.unet is lent["edge"].components.unet

    def test_what_is_kept_does_not_depend_on_the_mode_of_who_asked_first(self, own_manager, checkpoints):
        with torch.inference_mode(), own_manager.lend(checkpoints["edge"]) as pipeline:
            weights = [weight for network in pipeline.networks for weight in network.parameters()]
        assert not any(weight.is_inference() for weight in weights)


class TestKinds:
    def test_a_controlnet_runs_with_the_unet_it_is_lent_with(self, own_manager, checkpoints):
        with own_manager.lend(checkpoints["edge"]) as pipeline, torch.inference_mode():
            text = torch.zeros(1, 16, 16)
            latents, control = torch.randn(1, 4, 8, 8), torch.rand(1, 3, 64, 64)
            down, middle = pipeline.controlnet(latents, 1, text, controlnet_cond=control, return_dict=False)
            plain = pipeline.components.unet(latents, 1, text).sample
            controlled = pipeline.components.unet(
                latents, 1, text, down_block_additional_residuals=down, mid_block_additional_residual=middle
            ).sample
        assert (controlled - plain).abs().max() > 1e-3

    def test_a_whole_editor_is_lent_as_one(self, own_manager, tiny_editor):
        with own_manager.lend(Checkpoint(str(tiny_editor), kind="instruct-pix2pix")) as pipeline:
            assert pipeline.components.unet.config.in_channels == 8
            assert pipeline.family == "sd1"
            assert pipeline.controlnet is None

    def test_kinds_are_not_mixed_up(self, own_manager, tiny_editor, checkpoints):
        with pytest.raises(UserError, match="'tiny-editor' is made for instruct-pix2pix: choose one for text-to-image"):
            own_manager.lend(Checkpoint(str(tiny_editor))).__enter__()
        text = checkpoints["text"].source
        with pytest.raises(UserError, match="is made for text-to-image: choose one for instruct-pix2pix"):
            own_manager.lend(Checkpoint(text, kind="instruct-pix2pix")).__enter__()


class TestDetectors:
    def test_depth_is_seen_and_the_network_released(self, own_manager, tiny_detectors):
        picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
        with own_manager.lend_detector(tiny_detectors["depth"]) as detector, torch.inference_mode():
            prepared = detector.network.processor(images=[picture, picture], return_tensors="pt")
            depth = detector.network.model(**prepared).predicted_depth
            assert detector.device.type == "cpu"
            assert detector.box_finder is None
        assert depth.shape[0] == 2
        assert all(weight.is_meta for weight in detector.network.model.parameters())

    def test_an_annotators_network_is_released_too(self, own_manager, monkeypatch):
        midas = pytest.importorskip("controlnet_aux.midas")
        read = midas.MidasDetector(torch.nn.Conv2d(3, 1, 1))
        monkeypatch.setattr(type(own_manager._reader), "annotator", lambda *_: read)
        with own_manager.lend_detector("midas") as detector:
            assert not any(weight.is_meta for weight in detector.model.parameters())
        assert all(weight.is_meta for weight in detector.model.parameters())

    def test_poses_are_seen_in_boxes(self, own_manager, tiny_detectors):
        picture = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
        boxes = [np.array([[10, 10, 50, 80]], np.float32)]
        with own_manager.lend_detector(tiny_detectors["pose"]) as detector, torch.inference_mode():
            finder = detector.box_finder
            found = finder.model(**finder.processor(images=[picture], return_tensors="pt"))
            people = finder.processor.post_process_object_detection(found, threshold=0.0, target_sizes=[(96, 128)])
            pose = detector.network
            seen = pose.model(**pose.processor(picture, boxes=boxes, return_tensors="pt"))
            keypoints = pose.processor.post_process_pose_estimation(seen, boxes=boxes)[0][0]["keypoints"]
        assert people[0]["boxes"].shape[1] == 4
        assert keypoints.shape == (17, 2)

    def test_an_unknown_detector_is_refused(self, own_manager):
        with pytest.raises(UserError, match="'sonar' is not known: choose one of depth"):
            own_manager.lend_detector("sonar").__enter__()


class TestEviction:
    @pytest.fixture
    def sizes(self, own_manager, checkpoints):
        """Bytes of the base and of a ControlNet."""
        pipeline = take(own_manager, checkpoints["pose"])
        parts = [part for part in pipeline.components.components.values() if isinstance(part, torch.nn.Module)]
        return weight_bytes(parts), weight_bytes([pipeline.controlnet])

    def test_the_least_recently_used_goes_first(self, checkpoints, sizes):
        base, controlnet = sizes
        manager = ModelManager("cpu", device_budget=base + 2 * controlnet)
        for name in ("pose", "edge", "pose", "depth"):
            take(manager, checkpoints[name])
        assert [name for name in checkpoints if manager.is_loaded(checkpoints[name])] == ["pose", "depth"]
        with loads() as counts:
            take(manager, checkpoints["edge"])
        assert counts == {"UNet2DConditionModel": 0, "AutoencoderKL": 0, "CLIPTextModel": 0, "ControlNetModel": 1}
        assert [name for name in checkpoints if manager.is_loaded(checkpoints[name])] == ["edge", "depth"]

    def test_what_is_in_use_stays(self, checkpoints):
        manager = ModelManager("cpu", device_budget=0)
        with manager.lend(checkpoints["pose"]) as pose:
            take(manager, checkpoints["edge"])
            assert manager.is_loaded(checkpoints["pose"])
            with manager.lend(checkpoints["pose"]) as again:
                assert again is pose
        take(manager, checkpoints["depth"])
        assert not manager.is_loaded(checkpoints["pose"])

    def test_what_went_comes_back_the_same(self, checkpoints):
        manager = ModelManager("cpu", device_budget=0)
        before = {
            name: value.clone() for name, value in take(manager, checkpoints["edge"]).controlnet.state_dict().items()
        }
        take(manager, checkpoints["pose"])
        after = take(manager, checkpoints["edge"]).controlnet.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())

    @pytest.mark.parametrize(
        ("holdings", "wanted", "budget", "leaving"),
        [
            ([{1: 5, 2: 3}, {1: 5, 3: 3}], {1: 5, 4: 3}, 100, []),
            ([{1: 5, 2: 3}, {1: 5, 3: 3}], {1: 5, 4: 3}, 11, [0]),
            ([{1: 5, 2: 3}, {1: 5, 3: 3}], {1: 5, 4: 3}, 8, [0, 1]),
            ([{1: 5}, {1: 5, 3: 3}], {1: 5, 4: 3}, 8, [1]),
            ([{1: 5}, {2: 5}], {3: 50}, 20, [0, 1]),
            ([], {3: 50}, 20, []),
        ],
    )
    def test_who_leaves(self, holdings, wanted, budget, leaving):
        held = [Holding(parts) for parts in holdings]
        assert to_send_away(held, Holding(wanted), budget) == leaving
        in_use = [Holding(parts, in_use=True) for parts in holdings]
        assert to_send_away(in_use, Holding(wanted), budget) == []


class TestFailures:
    def test_a_failed_load_leaves_the_manager_as_it_was(self, checkpoints, tmp_path, tiny_checkpoint):
        manager = ModelManager("cpu", device_budget=0)
        text = take(manager, checkpoints["text"])
        broken = tmp_path / "broken"
        shutil.copytree(tiny_checkpoint, broken)
        file = broken / "unet" / "diffusion_pytorch_model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(UserError, match=r"'diffusion_pytorch_model[.]safetensors' ends at byte"):
            take(manager, Checkpoint(str(broken)))
        assert take(manager, checkpoints["text"]) is text
        take(manager, checkpoints["pose"])

    def test_a_failure_in_a_run_gives_the_pipeline_back(self, own_manager, checkpoints):
        def fail():
            with own_manager.lend(checkpoints["pose"]):
                raise RuntimeError("injected")

        with pytest.raises(RuntimeError, match="injected"):
            fail()
        own_manager.cache.device_budget = 0
        take(own_manager, checkpoints["edge"])
        assert not own_manager.is_loaded(checkpoints["pose"])

    def test_a_patch_left_behind_is_told(self, own_manager, checkpoints):
        def forget():
            with own_manager.lend(checkpoints["text"]) as pipeline:
                pipeline.components.unet.set_attn_processor(AttnProcessor())

        with pytest.raises(RuntimeError, match=r"left \d+ patched attention layers behind"):
            forget()

    @pytest.mark.parametrize(
        ("source", "sentence"),
        [
            ("/no/such/folder", "The model '/no/such/folder' does not exist"),
            ("missing.safetensors", "The model 'missing.safetensors' does not exist"),
            ("{empty}", "The folder 'empty' holds no model_index.json"),
            ("{picture}", "'picture.safetensors' is broken or no safetensors file"),
            ("{video}", "The folder 'video' holds a StableVideoDiffusionPipeline"),
            ("{lora}", "The file 'lora.safetensors' is a LoRA"),
            ("{torn}", "The model 'torn' could not be read"),
        ],
    )
    def test_each_reason_is_one_sentence(self, own_manager, source, sentence, tmp_path, tiny_checkpoint):
        (tmp_path / "empty").mkdir()
        (tmp_path / "picture.safetensors").write_bytes(b"\x89PNG" * 10)
        (tmp_path / "video").mkdir()
        (tmp_path / "video" / "model_index.json").write_text('{"_class_name": "StableVideoDiffusionPipeline"}')
        write_lora(tmp_path / "lora.safetensors", tiny_checkpoint)
        shutil.copytree(tiny_checkpoint, tmp_path / "torn")
        weights = tmp_path / "torn" / "unet" / "diffusion_pytorch_model.safetensors"
        weights.rename(weights.with_name("diffusion_pytorch_model.bin"))  # which is no pickle
        names = {"picture": "picture.safetensors", "lora": "lora.safetensors"}
        places = {name: tmp_path / names.get(name, name) for name in ("empty", "picture", "video", "lora", "torn")}
        with pytest.raises(UserError, match=sentence) as caught:
            take(own_manager, Checkpoint(source.format(**places)))
        assert str(caught.value).rstrip(".").count(". ") == 0
        assert "\n" not in str(caught.value)

    def test_a_controlnet_of_another_family_is_refused(self, own_manager, checkpoints, tmp_path):
        wide = UNet2DConditionModel.load_config(checkpoints["text"].source, subfolder="unet")
        unet = UNet2DConditionModel.from_config(wide, cross_attention_dim=1024)
        ControlNetModel.from_unet(unet).save_pretrained(tmp_path / "sd2-edges")
        other = Checkpoint(checkpoints["text"].source, controlnet=str(tmp_path / "sd2-edges"))
        with pytest.raises(UserError, match=r"'sd2-edges' \(Stable Diffusion 2.x\) does not fit the model"):
            take(own_manager, other)


class TestSources:
    def test_a_single_file_holds_the_same_weights_as_its_folder(self, own_manager, checkpoints, tmp_path):
        path = write_single_file(tmp_path / "mine.safetensors", Path(checkpoints["text"].source))
        single, folder = take(own_manager, Checkpoint(str(path))), take(own_manager, checkpoints["text"])
        for name in ("unet", "vae", "text_encoder"):
            ours = getattr(single.components, name).state_dict()
            theirs = getattr(folder.components, name).state_dict()
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
        assert single.components.tokenizer("a red panda") == folder.components.tokenizer("a red panda")

    def test_a_controlnet_in_one_file_is_the_one_in_its_folder(self, own_manager, checkpoints, tmp_path):
        folder = Path(checkpoints["edge"].controlnet)
        file = tmp_path / "edges.safetensors"
        shutil.copy(folder / "diffusion_pytorch_model.safetensors", file)
        with pytest.raises(UserError, match=r"The file 'edges.safetensors' is no ControlNet: choose one"):
            take(own_manager, Checkpoint(checkpoints["text"].source, controlnet=str(file)))  # of a tiny width
        (tmp_path / "edges").mkdir()
        shutil.copy(folder / "config.json", tmp_path / "edges")
        single = take(own_manager, Checkpoint(checkpoints["text"].source, controlnet=str(file))).controlnet
        ours, theirs = single.state_dict(), take(own_manager, checkpoints["edge"]).controlnet.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    def test_loras_add_up_and_leave_the_plain_model_alone(self, own_manager, checkpoints, tmp_path):
        base = checkpoints["text"].source
        files = [
            write_lora(tmp_path / name / "style.safetensors", Path(base), seed=seed) for seed, name in enumerate("ab")
        ]
        plain = take(own_manager, checkpoints["text"])
        layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
        before = plain.components.unet.get_submodule(layer).weight.clone()
        adapters = (Adapter(str(files[0]), 0.5), Adapter(str(files[1].parent), -0.25))
        tuned = take(own_manager, Checkpoint(base, adapters=adapters))
        expected = before.clone()
        for file, weight in zip(files, (0.5, -0.25), strict=True):
            lora = load_file(file)
            expected += weight * lora[f"unet.{layer}.lora_B.weight"] @ lora[f"unet.{layer}.lora_A.weight"]
        assert torch.allclose(tuned.components.unet.get_submodule(layer).weight, expected, atol=1e-5)
        assert torch.equal(plain.components.unet.get_submodule(layer).weight, before)
        assert tuned.components.vae is plain.components.vae
        assert tuned.components.text_encoder is not plain.components.text_encoder  # a LoRA may change it
        assert set(tuned.components.unet.state_dict()) == set(plain.components.unet.state_dict())

    def test_of_a_lora_for_the_unet_alone_nothing_is_said(self, own_manager, checkpoints, tmp_path):
        base, library, told = checkpoints["text"].source, logging.getLogger("diffusers"), []
        file = write_lora(tmp_path / "style.safetensors", Path(base))
        (listener := logging.Handler()).emit = told.append
        library.addHandler(listener)
        try:
            take(own_manager, Checkpoint(base, adapters=(Adapter(str(file)),)))
            logging.getLogger("diffusers.loaders.peft").warning("No LoRA keys associated to it")
        finally:
            library.removeHandler(listener)
        assert [record.getMessage() for record in told] == ["No LoRA keys associated to it"]  # which others may hear

    def test_a_lora_of_another_base_is_refused(self, own_manager, checkpoints, tmp_path):
        base = checkpoints["text"].source
        file = write_lora(tmp_path / "wide.safetensors", Path(base), text_width=768)
        with pytest.raises(UserError, match=r"'wide' was made for another base \(text width 768, the model's is 16\)"):
            take(own_manager, Checkpoint(base, adapters=(Adapter(str(file)),)))

    def test_of_a_hub_id_with_many_files_one_is_enough(self, tiny_checkpoint, tmp_path):
        styles = tmp_path / "styles"
        for seed, name in enumerate(("ink", "silk", "deep/wool")):
            write_lora(styles / f"{name}.safetensors", tiny_checkpoint, seed=seed)
        local = Adapter(str(styles / "deep" / "wool.safetensors"))
        same = take(ModelManager("cpu"), Checkpoint(str(tiny_checkpoint), adapters=(local,)))
        with FakeHub({"owner/styles": styles}).running() as hub:
            manager = ModelManager("cpu", hub=Hub(hub.endpoint, tmp_path / "cache"))
            wool = Adapter("owner/styles/deep/wool.safetensors")
            tuned = take(manager, Checkpoint(str(tiny_checkpoint), adapters=(wool,)))
            assert hub.served == ["deep/wool.safetensors"]
            with pytest.raises(UserError, match=r"'owner/styles' has no file 'none[.]safetensors': check"):
                take(manager, Checkpoint("owner/styles/none.safetensors"))
            with pytest.raises(UserError, match=r"The LoRA 'owner/styles' holds 2 .* name one of them"):
                take(manager, Checkpoint(str(tiny_checkpoint), adapters=(Adapter("owner/styles"),)))
        ours, theirs = (pipeline.components.unet.state_dict() for pipeline in (tuned, same))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def test_a_hub_id_is_downloaded_once_and_a_mirror_stands_in(self, tiny_checkpoint, tmp_path, monkeypatch):
        mirrored = Checkpoint("owner/gone")
        monkeypatch.setattr(
            "text2video_zero.models.sources.mirrors_of",
            lambda checkpoint: (Checkpoint("owner/tiny"),) if checkpoint == mirrored else (),
        )
        with FakeHub({"owner/tiny": tiny_checkpoint}).running() as hub:
            manager = ModelManager("cpu", hub=Hub(hub.endpoint, tmp_path / "cache"))
            direct = take(manager, Checkpoint("owner/tiny"))
            served = len(hub.served)
            assert served > 5
            assert take(manager, mirrored).native_size == direct.native_size
            assert len(hub.served) == served
            with pytest.raises(UserError, match="'owner/unknown' is not on the Hub"):
                take(manager, Checkpoint("owner/unknown"))


def test_the_self_check_says_what_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "text2video_zero.device.self_check.local_models", lambda: {"my-model": Checkpoint("models/my-model")}
    )
    lines = ModelManager("cpu", hub=Hub("http://127.0.0.1:9", tmp_path / "cache")).self_check()
    assert lines[0].startswith("Device: CPU (cpu), float32")
    assert "Model toyland-sunset: here" in lines
    assert re.fullmatch(r"Memory: [\d.]+ of [\d.]+ GB free, up to [\d.]+ GB for models", lines[1])
    assert f"torch {torch.__version__.split('+')[0]}" in lines[2]
    assert "Model sd-1.5: would be downloaded" in lines
    assert "Model my-model: here, in models/" in lines
    assert "Detector depth: would be downloaded" in lines


@pytest.mark.parametrize(
    ("cpu_has_bfloat16", "dtype", "offer"),
    [
        (False, torch.float32, ""),
        (True, torch.float32, "; this CPU computes in bfloat16 as well (--dtype bfloat16)"),
        (True, torch.bfloat16, ""),
    ],
)
def test_a_cpu_that_computes_in_bfloat16_is_told(tmp_path, cpu_has_bfloat16, dtype, offer):
    hub = Hub("http://127.0.0.1:9", tmp_path / "cache")
    line = self_check(torch.device("cpu"), dtype, 0, hub, cpu_has_bfloat16=cpu_has_bfloat16)[0]
    assert line == f"Device: CPU (cpu), {str(dtype).removeprefix('torch.')}{offer}"


def test_the_self_check_counts_gigabytes_as_the_memory_plan_does(tmp_path, monkeypatch):
    monkeypatch.setattr("text2video_zero.device.self_check.memory_of", lambda _: (6_100_000_000, 8 * 10**9))
    hub = Hub("http://127.0.0.1:9", tmp_path / "cache")
    line = self_check(torch.device("cpu"), torch.float32, 3 * 10**9, hub)[1]
    assert line == "Memory: 6.1 of 8.0 GB free, up to 3.0 GB for models"


def test_the_self_check_misses_each_part_of_a_model(tmp_path, monkeypatch):
    style = DREAMBOOTH_STYLES["toyland-sunset"]
    tuned = replace(style.checkpoint, unet=str(tmp_path / "unet"))
    monkeypatch.setattr("text2video_zero.device.self_check.DREAMBOOTH_STYLES", {"": replace(style, checkpoint=tuned)})
    lines = ModelManager("cpu", hub=Hub("http://127.0.0.1:9", tmp_path / "cache")).self_check()
    assert "Model toyland-sunset: missing" in lines

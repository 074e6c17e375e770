"""The model manager: what it loads, what it shares, what it keeps, and what it says when it cannot."""

from __future__ import annotations

import threading
from unittest import mock

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextModel

from model_manager import ModelManager
from text2video_zero.checkpoints import Checkpoint
from text2video_zero.errors import UserError


class LoadCount:
    """Counts what is read from disk, by class; the reading itself is the real one."""

    def __init__(self, *classes):
        self.counts = {cls.__name__: 0 for cls in classes}
        self._patches = [
            mock.patch.object(cls, "from_pretrained", self._counted(cls.__name__, cls.from_pretrained))
            for cls in classes
        ]

    def _counted(self, name, read):
        def counted(*arguments, **options):
            self.counts[name] += 1
            return read(*arguments, **options)

        return counted

    def __enter__(self):
        for patch in self._patches:
            patch.start()
        return self.counts

    def __exit__(self, *_):
        for patch in self._patches:
            patch.stop()


def loads():
    return LoadCount(UNet2DConditionModel, AutoencoderKL, CLIPTextModel, ControlNetModel)


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

        def borrow():
            with own_manager.lend(checkpoints["pose"]) as pipeline:
                lent.append(pipeline)

        with loads() as counts:
            threads = [threading.Thread(target=borrow) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert set(counts.values()) == {1}
        assert len(lent) == 6
        assert len({id(pipeline) for pipeline in lent}) == 1


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

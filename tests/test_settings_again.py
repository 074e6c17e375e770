"""Settings of earlier videos: what they record, and what making them again says of what is not here."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from model_manager import ModelManager
from tests.lending import take
from text2video_zero.errors import UserError
from text2video_zero.events import Finished, Notice
from text2video_zero.generate import run_job, settings
from text2video_zero.job import Job, Settings, build_job
from text2video_zero.models.catalogue import STABLE_DIFFUSION_1_5
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.models.files.fingerprints import short_hash
from text2video_zero.requests import Size, TextToVideoRequest

ORDER = TextToVideoRequest(prompt="a red fox", frames=2, steps=4, seed=5, size=Size(64, 64))


@pytest.fixture(scope="module")
def manager():
    return ModelManager("cpu")


class TestSettings:
    @pytest.fixture
    def made(self, tmp_path):
        def write(**told):
            path = tmp_path / "video.json"
            path.write_text(json.dumps({"request": {"prompt": "a fox", "seed": 1}, **told}))
            return path

        return write

    def test_what_an_earlier_version_had_no_field_for_is_off_and_what_somebody_leaves_out_is_the_model_s(self, made):
        whole = made(model="toyland")
        assert build_job("text-to-video", {}, settings=Settings.read(whole, "text-to-video")).request.restart is False
        whole.write_text(json.dumps({"prompt": "a fox", "seed": 1}))
        assert build_job("text-to-video", {}, settings=Settings.read(whole, "text-to-video")).request.restart is True

    @pytest.mark.parametrize("model", ["my-model", "lost.safetensors", "/no/such/folder", "a" * 400])
    def test_a_model_that_is_not_here_is_named(self, made, model):
        read = Settings.read(made(model=model), "text-to-video")
        with pytest.raises(UserError, match=r"not here: put it into models/|is none that a file can have"):
            build_job("text-to-video", {}, settings=read)
        assert build_job("text-to-video", {}, model="toyland", settings=read).request.seed == 1

    def test_a_hub_id_with_its_revision_is_taken(self, made):
        read = Settings.read(made(model="owner/mine", revision="v2"), "text-to-video")
        assert build_job("text-to-video", {}, settings=read).checkpoint == Checkpoint("owner/mine", "v2")

    def test_a_known_model_of_another_revision_keeps_it(self, made):
        source = STABLE_DIFFUSION_1_5.checkpoint.source
        for name in ("sd-1.5", source):
            read = Settings.read(made(model=name, revision="fp16"), "text-to-video")
            assert build_job("text-to-video", {}, settings=read).checkpoint == Checkpoint(source, "fp16")
            assert Settings.read(made(model=name), "text-to-video").model == "sd-1.5"

    def test_the_controlnet_is_taken_or_named(self, made):
        usual = Settings.read(made(model="toyland", controlnet="controlnet-edge"), "edge")
        own = Settings.read(made(model="toyland", controlnet="owner/edges@v2"), "edge")
        lost = Settings.read(made(model="toyland", controlnet="my-edges"), "edge")
        given = {"clip": "a.mp4"}
        assert (
            build_job("edge", given, settings=usual).checkpoint
            == build_job("edge", {**given, "prompt": "x"}).checkpoint
        )
        checkpoint = build_job("edge", given, settings=own).checkpoint
        assert checkpoint.controlnet_key == ("owner/edges", "v2")
        with pytest.raises(UserError, match=r"made with the ControlNet 'my-edges', which is not here"):
            build_job("edge", given, settings=lost)
        other = build_job("edge", given, controlnet="mine/edges", settings=lost)
        assert other.checkpoint.controlnet == "mine/edges"

    @pytest.mark.parametrize("name", ["~nobody-of-that-name/edges@v2", "x" * 300 + "@v2", "bad\0name"])
    def test_a_controlnet_that_no_file_can_be_is_told(self, name, made):
        with pytest.raises(UserError, match="is none that a file can have"):
            Settings.read(made(model="toyland", controlnet=name), "edge").usable_controlnet("controlnet-edge")

    def test_they_record_what_a_video_was_made_with(self, manager, tiny_checkpoint, tiny_controlnets):
        source = str(tiny_checkpoint)
        with manager.lend(Checkpoint(source, controlnet=str(tiny_controlnets["edge"]))) as pipeline:
            told = settings(ORDER, pipeline)
            revised = replace(
                pipeline, checkpoint=replace(pipeline.checkpoint, revision="v2", controlnet_revision="v3")
            )
            assert settings(ORDER, revised)["revision"] == "v2"
            assert settings(ORDER, revised)["controlnet"] == "edge@v3"
        assert told["controlnet"] == "edge"
        assert re.fullmatch("[0-9a-f]{10}", told["weights"])
        assert told["weights"] == short_hash([tiny_checkpoint / "unet" / "diffusion_pytorch_model.safetensors"])
        assert "revision" not in told

    def test_other_weights_than_then_are_told(self, manager, tiny_checkpoint):
        for weights, notices in (("", 0), (take(manager, Checkpoint(str(tiny_checkpoint))).weights, 0), ("0" * 10, 1)):
            events = list(run_job(Job(ORDER, Checkpoint(str(tiny_checkpoint)), weights=weights), manager))
            told = [event.text for event in events if isinstance(event, Notice) and "weights" in event.text]
            assert len(told) == notices
            assert isinstance(events[-1], Finished)
        assert "in the settings 0000000000): the video will differ" in told[0]

"""The safety checker: which frames it blocks, what the person is told, and that nothing gets around it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from app import read_options, wants_check
from model_manager import ModelManager
from serving.queue import complete
from serving.runners.local import LocalRunner
from serving.store import JobStore
from tests.fake_hub import FakeHub
from tests.tiny_models import write_lora, write_safety_checker
from text2video_zero.__main__ import main
from text2video_zero.errors import UserError
from text2video_zero.events import Finished
from text2video_zero.generate import generate
from text2video_zero.generators import result_of
from text2video_zero.job import Job
from text2video_zero.models.catalogue import SAFETY_CHECKER, SAFETY_CHECKER_MIRROR, TOYLAND, TOYLAND_FOLDER, is_harmless
from text2video_zero.models.checkpoints import Adapter, Checkpoint
from text2video_zero.models.hub import Hub
from text2video_zero.requests import TextToVideoRequest

SHORT = TextToVideoRequest(prompt="a red fox", frames=3, steps=4, seed=5)
EVERYTHING, NOTHING = -1.0, 1.0  # thresholds of likeness


@pytest.fixture(scope="module")
def checker_folder(tmp_path_factory):
    return write_safety_checker(tmp_path_factory.mktemp("checker") / "safety_checker")


@pytest.fixture
def hub(tiny_checkpoint, checker_folder):
    with FakeHub({SAFETY_CHECKER: checker_folder, "owner/tiny": tiny_checkpoint}).running() as running:
        yield running


@pytest.fixture
def careful(hub, tmp_path):
    return ModelManager("cpu", hub=Hub(hub.endpoint, tmp_path / "cache"), check_safety=True)


@pytest.fixture
def checked(careful, tiny_checkpoint):
    with careful.lend(Checkpoint(str(tiny_checkpoint))) as lent:
        yield lent


def block(pipeline, threshold):
    pipeline.safety_checker.network.concept_embeds_weights.data.fill_(threshold)


def noisy_frames(number):
    return np.random.default_rng(3).integers(0, 255, (number, 40, 56, 3), np.uint8)


@torch.no_grad()
def embeddings(checker, pixels):
    return checker.network.visual_projection(checker.network.vision_model(pixels)[1])


def block_like(checker, frame):
    """Make one frame the only unwanted concept there is."""
    pixels = checker.processor([frame], return_tensors="pt").pixel_values
    checker.network.concept_embeds.data[:] = embeddings(checker, pixels)
    checker.network.concept_embeds_weights.data.fill_(0.99999)


class TestBlocking:
    def test_a_clip_that_passes_is_the_clip_without_a_checker(self, checked, pipeline):
        block(checked, NOTHING)
        ours = result_frames(checked)
        assert np.array_equal(ours, result_frames(pipeline))

    def test_a_blocked_clip_is_said_to_be_and_never_finished(self, checked):
        block(checked, EVERYTHING)
        events = []
        with pytest.raises(UserError, match="blocked frames 1 to 3 of 3, so there is no video: change the prompt"):
            events.extend(generate(SHORT, checked))
        assert not any(isinstance(event, Finished) for event in events)

    def test_says_which_frames_and_hands_none_out_from_the_first_on(self, checked):
        frames = noisy_frames(30)
        frames[[9, 10, 28]] = frames[9]
        block_like(checked.safety_checker, frames[9])
        handed_out = []
        with pytest.raises(UserError, match="blocked frames 10 to 11 and 29 of 30"):
            handed_out.extend(checked.safety_checker.passed(frames))
        assert len(handed_out) == 8
        assert np.array_equal(list(checked.safety_checker.passed(frames[:9])), frames[:9])
        with pytest.raises(UserError, match="blocked frame 3 of 4"):
            list(checked.safety_checker.passed(frames[[0, 1, 9, 2]]))

    def test_decides_as_diffusers_pipelines_do(self, checked):
        checker, frames = checked.safety_checker, noisy_frames(12)
        pixels = checker.processor(list(frames), return_tensors="pt").pixel_values
        likeness = torch.cosine_similarity(
            embeddings(checker, pixels)[:, None], checker.network.concept_embeds[None], dim=-1
        )  # (frames, concepts)
        checker.network.concept_embeds_weights.data = likeness.quantile(0.95, dim=0)
        _, theirs = checker.network(clip_input=pixels, images=[np.ones((4, 4, 3))] * 12)
        assert checker.blocks(frames) == theirs
        assert 0 < sum(theirs) < 12

    def test_what_was_blocked_is_neither_shown_nor_kept(self, careful, checked, tmp_path):
        block(checked, EVERYTHING)
        store = JobStore(tmp_path / "videos")
        job = Job(SHORT, checked.checkpoint)
        folder = store.add(job)
        with pytest.raises(UserError, match="The safety checker blocked"):
            list(complete(job, LocalRunner(lambda: careful), folder))
        assert sorted(path.name for path in folder.path.iterdir()) == ["request.json", "state.json"]


def result_frames(pipeline):
    return list(generate(SHORT, pipeline))[-1].video.frames


class TestWeights:
    def test_one_checker_looks_at_what_all_models_draw(self, careful, tiny_checkpoint, tiny_xl):
        with careful.lend(Checkpoint(str(tiny_checkpoint))) as first, careful.lend(Checkpoint(str(tiny_xl))) as second:
            assert first.safety_checker is second.safety_checker

    def test_published_weights_are_read_under_their_names(self, checker_folder, hub, tmp_path, careful):
        published = shutil.copytree(checker_folder, tmp_path / "published")
        file = published / "model.safetensors"
        weights = load_file(file)
        renamed = {
            f"vision_model.{name}" if name.startswith("vision_model.") else name: weight
            for name, weight in weights.items()
        }
        save_file(renamed, file, metadata={"format": "pt"})
        hub.repositories[SAFETY_CHECKER] = published
        with careful.lend(Checkpoint("owner/tiny")) as lent:
            loaded = lent.safety_checker.network.state_dict()
        assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())

    def test_are_downloaded_with_the_model_and_told(self, careful):
        told = {event.stage for event in careful.fetch(Checkpoint("owner/tiny"))}
        assert told == {f"Downloading {SAFETY_CHECKER}", "Downloading owner/tiny"}

    def test_come_from_another_place_where_the_first_has_none(self, hub, careful, checker_folder, tmp_path):
        del hub.repositories[SAFETY_CHECKER]
        whole = tmp_path / "whole"
        shutil.copytree(checker_folder, whole / "safety_checker")
        hub.repositories[SAFETY_CHECKER_MIRROR.source] = whole
        with careful.lend(Checkpoint("owner/tiny")) as lent:
            assert lent.safety_checker.processor.size == {"shortest_edge": 224}
            assert lent.safety_checker.network.concept_embeds.shape == (17, 12)

    def test_without_them_there_is_one_sentence_and_no_video(self, tiny_checkpoint, tmp_path):
        careful = ModelManager("cpu", hub=Hub("http://127.0.0.1:9", tmp_path / "cache"), check_safety=True)
        checkpoint = Checkpoint(str(tiny_checkpoint))
        sentence = (
            "No video is shown here before the safety checker has looked at it, and it cannot be had: the model "
            f"{SAFETY_CHECKER!r} is not on this machine, and the Hub cannot be reached"
        )
        for attempt in (lambda: result_of(careful.fetch(checkpoint)), lambda: careful.lend(checkpoint).__enter__()):
            with pytest.raises(UserError, match=sentence):
                attempt()
        assert not careful.is_loaded(checkpoint)


class TestWhoIsChecked:
    def test_a_model_that_was_first_loaded_with_a_lora_without_it_too(self, careful, tiny_checkpoint, tmp_path):
        style = Adapter(str(write_lora(tmp_path / "style.safetensors", tiny_checkpoint)))
        for checkpoint in (Checkpoint(str(tiny_checkpoint), adapters=(style,)), Checkpoint(str(tiny_checkpoint))):
            with careful.lend(checkpoint) as lent:
                assert lent.safety_checker is not None

    def test_toyland_and_what_belongs_to_it_need_none(self):
        inside = (TOYLAND.checkpoint, Checkpoint(str(TOYLAND_FOLDER), unet=str(TOYLAND_FOLDER / "instruct-pix2pix")))
        assert all(is_harmless(checkpoint) for checkpoint in inside)
        style = Adapter(str(TOYLAND_FOLDER / "style.safetensors"))
        assert is_harmless(Checkpoint(str(TOYLAND_FOLDER), adapters=(style,)))
        for foreign in (
            Checkpoint("stable-diffusion-v1-5/stable-diffusion-v1-5"),
            Checkpoint(str(TOYLAND_FOLDER), unet="owner/other"),
            Checkpoint(str(TOYLAND_FOLDER), adapters=(style, Adapter("/elsewhere/style.safetensors"))),
            Checkpoint(str(TOYLAND_FOLDER) + "-of-my-own"),
        ):
            assert not is_harmless(foreign)

    def test_nobody_where_nobody_asked(self, pipeline):
        assert pipeline.safety_checker is None

    @pytest.mark.parametrize(
        ("flags", "wanted"),
        [
            ([], False),
            (["--safety-checker"], True),
            (["--share"], True),
            (["--host", "0.0.0.0"], True),  # noqa: S104 - listening to everybody is what is meant
            (["--share", "--no-safety-checker"], False),
        ],
    )
    def test_whoever_shares_unless_told_otherwise(self, flags, wanted, monkeypatch):
        monkeypatch.delenv("SPACE_ID", raising=False)
        monkeypatch.delenv("GRADIO_SERVER_NAME", raising=False)
        assert wants_check(read_options(flags)) is wanted

    def test_the_command_line_asks_for_it(self, hub, tiny_checkpoint, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr("model_manager.Hub", lambda: Hub(hub.endpoint, tmp_path / "cache"))
        output = tmp_path / "video.gif"
        arguments = ["text-to-video", "--prompt", "a red fox", "--model", str(tiny_checkpoint), "--frames", "2"]
        arguments += ["--steps", "4", "--device", "cpu", "--output", str(output)]
        assert main([*arguments, "--safety-checker"]) == 0
        assert f"Downloading {SAFETY_CHECKER}" in capsys.readouterr().err
        output.unlink()
        hub.repositories.clear()
        monkeypatch.setattr("model_manager.Hub", lambda: Hub(hub.endpoint, tmp_path / "empty"))
        assert main([*arguments, "--safety-checker"]) == 2
        assert "No video is shown here before the safety checker has looked at it" in capsys.readouterr().err
        assert not output.exists()

from __future__ import annotations

import dataclasses
import secrets
import threading
from pathlib import Path

import imageio
import numpy as np
import pytest

import app
from model_manager import ModelManager
from serving.completion import complete
from serving.jobs import Guide, Stored
from serving.menu import ModelMenu, Offer
from serving.queue import JobQueue
from serving.runners.local import LocalRunner
from serving.store import FORMS, LAST_FRAME, JobStore
from tests.example_files import write_clip
from tests.fake_hub import FakeHub
from tests.served import run_of
from text2video_zero.errors import UserError
from text2video_zero.events import ControlMaps, Finished, Preview, Progress
from text2video_zero.job import Job
from text2video_zero.media.clips import probe, read_clip
from text2video_zero.media.settings import read_settings
from text2video_zero.models.catalogue import KNOWN_MODELS
from text2video_zero.models.checkpoints import Checkpoint, DetectorCheckpoint
from text2video_zero.models.hub import Hub
from text2video_zero.models.selection import checkpoint_for
from text2video_zero.requests import (
    DepthRequest,
    EdgeRequest,
    InstructPix2PixRequest,
    PoseRequest,
    Size,
    TextToVideoRequest,
)

SHORT = TextToVideoRequest(prompt="a fox", frames=2, steps=4, seed=3)


@pytest.fixture
def runner(manager):
    return LocalRunner(lambda: manager)


@pytest.fixture
def job(tiny_checkpoint):
    return Job(SHORT, Checkpoint(str(tiny_checkpoint)))


def kept(job, folder):
    """A folder for one more run of a job."""
    return JobStore(folder / "kept").add(dataclasses.replace(job, id=secrets.token_hex(16)))


def progress_stages(events):
    return [event.stage for event in events if isinstance(event, Progress)]


def waits(event):
    return isinstance(event, Progress) and event.stage.startswith("Waiting")


def test_a_run_tells_that_it_loads_then_how_far_it_is_then_brings_the_video(runner, job):
    events = list(runner.run(job))
    assert isinstance(events[-1], Finished)
    assert any(isinstance(event, Preview) for event in events)
    again = list(runner.run(job))
    assert not any(isinstance(event, Progress) and event.stage.startswith("Loading") for event in again)
    np.testing.assert_array_equal(again[-1].video.frames, events[-1].video.frames)


def test_the_model_manager_is_made_when_it_is_first_needed(manager):
    made = []
    runner = LocalRunner(lambda: made.append(1) or manager)
    assert not made
    runner.open()
    runner.open()
    assert made == [1]
    assert runner.describe_device() == manager.describe_device()


def test_two_runs_at_once_never_overlap(runner, job):
    steps = []
    began = threading.Event()

    def first():
        for event in runner.run(job):
            began.set()
            steps.append(("first", event))

    thread = threading.Thread(target=first)
    thread.start()
    assert began.wait(60)
    steps.extend(("second", event) for event in runner.run(job))
    thread.join()
    working = [who for who, event in steps if not waits(event)]
    assert working == sorted(working)
    assert working.count("first") == pytest.approx(working.count("second"), abs=1)  # one of them loads


def test_a_waiting_run_says_so_and_can_be_given_up(runner, job):
    running = runner.run(job)
    next(running)
    waiting = runner.run(job)
    assert waits(next(waiting))
    waiting.close()
    assert isinstance(list(running)[-1], Finished)


def test_closing_a_run_frees_the_device_and_leaves_no_trace(runner, job):
    fresh = list(runner.run(job))[-1].video.frames
    running = runner.run(dataclasses.replace(job, request=dataclasses.replace(SHORT, steps=200)))
    for event in running:
        if isinstance(event, Progress) and event.step:
            break
    running.close()
    events = list(runner.run(job))
    assert not any(waits(event) for event in events)
    np.testing.assert_array_equal(events[-1].video.frames, fresh)


class TestGuide:
    """What plays beside a video: the control maps, or the clip that an instruction changes."""

    @pytest.fixture
    def job(self, tiny_checkpoint, tiny_controlnets, tmp_path):
        checkpoint = Checkpoint(str(tiny_checkpoint), controlnet=str(tiny_controlnets["edge"]))
        clip = write_clip(tmp_path, "gif")
        return Job(EdgeRequest(prompt="a fox", clip=str(clip), frames=4, steps=4, seed=3), checkpoint)

    def test_maps_alone_end_before_anything_is_sampled(self, runner, job, tmp_path):
        events = list(complete(dataclasses.replace(job, maps_only=True), runner, kept(job, tmp_path)))
        assert isinstance(events[-1], Guide)
        assert not any(isinstance(event, Preview | Stored) for event in events)
        assert events[-1].path.name.startswith("edge-")
        assert events[-1].path.name.endswith("-control-map.mp4")

    @pytest.mark.parametrize(
        ("request_type", "ready_made"), [(EdgeRequest, "no"), (PoseRequest, "yes"), (DepthRequest, "yes")]
    )
    def test_maps_alone_need_no_model(self, tmp_path, request_type, ready_made):
        """Nothing of Stable Diffusion 1.5 is here, and nothing can be brought."""
        models = ModelManager("cpu", hub=Hub("http://127.0.0.1:9", tmp_path / "empty"))
        runner, clip = LocalRunner(lambda: models), write_clip(tmp_path, "gif")
        request = request_type(prompt="a fox", clip=str(clip), frames=4, steps=4, seed=3, ready_made=ready_made)
        job = Job(request, checkpoint_for(request.task, "sd-1.5"))
        with pytest.raises(UserError, match="is not on this machine"):
            list(runner.run(job))
        maps = list(runner.run(dataclasses.replace(job, maps_only=True)))[-1]
        assert isinstance(maps, ControlMaps)
        assert maps.frames.shape == (4, 416, 624, 3)  # about the area that the model was trained at
        assert not models.is_loaded(job.checkpoint)

    def test_a_run_after_them_does_not_look_again(self, runner, job, tmp_path, monkeypatch):
        alone = list(complete(dataclasses.replace(job, maps_only=True), runner, kept(job, tmp_path)))[-1]
        monkeypatch.setattr("text2video_zero.control.control_maps.CannyMapper.seen", None)
        events = list(complete(job, runner, kept(job, tmp_path)))
        guide = next(event for event in events if isinstance(event, Guide))
        stored = next(event for event in events if isinstance(event, Stored))
        assert events.index(guide) < events.index(stored)
        assert guide.path != alone.path
        assert guide.path.read_bytes() == alone.path.read_bytes()
        shown, made = (probe(path) for path in (guide.path, stored.files[".mp4"]))
        assert (shown.frames, shown.fps, shown.size) == (made.frames, made.fps, made.size)

    def test_maps_can_be_given_up_and_leave_nothing(self, runner, job, tmp_path):
        folder = kept(job, tmp_path)
        running = complete(dataclasses.replace(job, maps_only=True), runner, folder)
        next(running)
        running.close()
        assert not list(folder.path.glob("*.mp4"))
        assert isinstance(list(runner.run(job))[-1], Finished)

    def test_an_instruction_s_clip_is_kept_as_it_was_read(self, runner, tiny_editor, tmp_path):
        clip = write_clip(tmp_path, "mp4")
        request = InstructPix2PixRequest(prompt="snow", clip=str(clip), frames=3, first_frame=2, steps=4, seed=3)
        job = Job(request, Checkpoint(str(tiny_editor), kind="instruct-pix2pix"))
        events = list(complete(job, runner, kept(job, tmp_path), (".mp4",)))
        guide = next(event for event in events if isinstance(event, Guide))
        shown = np.asarray(
            read_clip(guide.path, first_frame=0, frames=9, fps=8, size=Size(80, 64), native=Size(64, 64)).frames
        )
        read = np.asarray(
            read_clip(clip, first_frame=2, frames=3, fps=8, size=Size(80, 64), native=Size(64, 64)).frames
        )
        assert shown.shape == read.shape
        assert np.abs(shown.astype(int) - read).mean() < 5


class TestDownload:
    """A model that is not here yet: from the Hub to the video, in one run."""

    @pytest.fixture
    def fake_hub(self, tiny_checkpoint, tiny_controlnets, tiny_detectors):
        folders = {"owner/tiny": tiny_checkpoint, "owner/depth-control": tiny_controlnets["depth"]}
        folders["owner/depth"] = Path(tiny_detectors["depth"].source)
        with FakeHub(folders).running() as running:
            yield running

    @pytest.fixture
    def models(self, fake_hub, tmp_path, monkeypatch):
        monkeypatch.setattr("text2video_zero.models.hub.client.TELL_SECONDS", 0)
        return ModelManager("cpu", hub=Hub(fake_hub.endpoint, tmp_path / "cache"))

    def test_is_told_in_bytes_before_the_model_is_loaded(self, models):
        runner, job = LocalRunner(lambda: models), Job(SHORT, Checkpoint("owner/tiny"))
        told = list(dict.fromkeys(progress_stages(runner.run(job))))
        assert told[:2] == ["Downloading owner/tiny", "Loading owner/tiny"]
        assert not any(stage.startswith(("Downloading", "Loading")) for stage in progress_stages(runner.run(job)))

    def test_control_and_detector_are_told_too(self, models, monkeypatch, tmp_path):
        monkeypatch.setattr("model_manager.find_detector", lambda _: DetectorCheckpoint("owner/depth", "depth"))
        clip = tmp_path / "clip.gif"
        imageio.mimwrite(clip, np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8))
        request = DepthRequest(prompt="a fox", clip=str(clip), frames=2, steps=4, seed=3, ready_made="detect")
        job = Job(request, Checkpoint("owner/tiny", controlnet="owner/depth-control"))
        told = [
            stage
            for stage in dict.fromkeys(progress_stages(LocalRunner(lambda: models).run(job)))
            if stage.startswith("Downloading")
        ]
        assert told == [f"Downloading owner/{name}" for name in ("tiny", "depth-control", "depth")]

    def test_stops_when_the_run_is_closed_and_goes_on_in_the_next(self, models, fake_hub):
        runner, job = LocalRunner(lambda: models), Job(SHORT, Checkpoint("owner/tiny"))
        running = runner.run(job)
        assert next(running).stage == "Downloading owner/tiny"
        running.close()
        assert not models.is_loaded(job.checkpoint)
        brought = len(fake_hub.served)
        assert 0 < brought < 5
        assert isinstance(list(runner.run(job))[-1], Finished)
        assert len(set(fake_hub.served)) == len(fake_hub.served)

    def test_a_refusal_frees_the_device(self, models, job):
        runner = LocalRunner(lambda: models)
        with pytest.raises(UserError, match="'owner/unknown' is not on the Hub"):
            list(runner.run(Job(SHORT, Checkpoint("owner/unknown"))))
        assert isinstance(list(runner.run(job))[-1], Finished)


def test_a_model_that_cannot_be_loaded_frees_the_device(runner, job, tmp_path):
    with pytest.raises(UserError, match="missing"):
        list(runner.run(Job(SHORT, Checkpoint(str(tmp_path / "missing.safetensors")))))
    assert isinstance(list(runner.run(job))[-1], Finished)


def test_the_device_is_free_again_before_the_files_are_written(runner, job, tmp_path):
    events = complete(job, runner, kept(job, tmp_path))
    assert any(isinstance(event, Progress) and event.stage == "Saving" for event in events)
    assert not waits(next(runner.run(job)))


def test_a_finished_job_is_kept_in_every_form_with_its_settings(runner, job, tmp_path):
    stored = [event for event in complete(job, runner, kept(job, tmp_path)) if isinstance(event, Stored)]
    assert [len(event.files) for event in stored] == [1, 2, 3, 4, 5]
    assert list(stored[0].files) == [".mp4"]
    assert imageio.v3.imread(stored[-1].files[LAST_FRAME]).shape == (64, 64, 3)
    for form in FORMS.keys() - {LAST_FRAME}:
        settings = read_settings(stored[-1].files[form])
        assert settings == stored[-1].settings
        assert TextToVideoRequest.from_dict(settings["request"]) == dataclasses.replace(SHORT, size="64x64")


def test_strangers_choose_from_the_list_alone(tiny_checkpoint):
    menu = ModelMenu("toyland", free=False)
    menu.check(" toyland ")
    for name in (str(tiny_checkpoint), "someone/some-model", "../models"):
        with pytest.raises(UserError, match="not offered here: choose one of toyland"):
            menu.check(name)
        assert menu.vocabulary(name) is None
    with pytest.raises(UserError, match="not offered here"):
        ModelMenu("someone/some-model", free=False)


class TestOffer:
    """What strangers may have of the known models: what is here, and what the owner names."""

    @pytest.fixture
    def hub(self, tmp_path):
        return Hub("http://127.0.0.1:9", tmp_path / "empty")

    def test_models_that_are_not_here_are_offered_by_the_owner_alone(self, hub):
        menu = ModelMenu("toyland", free=False, offer=Offer(frozenset(), hub))
        assert menu.names() == ["toyland"]
        assert {*menu.of_task("dreambooth").names()} == {"toyland", "toyland-sunset", "toyland-sketch"}
        with pytest.raises(UserError, match=r"'sd-1\.5' is not offered here: choose one of toyland"):
            menu.check("sd-1.5")
        named = ModelMenu("sd-1.5", free=False, offer=Offer(frozenset({"sd-1.5"}), hub))
        assert named.names() == ["toyland", "sd-1.5"]
        assert named.of_task("pose").default == "sd-1.5"
        with pytest.raises(UserError, match="'someone/some-model' is not offered here"):
            Offer(frozenset({"someone/some-model"}), hub)

    def test_what_was_downloaded_is_offered_and_brings_no_further_download(
        self, tiny_checkpoint, tiny_controlnets, tmp_path
    ):
        source = KNOWN_MODELS["sd-1.5"].checkpoint.source
        with FakeHub({source: tiny_checkpoint, "owner/control": tiny_controlnets["pose"]}).running() as running:
            hub = Hub(running.endpoint, tmp_path / "cache")
            hub.folder(source, KNOWN_MODELS["sd-1.5"].checkpoint.revision)
            offer = Offer(frozenset(), hub)
            menu = ModelMenu("toyland", free=False, offer=offer)
            assert menu.names() == ["toyland", "sd-1.5"]
            menu.check_parts("sd-1.5", checkpoint_for("text-to-video", "sd-1.5"))
            shaped = checkpoint_for("pose", "sd-1.5", controlnet="owner/control")
            with pytest.raises(
                UserError, match=r"owner/control, which this takes, is not on this server.*--offer sd-1\.5"
            ):
                menu.check_parts("sd-1.5", shaped)
            with pytest.raises(UserError, match="which this takes, is not on this server"):
                menu.check_parts("sd-1.5", checkpoint_for("instruct-pix2pix", "sd-1.5"))
            Offer(frozenset({"sd-1.5"}), hub).check("sd-1.5", shaped)
            hub.folder("owner/control")
            menu.check_parts("sd-1.5", shaped)

    def test_on_the_page_such_a_job_does_not_begin(self, tiny_checkpoint, tmp_path):
        source = KNOWN_MODELS["sd-1.5"].checkpoint.source
        with FakeHub({source: tiny_checkpoint}).running() as running:
            hub = Hub(running.endpoint, tmp_path / "cache")
            hub.folder(source, KNOWN_MODELS["sd-1.5"].checkpoint.revision)
            menu = ModelMenu("toyland", free=False, offer=Offer(frozenset(), hub))
            queue = JobQueue(LocalRunner(lambda: pytest.fail("no model is wanted")), JobStore(tmp_path / "jobs"))
            page = app.build_app(queue, menu, shared=True)
            run = run_of(page, "text-to-video")
            form = {name: widget.value for name, widget in run.controls.inputs_of_page.items() if name != "model"}
            run.job("sd-1.5", form | {"prompt": "a fox", "speed": "full quality"})
            with pytest.raises(UserError, match="which this takes, is not on this server"):
                run.job("sd-1.5", form | {"prompt": "a fox", "speed": "LCM"})


def test_strangers_add_no_loras_of_their_own():
    ModelMenu("toyland", free=False).check("toyland", [" "])
    with pytest.raises(UserError, match="LoRAs of your own are not offered here: leave the field empty"):
        ModelMenu("toyland", free=False).check("toyland", ["owner/style"])
    ModelMenu("toyland", free=True).check("toyland", ["owner/style"])


def test_a_free_menu_lists_what_lies_in_models(monkeypatch):
    monkeypatch.setattr("serving.menu.local_models", lambda: {"mine": Checkpoint("models/mine")})
    assert ModelMenu("toyland", free=True).names()[-1] == "mine"
    assert "mine" not in ModelMenu("toyland", free=False).names()


@pytest.mark.parametrize("name", ["", "  ", None])
def test_a_blank_model_is_refused_in_one_sentence(name):
    with pytest.raises(UserError, match="Model is empty: choose one of toyland"):
        ModelMenu("toyland", free=True).check(name)


def test_a_free_menu_takes_a_folder_and_lists_it_when_it_is_the_default(tiny_checkpoint):
    menu = ModelMenu(str(tiny_checkpoint), free=True)
    assert menu.names()[0] == str(tiny_checkpoint)
    menu.check(str(tiny_checkpoint))

"""Speeds: the table, where they are offered, what choosing one sets, and LoRAs out of repositories with many."""

from __future__ import annotations

import json

import gradio as gr
import pytest

import app
from model_manager import ModelManager
from serving.menu import ModelMenu
from serving.queue import JobQueue
from serving.runners.local import LocalRunner
from serving.store import JobStore
from tests.fake_hub import FakeHub
from tests.runs import sampled
from tests.served import run_of
from tests.tiny_models import write_lora
from text2video_zero.__main__ import build_parser, job_of, main
from text2video_zero.errors import UserError
from text2video_zero.job import build_job, defaults_of, preset_values
from text2video_zero.models import speeds
from text2video_zero.models.catalogue import KNOWN_MODELS
from text2video_zero.models.checkpoints import Adapter, Checkpoint
from text2video_zero.models.hub import Hub
from text2video_zero.models.selection import TASKS
from text2video_zero.models.speeds import (
    FULL_QUALITY,
    SPEED_FIELDS,
    SPEEDS,
    TOYLAND_STUDENT,
    speed_adapters,
    speeds_of,
)
from text2video_zero.requests import EdgeRequest, FewStepRequest, InstructPix2PixRequest, Size, TextToVideoRequest
from text2video_zero.requests.presets import PAPER
from text2video_zero.requests.video import FEW_STEP_SPEEDS
from text2video_zero.sampling.motion.plan import MotionPlan

LCM_LORA = Adapter("latent-consistency/lcm-lora-sdv1-5")
HYPER_XL = Adapter("ByteDance/Hyper-SD/Hyper-SDXL-8steps-CFG-lora.safetensors")


def test_each_speed_that_a_request_offers_has_its_loras():
    assert set(FEW_STEP_SPEEDS) == set(SPEEDS)


@pytest.mark.parametrize("name", SPEEDS)
def test_what_a_speed_sets_is_a_request_whose_motion_lies_on_its_own_timesteps(name, pipeline):
    values = dict(SPEEDS[name].values)
    request = TextToVideoRequest(prompt="a fox", speed=name, **values)
    scheduler = pipeline.components.scheduler
    plan = MotionPlan.of(request.sampler, request.steps, scheduler, request.motion_from, request.motion_to)
    assert plan.opening.timesteps[plan.at_from] == request.motion_from
    assert plan.opening.timesteps[plan.at_to] == plan.joint.timesteps[plan.begin] == request.motion_to
    assert len(plan.joint.timesteps) - plan.begin <= request.steps <= 8
    EdgeRequest(prompt="a fox", clip="a.mp4", speed=name, **{k: v for k, v in values.items() if "motion" not in k})


@pytest.mark.parametrize(
    ("name", "model"), [(name, model) for model in KNOWN_MODELS for name in speeds_of(KNOWN_MODELS[model].family)]
)
def test_with_a_speed_frames_are_moved_where_the_model_s_own_settings_have_it(name, model):
    """As near as the timesteps of so few steps lie: who drafts a video is to see what it will be."""
    own, few = (defaults_of("text-to-video", model, speed) for speed in (FULL_QUALITY, name))
    assert few["motion_from"] == pytest.approx(own["motion_from"], abs=10)
    assert few["motion_to"] == pytest.approx(own["motion_to"], abs=60)


def test_speeds_are_for_families_that_have_a_lora():
    assert speeds_of("sd2") == (FULL_QUALITY,)
    assert speeds_of("sd1") == speeds_of("sdxl") == (FULL_QUALITY, "LCM", "Hyper-SD")
    assert speed_adapters("LCM", "sd-1.5") == speed_adapters("LCM", "arcane-style") == (LCM_LORA,)
    assert speed_adapters("Hyper-SD", "sdxl") == (HYPER_XL,)
    assert speed_adapters(FULL_QUALITY, "toyland") == ()
    with pytest.raises(UserError, match=r"For 'toyland' \(Toyland\) there is no LoRA of the speed LCM: choose 'full"):
        speed_adapters("LCM", "toyland")
    assert not issubclass(InstructPix2PixRequest, FewStepRequest)


def test_the_embedded_model_has_a_speed_of_its_own():
    assert TOYLAND_STUDENT.is_file()
    assert speeds_of("toyland") == (FULL_QUALITY, "4 steps")
    assert build_job("text-to-video", {"prompt": "a fox"}, model="toyland").request.speed == FULL_QUALITY
    quick = build_job("text-to-video", {"prompt": "a fox", "speed": "4 steps"}, model="toyland")
    assert (quick.request.steps, quick.request.guidance_scale, quick.request.sampler) == (4, 1.0, "LCM")
    assert [adapter.source for adapter in quick.checkpoint.adapters] == [str(TOYLAND_STUDENT)]


class TestCommandLine:
    def order(self, *argv):
        arguments = build_parser().parse_args(["text-to-video", "--prompt", "a fox", *argv])
        job = job_of(arguments)
        return job.request, job.checkpoint

    def test_a_speed_sets_what_goes_with_it_and_gives_way_to_what_is_given(self):
        request, checkpoint = self.order("--model", "sd-1.5", "--speed", "LCM")
        assert {name: getattr(request, name) for name in SPEED_FIELDS} == dict(SPEEDS["LCM"].values)
        assert checkpoint == Checkpoint("stable-diffusion-v1-5/stable-diffusion-v1-5", adapters=(LCM_LORA,))
        request, _ = self.order("--model", "sd-1.5", "--speed", "LCM", "--steps", "4")
        assert (request.steps, request.guidance_scale) == (4, 1.0)

    def test_settings_of_a_fast_video_make_it_again_and_another_speed_replaces_them(self, tmp_path):
        fast, _ = self.order("--model", "sd-1.5", "--speed", "LCM", "--steps", "4")
        path = tmp_path / "settings.json"
        path.write_text(json.dumps(fast.to_dict()))
        assert self.order("--model", "sd-1.5", "--settings", str(path))[0].to_dict() == fast.to_dict()
        request, checkpoint = self.order("--model", "sd-1.5", "--settings", str(path), "--speed", FULL_QUALITY)
        assert (request.sampler, request.steps, request.motion_to) == ("DDIM", 50, 941)
        assert not checkpoint.adapters
        path.write_text(json.dumps({"speed": "Hyper-SD"}))
        assert self.order("--model", "sdxl", "--settings", str(path))[0].sampler == "DDIM trailing"

    def test_mistakes_are_told_in_one_line(self, capsys):
        for argv, sentence in (
            (["--speed", "LCM"], "For 'toyland' (Toyland) there is no LoRA"),
            (["--speed", "warp"], "--speed is 'warp': choose one of full quality, LCM, Hyper-SD, 4 steps."),
        ):
            assert main(["text-to-video", "--prompt", "a fox", "--device", "cpu", *argv]) == 2
            told = capsys.readouterr().err
            assert sentence in told
            assert "Traceback" not in told


class TestMenu:
    def test_speeds_and_what_they_set(self):
        menu = ModelMenu("toyland", free=True)
        assert menu.speeds("toyland") == speeds_of("toyland")
        assert menu.speeds("") == (FULL_QUALITY,)
        assert "LCM" in menu.speeds("sd-1.5")
        assert "LCM" in menu.speeds("owner/model-of-ones-own")
        assert ModelMenu("toyland", free=False).speeds("owner/model-of-ones-own") == (FULL_QUALITY,)
        for task in ("text-to-video", "edge"):
            assert defaults_of(task, "toyland")["steps"] != 8
            assert defaults_of(task, "sd-1.5", "Hyper-SD")["steps"] == 8

    @pytest.mark.parametrize("model", ["toyland", "sd-1.5"])
    @pytest.mark.parametrize("own", [True, False])
    def test_the_page_shows_the_choice_with_models_that_have_one(self, model, own, monkeypatch, tmp_path):
        monkeypatch.setattr(speeds, "can_be_had", lambda source: own or source != str(TOYLAND_STUDENT))
        queue = JobQueue(LocalRunner(lambda: pytest.fail("no model is wanted")), JobStore(tmp_path))
        page = app.build_app(queue, ModelMenu(model, free=True))
        handlers = page.fns.values()
        for task in TASKS:
            controls = run_of(page, task).controls
            speed = controls.fields.get("speed")
            assert (speed is None) is (task == "instruct-pix2pix")
            if speed is None:
                continue
            assert speed.visible is (own or model == "sd-1.5")

            def handler(name, *inputs):
                """What answers to these widgets, in `ModelChoice`."""
                return next(
                    one.fn for one in handlers if one.inputs == list(inputs) and one.fn.__qualname__.endswith(name)
                )

            def filled(answer, refill=controls.states.refill):
                return answer[refill]["values"]

            set_by_speed = filled(handler("<lambda>", controls.model, speed)("sd-1.5", "LCM"))
            assert (set_by_speed["steps"], set_by_speed["sampler"]) == (8, "LCM")
            fill_for_model = handler("fill_for_model", controls.model, controls.settings.radio, speed)
            back = filled(fill_for_model("toyland", None, "LCM"))
            assert (back["speed"], back["sampler"]) == (FULL_QUALITY, "DDIM")
            assert filled(fill_for_model("sd-1.5", None, "LCM"))["speed"] == "LCM"
            same_preset = filled(fill_for_model("sd-1.5", PAPER, "LCM"))
            assert same_preset["steps"] == preset_values(task, "sd-1.5", PAPER)["steps"]
            describe = handler("describe", controls.model)
            for name in ("toyland", "sd-1.5"):
                assert describe(name)[speed] == gr.update(visible=own or name == "sd-1.5")


class TestLoading:
    @pytest.fixture
    def loras(self, tiny_checkpoint, tmp_path):
        """A folder with several LoRAs, as Hyper-SD's repository is one."""
        for seed, name in enumerate(("one", "two")):
            write_lora(tmp_path / "loras" / f"{name}.safetensors", tiny_checkpoint, seed=seed)
        return tmp_path / "loras"

    def test_the_named_file_is_taken_out_of_many_and_runs_in_few_steps(self, tiny_checkpoint, loras):
        manager = ModelManager("cpu")
        values = {name: value for name, value in SPEEDS["LCM"].values.items() if name != "steps"}
        request = TextToVideoRequest(prompt="a fox", frames=2, steps=4, seed=3, size=Size(64, 64), **values)
        adapter = Adapter(str(loras / "two.safetensors"), 0.1)
        with manager.lend(Checkpoint(str(tiny_checkpoint), adapters=(adapter,))) as pipeline:
            assert sampled(request, pipeline).isfinite().all()
        missing = Adapter(str(loras / "three.safetensors"))
        with pytest.raises(UserError, match=r"The model '.*three.safetensors' does not exist"):
            manager.lend(Checkpoint(str(tiny_checkpoint), adapters=(missing,))).__enter__()
        with pytest.raises(UserError, match=r"holds 2 .safetensors files"):
            manager.lend(Checkpoint(str(tiny_checkpoint), adapters=(Adapter(str(loras)),))).__enter__()

    def test_of_a_repository_only_the_named_file_is_downloaded(self, tiny_checkpoint, loras, tmp_path):
        with FakeHub({"owner/loras": loras}).running() as hub:
            manager = ModelManager("cpu", hub=Hub(hub.endpoint, tmp_path / "cache"))
            for name in ("two", "one"):
                adapter = Adapter(f"owner/loras/{name}.safetensors")
                checkpoint = Checkpoint(str(tiny_checkpoint), adapters=(adapter,))
                list(manager.fetch(checkpoint))
                assert hub.served[-1].endswith(f"{name}.safetensors")
                assert len([path for path in hub.served if path.endswith(".safetensors")]) == (
                    1 if name == "two" else 2
                )
                with manager.lend(checkpoint) as pipeline:
                    assert pipeline.checkpoint.adapters == (adapter,)

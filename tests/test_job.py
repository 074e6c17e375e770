"""Page, API and command line make the same job of the same values."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import app
from serving.menu import ModelMenu
from serving.queue import JobQueue
from serving.runners.local import LocalRunner
from serving.store import JobStore
from tests.served import run_of
from text2video_zero.__main__ import build_parser, job_of
from text2video_zero.job import Job, Settings, build_job, defaults_of
from text2video_zero.models.catalogue import STABLE_DIFFUSION_1_5, TOYLAND
from text2video_zero.models.checkpoints import Adapter
from text2video_zero.models.speeds import SPEED_FIELDS, SPEEDS
from text2video_zero.requests import REQUESTS

GIVEN = {"prompt": "a tree", "seed": 3}


def asked(task: str, **more) -> dict:
    clip = {"clip": "a.mp4"} if "clip" in REQUESTS[task].__dataclass_fields__ else {}
    return GIVEN | clip | more


@pytest.fixture(scope="module", params=["toyland", "sd-1.5"])
def page(request, tmp_path_factory):
    store = JobStore(tmp_path_factory.mktemp("outputs"))
    runner = LocalRunner(lambda: pytest.fail("no model is wanted"))
    return app.build_app(JobQueue(runner, store), ModelMenu(request.param, free=True))


def by_page(page, task: str, model: str, **given) -> Job:
    """The job of a form that nobody has touched but for these values."""
    run = run_of(page, task)
    values = {name: widget.value for name, widget in run.controls.inputs_of_page.items()}
    return run.job(model, without_model(values | given))


def without_model(values: dict) -> dict:
    return {name: value for name, value in values.items() if name != "model"}


def by_program(page, task: str, model: str, **given) -> Job:
    """The job of a program that names these alone; Gradio's client fills in the rest, as the endpoint tells it."""
    parameters = page.get_api_info()["named_endpoints"][f"/{task}"]["parameters"]
    values = {one["parameter_name"]: one["parameter_default"] for one in parameters if one["parameter_has_default"]}
    return run_of(page, task).job(model, without_model(values | given))


def by_command_line(task: str, model: str, **given) -> Job:
    options = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return job_of(build_parser().parse_args([task, "--model", model, *options]))


def same(job: Job, other: Job) -> bool:
    return replace(job, id="") == replace(other, id="")


@pytest.mark.parametrize("task", REQUESTS)
def test_page_program_and_command_line_make_the_same_job(page, task):
    menu = run_of(page, task).services.menu
    model, preset = menu.default, menu.first_preset(menu.default)  # which is marked on the page
    for given in (asked(task), asked(task, frames=5, fps=12, steps=7, chunk_size=2, size="96x64")):
        assert same(by_page(page, task, model, **given), by_command_line(task, model, preset=preset, **given))
        assert same(by_program(page, task, model, **given), by_command_line(task, model, **given))


@pytest.mark.parametrize("task", REQUESTS)
@pytest.mark.parametrize("model", ["toyland", "sd-1.5"])
def test_a_program_that_names_another_model_gets_its_defaults(page, task, model):
    job = by_program(page, task, model, **asked(task))
    assert same(job, by_command_line(task, model, **asked(task)))
    assert job.request.steps == defaults_of(task, model)["steps"]


@pytest.mark.parametrize("speed", [name for name, speed in SPEEDS.items() if "sd1" in speed.adapters])
def test_a_program_that_names_a_speed_gets_what_goes_with_it(page, speed):
    job = by_program(page, "text-to-video", "sd-1.5", **asked("text-to-video", speed=speed))
    assert same(job, by_command_line("text-to-video", "sd-1.5", **asked("text-to-video", speed=speed)))
    assert {name: getattr(job.request, name) for name in SPEED_FIELDS} == dict(SPEEDS[speed].values)
    given = by_program(page, "text-to-video", "sd-1.5", **asked("text-to-video", speed=speed, steps=5))
    assert given.request == replace(job.request, steps=5)


def test_loras_and_a_typed_path_are_the_page_s_ways_to_say_what_options_say(page):
    menu = run_of(page, "edge").services.menu
    model, preset = menu.default, menu.first_preset(menu.default)
    job = by_page(page, "edge", model, **GIVEN, clip_path="b.mp4", loras="owner/one:0.5\n\nowner/two@v2\n")
    options = ["--clip", "b.mp4", "--preset", preset, "--lora", "owner/one:0.5", "--lora", "owner/two@v2"]
    arguments = build_parser().parse_args(["edge", "--model", model, "--prompt", "a tree", "--seed", "3", *options])
    assert same(job, job_of(arguments))
    assert {Adapter("owner/one", 0.5), Adapter("owner/two", 1, "v2")} <= set(job.checkpoint.adapters)


class TestPrecedence:
    """Given before settings before speed before the model's defaults before declared ones."""

    def steps(self, model: str, settings: dict, **given) -> int:
        job = build_job("text-to-video", GIVEN | given, model=model, settings=Settings(settings))
        return job.request.steps

    def test_each_gives_way_to_the_one_before_it(self):
        assert self.steps("sd-1.5", {}) == 50
        assert self.steps("toyland", {}) == TOYLAND.defaults["steps"] == 25
        assert self.steps("sd-1.5", {"speed": "LCM"}) == 8
        assert self.steps("sd-1.5", {"speed": "LCM", "steps": 6}) == 6
        assert self.steps("sd-1.5", {"steps": 6}, steps=5) == 5

    def test_a_speed_that_is_given_goes_before_what_settings_say_of_its_fields(self):
        assert self.steps("sd-1.5", {"steps": 30}, speed="Hyper-SD") == 8
        assert self.steps("sd-1.5", {"speed": "LCM", "steps": 4}, speed="full quality") == 50

    def test_the_model_and_the_loras_are_those_of_the_settings_unless_others_are_given(self, tmp_path):
        path = tmp_path / "settings.json"
        path.write_text(json.dumps({"model": "sd-1.5", "loras": ["owner/one:0.5"], "request": {"steps": 9}}))
        settings = Settings.read(path, "text-to-video")
        job = build_job("text-to-video", GIVEN, settings=settings)
        assert job.checkpoint == replace(STABLE_DIFFUSION_1_5.checkpoint, adapters=(Adapter("owner/one", 0.5),))
        assert job.request.steps == 9
        other = build_job("text-to-video", GIVEN, model="toyland", loras=["owner/two"], settings=settings)
        assert other.checkpoint == replace(TOYLAND.checkpoint, adapters=(Adapter("owner/two"),))
        assert build_job("text-to-video", GIVEN).checkpoint == TOYLAND.checkpoint

    def test_a_job_has_a_seed_and_an_id_that_cannot_be_guessed(self):
        jobs = [build_job("text-to-video", {"prompt": "a fox"}) for _ in range(3)]
        assert all(job.request.seed >= 0 and len(job.id) >= 16 for job in jobs)
        assert len({job.id for job in jobs}) == 3


def test_control_maps_alone_need_no_prompt():
    job = build_job("edge", {"clip": "a.mp4", "prompt": ""}, maps_only=True)
    assert job.maps_only
    assert job.request.prompt

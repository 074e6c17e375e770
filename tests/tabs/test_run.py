"""What the page makes of a form before anything runs: jobs, a plan, questions, and what an earlier video filled in."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

import app
from serving.estimates import Pace, evaluations
from serving.jobs import Done, Failed, Running, Standing, Stored
from serving.menu import ModelMenu
from serving.queue import JobQueue
from serving.runners.local import LocalRunner
from serving.store import FORMS, JobStore
from serving.visitors.limits import Limits
from tabs.after import CHANGES, AfterRun
from tabs.parts.model_choice import unknown_words_note
from tabs.run import PLANNED, at_the_field
from tabs.tasks import TABS
from tests.served import run_of
from text2video_zero.errors import UserError
from text2video_zero.events import Progress
from text2video_zero.job import build_job, changed_job, first_preset, preset_values
from text2video_zero.media.video import Video
from text2video_zero.models.catalogue import DREAMBOOTH_STYLES
from text2video_zero.requests import REQUESTS, TextToVideoRequest
from text2video_zero.requests.fields import SEED_LIMIT
from text2video_zero.requests.presets import BALANCED, DRAFT, PRESETS
from text2video_zero.requests.video import MOST_FRAMES

LOADER = "connect_loader.<locals>.fill"


class Processor(LocalRunner):
    """This machine's runner as it is once the device is known; nothing is computed with it."""

    kind = "cpu"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    runner = Processor(lambda: pytest.fail("no model is wanted"))
    queue = JobQueue(runner, JobStore(tmp_path_factory.mktemp("outputs")))
    return app.build_app(queue, ModelMenu("toyland", free=True))


def form(run, **given):
    """The values of a form that nobody has touched but for these; the model is chosen apart."""
    widgets = run.controls.inputs_of_page
    return {name: widget.value for name, widget in widgets.items() if name != "model"} | given


def several(run, more_prompts="", each=1, **given):
    """The same with what makes several videos of one click."""
    return form(run, **given) | {"more_prompts": more_prompts, "each": each}


@pytest.fixture
def run(page):
    return run_of(page, "text-to-video")


def test_seeds_that_count_on_begin_again_after_the_last(run):
    jobs = run.batch("toyland", several(run, prompt="a fox", each=2, seed=SEED_LIMIT - 1), room=9)
    assert [job.request.seed for job in jobs] == [SEED_LIMIT - 1, 0]


def test_prompts_and_seeds_make_a_job_each_and_seeds_that_are_given_count_on(run):
    jobs = run.batch("toyland", several(run, prompt="a fox", more_prompts="a cat\n\n a panda ", each=2, seed=5), room=9)
    assert [(job.request.prompt, job.request.seed) for job in jobs] == [
        (prompt, seed) for prompt in ("a fox", "a cat", "a panda") for seed in (5, 6)
    ]
    drawn = run.batch("toyland", several(run, prompt="a fox", each=3), room=9)
    assert len({job.request.seed for job in drawn}) == 3
    assert len({job.id for job in drawn}) == 3


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"each": 5}, "These are 10 videos, and the queue takes 9 now: ask for fewer."),
        ({"each": 10**9}, "Videos of each is 1000000000: give a whole number from 1 to 16."),
        ({"each": None}, "Videos of each is None: give a whole number from 1 to 16."),
    ],
)
def test_more_than_the_queue_takes_is_refused_before_any_of_it_is_begun(run, given, sentence):
    with pytest.raises(UserError, match=sentence):
        run.batch("toyland", several(run, prompt="a fox", more_prompts="a cat", **given), room=9)


def test_control_maps_are_one_job_however_many_prompts_and_seeds_stand_there(page):
    run = replace(run_of(page, "edge"), maps_only=True)
    (job,) = run.batch("toyland", several(run, clip="a.mp4", more_prompts="a cat\n" * 20, each=2), room=9)
    assert job.maps_only


class Overtaken(Pace):
    """While the first job is judged, another window of the same visitor takes all places in the queue but one."""

    def __init__(self):
        super().__init__()
        self.queues = []

    def estimate(self, job, kind):
        if self.queues:
            queue = self.queues.pop()
            while queue.room("") > 1:
                queue.submit(build_job("text-to-video", {"prompt": "a horse"}))
        return super().estimate(job, kind)


def test_of_several_those_that_the_queue_takes_are_followed_and_the_others_are_told(tmp_path, monkeypatch):
    warned, pace = [], Overtaken()
    monkeypatch.setattr(gr, "Warning", lambda told, duration: warned.append((told, duration)))
    runner = Processor(lambda: pytest.fail("no model is wanted"))
    queue = JobQueue(runner, JobStore(tmp_path), pace, limits=Limits(waiting=3))
    run = run_of(app.build_app(queue, ModelMenu("toyland", free=True)), "text-to-video")
    pace.queues.append(queue)
    (begun,) = run.start("toyland", "", [], **several(run, prompt="a fox", more_prompts="a cat", frames=2))
    (fox,) = [entry for entry in queue.of("") if entry.job.request.prompt == "a fox"]
    assert begun[run.controls.states.followed]["jobs"] == [fox.job.id]
    ((told, duration),) = warned
    assert told.startswith("The queue took 1 of these 2 videos. The queue takes no more")
    assert duration is None
    assert not any(entry.job.request.prompt == "a cat" for entry in queue.of(""))


def test_the_plan_says_how_long_the_video_is_and_how_long_it_takes(run):
    told = run.plan("toyland", **form(run, frames=16, fps=8, size="128x128"))
    assert "2.0 s of video: 16 frames of 128x128, about" in told
    assert run.plan("toyland", **form(run, frames=None)) == ""


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("a red fox", "The prompt has 3 of 46 tokens."),
        ("a red fox, " * 40, "The prompt has 160 of 184 tokens, read in 4 parts."),
        ("", None),
        (None, None),
    ],
)
def test_the_plan_says_how_long_the_prompt_is_once_somebody_can_tell(run, monkeypatch, prompt, told):
    assert told is None or told in run.plan("toyland", **form(run, prompt=prompt))
    assert ("tokens" in run.plan("toyland", **form(run, prompt=prompt))) is bool(told)
    for elsewhere in ("owner/not-here", "owner/name/file.safetensors", "/no/such/folder"):
        assert "tokens" not in run.plan(elsewhere, **form(run, prompt=prompt))
    monkeypatch.setattr(Processor, "kind", "")  # while models are being imported
    assert "tokens" not in run.plan("toyland", **form(run, prompt=prompt))


def test_a_run_that_takes_very_long_is_begun_after_a_second_click_alone(run):
    values = several(run, prompt="a fox", size="2048x2048")
    (asked,) = run.start("toyland", "", [], **dict(values))
    assert "This takes about" in asked[run.controls.buttons.question]
    assert run.services.queue.of("") == []
    (begun,) = run.start_anyway("toyland", "", [], **dict(values))
    (entry,) = run.services.queue.of("")
    assert begun[run.controls.states.followed]["jobs"] == [entry.job.id]
    run.services.queue.stop(entry)
    run.services.queue.remove(entry)


def test_a_mistake_is_told_where_it_was_made_and_begins_nothing(run):
    specs = {name: spec for name, _, spec in TextToVideoRequest.declarations()}
    assert at_the_field(specs["prompt"], " ")["message"] == "Prompt is empty: write what you want to see."
    assert at_the_field(specs["frames"], 8)["is_valid"]
    assert at_the_field(None, object())["is_valid"]
    starting = run.start("toyland", "", [], **several(run, prompt="a fox", motion_from=900, motion_to=100))
    told = next(starting)
    assert "Motion from timestep is 900" in told[run.result.status]
    with pytest.raises(gr.Error, match="must be below the second"):
        next(starting)
    assert run.services.queue.of("") == []


@pytest.mark.parametrize("task", REQUESTS)
def test_an_earlier_job_fills_the_form_so_that_it_makes_the_same_job(page, task, tmp_path):
    run = run_of(page, task)
    clip = Video(np.zeros((2, 16, 16, 3), np.uint8), 8, {}).save(tmp_path / "clip.mp4")
    given = {"prompt": "a fox", "seed": 7, "frames": 5, "steps": 9, **dict.fromkeys(run.controls.files, str(clip))}
    job = build_job(task, given, model=run.services.menu.default)
    filled = run.controls.filled_by(job)
    asked = filled[run.controls.states.refill]
    assert asked["show"]
    values = form(run) | {name: value for name, value in asked["values"].items() if name in run.controls.inputs}
    values |= filled[run.controls.states.brought]["files"]
    model = values.pop("model")
    again = run.job(model, values)
    assert (again.request, again.checkpoint) == (job.request, job.checkpoint)


def test_a_job_without_a_picture_takes_the_one_in_the_form_away(run):
    job = build_job("text-to-video", {"prompt": "a fox", "seed": 7})
    filled = run.controls.bring(run.controls.filled_by(job)[run.controls.states.brought])
    assert filled[run.controls.fields["start_picture"]]["value"] is None


def loaded(page, folder, settings):
    """What the page is told once somebody has brought a file of settings."""
    written = folder / "made.json"
    written.write_text(json.dumps(settings))
    fill = next(function.fn for function in page.fns.values() if getattr(function.fn, "__qualname__", "") == LOADER)
    return fill({"path": str(written)})


def test_settings_of_a_file_fill_in_no_picture_of_this_machine_and_ask_for_it(page, tmp_path, monkeypatch):
    warned = []
    monkeypatch.setattr(gr, "Warning", warned.append)
    run = run_of(page, "text-to-video")
    request = {"prompt": "a fox", "start_picture": "/etc/hostname.png", "start_strength": 0.4}
    asked = loaded(page, tmp_path, {"task": "text-to-video", "request": request})
    brought = run.controls.bring(asked[run.controls.states.brought])
    assert brought[run.controls.fields["start_picture"]]["value"] is None
    values = asked[run.controls.states.refill]["values"]
    assert values["start_strength"] == 0.4
    assert "start_picture" not in values
    assert warned == ["The video was made from hostname.png: choose it again as the start picture."]


def test_what_the_form_cannot_ask_for_of_a_file_s_settings_is_told(page, tmp_path, monkeypatch):
    warned = []
    monkeypatch.setattr(gr, "Warning", warned.append)
    settings = {"task": "edge", "model": "toyland", "request": {"prompt": "a fox"}, "loras": ["mine:0.5", "ann/style"]}
    loaded(page, tmp_path, settings | {"controlnet": "controlnet-edge"})
    loaded(page, tmp_path, settings | {"task": "text-to-video", "controlnet": "my-edges"})  # which has none
    assert warned == []
    loaded(page, tmp_path, settings | {"controlnet": "my-edges"})
    assert warned.pop().startswith("The video was made with the ControlNet 'my-edges', which only the command line")
    queue = JobQueue(Processor(lambda: pytest.fail("no model is wanted")), JobStore(tmp_path), limits=Limits())
    shared = app.build_app(queue, ModelMenu("toyland", free=False), shared=True)
    loaded(shared, tmp_path, settings)
    (told,) = warned
    assert told.startswith("The video was made with LoRAs (mine:0.5, ann/style), which are not offered here:")


def test_settings_of_a_file_ask_for_the_clip_again_and_take_another_one_away(page, tmp_path, monkeypatch):
    warned = []
    monkeypatch.setattr(gr, "Warning", warned.append)
    run = run_of(page, "instruct-pix2pix")
    request = {"prompt": "make it blue", "clip": "/home/ann/dance.mp4"}
    asked = loaded(page, tmp_path, {"task": "instruct-pix2pix", "request": request})
    brought = run.controls.bring(asked[run.controls.states.brought])
    assert brought[run.controls.fields["clip"]]["value"] is None
    assert brought[run.controls.clip_source.folder] == ""
    assert warned == ["The video was made from dance.mp4: choose it again as the clip."]


def test_a_clip_that_is_a_folder_comes_back_where_folders_are_typed(page, tmp_path):
    run = run_of(page, "edge")
    job = build_job("edge", {"prompt": "a fox", "clip": str(tmp_path), "seed": 7})
    filled = run.controls.bring(run.controls.filled_by(job)[run.controls.states.brought])
    assert filled[run.controls.fields["clip"]]["value"] is None
    assert filled[run.controls.clip_source.folder] == str(tmp_path)
    assert list(filled) == [widget for widget in run.controls.brought_widgets if widget in filled]


def test_what_is_typed_and_no_model_changes_nothing_of_the_form(page):
    menu, name = ModelMenu("toyland", free=True), "x" * 300
    assert unknown_words_note(menu, name, "a fox") == ""
    typed = [function.fn for function in page.fns.values() if getattr(function.fn, "__name__", "") == "describe"]
    assert len(typed) == len(TABS)
    assert all("visible" not in describe(name) for describe in typed)


def test_a_form_that_a_file_has_filled_tells_other_weights_and_another_picture_as_the_command_line_does(page, tmp_path):
    run = run_of(page, "text-to-video")
    request = {"prompt": "a fox", "seed": 5, "speed": "full quality"}
    settings = {"task": "text-to-video", "model": "toyland", "weights": "1" * 10, "picture": "2" * 10}
    brought = loaded(page, tmp_path, settings | {"request": request})[run.controls.states.brought]

    def hashes(model="toyland", brought=brought, **given):
        jobs = run.batch(model, several(run, **(request | given)) | {"brought": brought}, room=9)
        return [(job.weights, job.picture) for job in jobs]

    assert hashes(each=2) == [("1" * 10, "2" * 10), ("", "")]
    assert hashes("sd-1.5") == [("", "2" * 10)]
    assert hashes(prompt="a cat") == hashes(seed=-1) == hashes(brought=None) == [("", "")]
    (job,) = run.batch("toyland", several(run, **request) | {"brought": brought}, room=9)
    again = run.controls.filled_by(job)[run.controls.states.brought]
    assert hashes(brought=again) == [("1" * 10, "2" * 10)]


def test_a_form_that_is_filled_marks_the_presets_that_it_has(run):
    def marks(values, model="toyland"):
        asked = run.controls.filled(values, model)[run.controls.states.refill]["values"]
        return {name: value for name, value in asked.items() if name.endswith("presets")}

    settings, camera = run.controls.chips
    balanced, paper = settings.values("balanced", "toyland"), settings.values("paper", "toyland")
    assert marks(paper) == {"text-to-video-setting-presets": "paper", "text-to-video-presets": "Pan right-down"}
    assert marks(balanced)["text-to-video-setting-presets"] == "balanced"
    assert marks(balanced | {"steps": 7})["text-to-video-setting-presets"] is None
    assert marks(camera.values("Still", "")) == {
        "text-to-video-setting-presets": None,
        "text-to-video-presets": "Still",
    }
    assert marks({"prompt": "a fox", "seed": 3}) == {}


def test_a_video_of_most_frames_is_made_no_longer():
    with pytest.raises(UserError, match="The video has 512 frames, and none has more"):
        CHANGES["longer"](TextToVideoRequest(prompt="a fox", seed=3, frames=MOST_FRAMES))


def test_another_of_a_video_is_told_what_of_its_settings_does_nothing():
    job = changed_job(build_job("text-to-video", {"prompt": "a fox", "motion": False, "pan_x": 0.07}), seed=4)
    assert job.request.seed == 4
    assert "Pan right" in job.remarks


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("task", REQUESTS)
def test_the_plan_takes_as_long_as_the_run_will(page, task, preset):
    run = run_of(page, task)
    chosen = run.controls.settings.values(preset, "toyland")
    clip = {} if task == "text-to-video" else {"clip": "a.mp4"}
    whole = form(run, prompt="a fox", **(chosen | clip))
    planned = {name: value for name, value in whole.items() if name in PLANNED}
    assert evaluations(run.job("toyland", planned)) == evaluations(run.job("toyland", whole))


@pytest.mark.parametrize("change", CHANGES)
def test_what_can_be_made_of_a_video_is_a_valid_request_that_differs(change):
    request = TextToVideoRequest(prompt="a fox", seed=3)
    changed = CHANGES[change](request)
    assert TextToVideoRequest.from_dict(request.to_dict() | changed) != request


def standings(run, **earlier):
    """What the page shows of a job that failed, and of one that is done."""
    job = build_job("text-to-video", {"prompt": "a fox", "seed": 3})
    failed = run.result.showing(job, Standing(Failed("No room.")), 0, "", **earlier)
    stored = Stored({form: f"a{form}" for form in FORMS}, {"seed": 3})
    return failed, run.result.showing(job, Standing(Done(61.4), stored=stored), 0, "", **earlier)


def test_a_failure_takes_no_earlier_video_away_and_a_success_brings_all_downloads_at_once(run):
    failed, done = standings(run, had_video=True, had_files=True)
    assert "No room." in failed[run.result.status]
    assert failed[run.result.video]["visible"]
    assert all(failed[button]["interactive"] for button in run.result.downloads.values())
    assert "Done in 61 s with seed 3." in done[run.result.status]
    assert [done[button]["value"] for button in run.result.downloads.values()] == [f"a{form}" for form in FORMS]
    assert run.result.seed not in failed  # it is the video's, as the settings are
    assert done[run.result.seed] == 3
    failed, _ = standings(run, had_video=False, had_files=False)
    assert not failed[run.result.video]["visible"]


def test_a_failure_brings_the_example_back_which_has_no_downloads(run):
    failed, _ = standings(run, had_video=True, had_files=False)
    assert failed[run.result.video]["visible"]
    assert not any(failed[button]["interactive"] for button in run.result.downloads.values())


def test_whoever_follows_last_is_the_one_who_fills_the_page(run):
    async def follow():
        request = SimpleNamespace(session_hash="a session")
        (begun,) = run.start("toyland", "", [], **several(run, prompt="a fox"))
        first = run.follow(begun[run.controls.states.followed], "", None, None, request)
        await anext(first)
        second = run.follow(begun[run.controls.states.followed], "", None, None, request)
        await anext(second)
        (entry,) = run.services.queue.of("")
        run.services.queue.stop(entry)
        seen = [page async for page in second]
        assert [page async for page in first] == []
        assert "Stopped." in seen[-1][run.result.status]
        return entry

    run.services.queue.remove(asyncio.run(follow()))


def test_whoever_follows_several_waits_for_each_and_keeps_the_first_s_video_when_the_second_fails(run):
    async def follow():
        (begun,) = run.start("toyland", "", [], **several(run, prompt="a fox", each=2))
        second, first = run.services.queue.of("")
        following = run.follow(begun[run.controls.states.followed], "", None, None, SimpleNamespace(session_hash="c"))
        await anext(following)
        assert second.watchers == 1
        first.standing = Standing(Done(1.0), stored=Stored({".mp4": "a.mp4"}, {}))
        second.standing = Standing(Failed("No room."))
        seen = [page async for page in following]
        assert "No room." in seen[-1][run.result.status]
        shown = {widget: news for page in seen for widget, news in page.items()}
        assert shown[run.result.video]["visible"]
        return first, second

    for entry in asyncio.run(follow()):
        run.services.queue.remove(entry)


def test_a_page_is_told_the_same_once_though_gradio_empties_what_it_is_given(run):
    async def follow():
        (begun,) = run.start("toyland", "", [], **several(run, prompt="a fox"))
        (entry,) = run.services.queue.of("")
        stored = Stored({".mp4": "a.mp4"}, {})
        entry.standing = Standing(Running(Progress("Saving", 1, 5)), stored=stored)
        pages = []
        async for page in run.follow(
            begun[run.controls.states.followed], "", None, None, SimpleNamespace(session_hash="d")
        ):
            pages.append(list(page))
            for news in page.values():
                if isinstance(news, dict):
                    news.clear()
            entry.standing = Standing(Done(1.0), stored=stored)
        return entry, pages

    entry, pages = asyncio.run(follow())
    run.services.queue.remove(entry)
    assert [run.result.status in page for page in pages] == [True, True]
    assert [run.result.video in page for page in pages] == [True, False]


def test_a_page_that_follows_nothing_is_left_as_it_is(run):
    async def follow(jobs):
        return [page async for page in run.follow(jobs, "", None, None, SimpleNamespace(session_hash="b"))]

    for unknown in (None, {"jobs": []}, {"jobs": ["no such job"]}):
        assert asyncio.run(follow(unknown)) == [{run.controls.states.jobs: []}]


def test_another_of_a_visitor_s_videos_is_hers_and_counts_for_her_address(tmp_path):
    queue = JobQueue(Processor(lambda: pytest.fail("no model is wanted")), JobStore(tmp_path), limits=Limits(frames=20))
    page = app.build_app(queue, ModelMenu("toyland", free=False), shared=True)
    run = run_of(page, "text-to-video")
    after = next(
        one.fn.__self__
        for one in page.fns.values()
        if isinstance(getattr(one.fn, "__self__", None), AfterRun) and one.fn.__self__.run is run
    )
    click = SimpleNamespace(client=SimpleNamespace(host="198.51.100.7"), session_hash="her page")
    job = build_job("text-to-video", {"prompt": "a fox", "frames": 16}, model="toyland")
    entry = run.services.submitted(job, "ann", click)
    entry.standing = Standing(Done(1.0), stored=Stored({".mp4": "a.mp4"}, {}))
    states, question = run.controls.states, run.result.after.question
    begun = after.repeating("vary")([job.id], "ann", click)
    assert begun[question] == ""
    again = queue.find(begun[states.followed]["jobs"][0], run.services.owner("ann"))
    assert (again.address, again.job.request.frames) == ("198.51.100.7", 16)
    with pytest.raises(gr.Error, match="Frames is 32, but a shared page draws at most 20"):
        after.repeating("longer")([job.id], "ann", click)
    assert after.repeating("vary")([job.id], "bob", click) == gr.skip()
    queue.pace = Pace({"toyland": 1e4})
    asked = after.repeating("vary")([job.id], "ann", click)
    assert "This takes about" in asked[question]
    assert len(queue.of(run.services.owner("ann"))) == 2
    for wrong in (None, "vary", {}, {"change": [], "job": job.id}, {"change": "vary", "job": "no such job"}):
        assert after.repeat_anyway(wrong, "ann", click) == gr.skip()
    assert after.repeat_anyway(asked[states.asked], "bob", click) == gr.skip()
    sure = after.repeat_anyway(asked[states.asked], "ann", click)
    assert queue.find(sure[states.followed]["jobs"][0], run.services.owner("ann")).job.request.frames == 16


@pytest.mark.parametrize(
    ("model", "hurried", "preset"), [("toyland", False, DRAFT), ("sd-1.5", False, BALANCED), ("sd-1.5", True, DRAFT)]
)
def test_a_page_begins_with_a_draft_where_it_is_by_few_steps_of_the_model_s_own_or_in_a_hurry(
    tmp_path, model, hurried, preset
):
    store = JobStore(tmp_path)
    queue = JobQueue(LocalRunner(lambda: pytest.fail("no model is wanted")), store)
    first = run_of(app.build_app(queue, ModelMenu(model, free=True, hurried=hurried)), "text-to-video").controls
    assert first.settings.radio.value == preset
    wanted = preset_values("text-to-video", model, preset)
    assert {name: first.fields[name].value for name in wanted} == wanted


def test_a_style_begins_with_a_draft_where_its_base_has_few_steps_of_its_own():
    first = {style: first_preset("dreambooth", style) for style in DREAMBOOTH_STYLES}
    assert {style for style, preset in first.items() if preset == DRAFT} == {"toyland-sunset", "toyland-sketch"}
    assert set(first.values()) == {DRAFT, BALANCED}


def test_a_draft_is_not_taken_along_to_a_model_without_few_steps_of_its_own(page, run):
    (fill, *_) = (one.fn for one in page.fns.values() if getattr(one.fn, "__name__", "") == "fill_for_model")
    for model, preset, stays in (("sd-1.5", DRAFT, BALANCED), ("toyland", DRAFT, DRAFT), ("sd-1.5", "best", "best")):
        (asked,) = fill(model, preset, "4 steps").values()
        filled = asked["values"]
        assert filled[run.controls.settings.radio.elem_id] == stays
        wanted = preset_values("text-to-video", model, stays)
        assert {name: filled[name] for name in wanted} == wanted


def test_what_a_page_s_load_brings_up_to_date_is_the_tab_that_is_seen(page):
    plans = [
        {name for widget, event in function.targets for name in (event, type(page.blocks.get(widget)).__name__)}
        for function in page.fns.values()
        if getattr(function.fn, "__name__", "") == "plan"
    ]
    assert len(plans) == len(TABS)
    assert all("select" in plan for plan in plans)
    assert ["HTML" in plan for plan in plans] == [True] + [False] * (len(TABS) - 1)  # the head, of the device

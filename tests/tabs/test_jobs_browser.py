"""What a browser does to a job, in a real one: nothing. Reloads, closed windows, other visitors; and the strip."""

from __future__ import annotations

import json
import time

import pytest
from PIL import Image

from serving.estimates import Pace
from serving.jobs import Queued, Running, Stopped
from serving.visitors.limits import Limits
from tests.browsing import NEEDS_CHROMIUM, keep, opened, playing, sync_api
from tests.served import UnhurriedRunner, served

pytestmark = NEEDS_CHROMIUM

TASK = "#text-to-video"
STATUS, STRIP = f"{TASK}-status", "#strip"


@pytest.fixture
def address(tiny_checkpoint, tmp_path):
    with served(tiny_checkpoint, tmp_path, runner=UnhurriedRunner(0.1)) as url:
        yield url


def open_sampling(page):
    if not page.locator(f"{TASK}-steps input").first.is_visible():
        page.get_by_role("button", name="Sampling").click()


def ask(page, prompt, steps=4, frames=2):
    page.locator(f"{TASK}-prompt textarea").fill(prompt)
    page.locator(f"{TASK}-frames input").fill(str(frames))
    open_sampling(page)
    page.locator(f"{TASK}-steps input[type=number]").fill(str(steps))
    page.locator(f"{TASK}-steps input[type=number]").blur()
    page.locator(f"{TASK}-run").click()


def tell(page, text):
    """Wait until the status says so."""
    sync_api.expect(page.locator(STATUS)).to_contain_text(text)


def test_a_reload_in_mid_run_finds_the_run_again_and_what_it_made(browser, address):
    with opened(browser, address, width=1280, height=900) as page:
        ask(page, "a fox", steps=900)
        page.locator(f"{TASK}-display .display-preview img").wait_for()
        page.reload()
        page.locator(f"{TASK}-display .display-preview img").wait_for()
        sync_api.expect(page.locator(f"{TASK}-stop")).to_be_enabled()
        page.locator(f"{TASK}-stop").click()
        tell(page, "Stopped.")
        ask(page, "a panda")
        tell(page, "Done in")
        page.wait_for_function(playing(f"{TASK}-video"))
        page.reload()
        tell(page, "Done in")
        page.wait_for_function(playing(f"{TASK}-video"))
        prompts = page.locator(f"{STRIP} li p")
        sync_api.expect(prompts).to_have_text(["a panda", "a fox"])
        assert page.errors == []


def test_a_closed_window_loses_nothing_and_the_strip_brings_it_all_back(browser, address):
    with opened(browser, address, width=1280, height=900) as page:
        ask(page, "a fox", steps=60)
        tell(page, "of")
    with opened(browser, address, width=1280, height=900) as page:
        page.locator(f"{STRIP} [data-act=show]").click()
        tell(page, "Done in")
        page.wait_for_function(playing(f"{TASK}-video"))
        keep(page, "strip")
        page.locator(f"{STRIP} [data-act=again]").click()
        sync_api.expect(page.locator(f"{TASK}-prompt textarea")).to_have_value("a fox")
        open_sampling(page)
        sync_api.expect(page.locator(f"{TASK}-steps input[type=number]")).to_have_value("60")
        page.locator(f"{STRIP} [data-act=delete]").click()
        sync_api.expect(page.locator(f"{STRIP} li")).to_have_count(0)


def test_a_video_s_settings_bring_its_start_picture_or_take_away_that_of_another(browser, address, tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "me.png")
    with opened(browser, address, width=1280, height=900) as page:
        file, again = page.locator(f"{TASK}-start_picture"), page.locator(f"{STRIP} [data-act=again]")
        ask(page, "a panda")
        sync_api.expect(again).to_have_count(1)
        page.get_by_role("button", name="Begin with a picture").click()
        file.locator("input[type=file]").set_input_files(tmp_path / "me.png")
        sync_api.expect(file.locator(".file")).to_have_count(1)
        ask(page, "a fox")
        sync_api.expect(again).to_have_count(2)
        for video, pictures in ((1, 0), (0, 1)):  # the newest one is the first
            again.nth(video).click()
            sync_api.expect(file.locator(".file")).to_have_count(pictures)
        sync_api.expect(page.locator(f"{TASK}-prompt textarea")).to_have_value("a fox")
        assert page.errors == []


def test_settings_come_back_by_the_button_below_the_video_and_from_a_file(browser, address, tmp_path):
    (tmp_path / "made.json").write_text(json.dumps({"task": "edge", "request": {"prompt": "a cow"}}))
    with opened(browser, address, width=1280, height=900) as page:
        prompt = page.locator(f"{TASK}-prompt textarea")
        ask(page, "a fox")
        tell(page, "Done in")
        prompt.fill("a panda")
        page.locator(f"{TASK}-use").click()
        sync_api.expect(prompt).to_have_value("a fox")
        page.locator("input[type=file]").first.set_input_files(tmp_path / "made.json")
        sync_api.expect(page.locator("#edge-prompt textarea")).to_be_visible()
        sync_api.expect(page.locator("#edge-prompt textarea")).to_have_value("a cow")
        assert page.errors == []


def test_a_file_s_settings_are_told_as_they_are_written_and_what_they_say_of_the_weights_is_compared(
    browser, address, tiny_checkpoint, tmp_path
):
    stranger, own = tmp_path / "stranger.json", tmp_path / "own.json"
    words = "<img src=https://evil.example/x.png> & <b>bold</b>"
    stranger.write_text(json.dumps({"task": "text-to-video", "model": words, "request": {"prompt": "a cow"}}))
    request = {"prompt": "a fox", "seed": 5, "frames": 2, "steps": 4}
    told = {"task": "text-to-video", "model": str(tiny_checkpoint), "weights": "0" * 10, "request": request}
    own.write_text(json.dumps(told))
    with opened(browser, address, width=1280, height=900) as page:
        toast = page.locator(".toast-body")
        page.locator("input[type=file]").first.set_input_files(stranger)
        sync_api.expect(toast).to_contain_text(words)
        keep(page, "toast")
        assert toast.locator("img").count() == 0
        assert not any("evil.example" in url for url in page.requested)
        page.locator("input[type=file]").first.set_input_files(own)
        sync_api.expect(page.locator(f"{TASK}-prompt textarea")).to_have_value("a fox")
        page.locator(f"{TASK}-run").click()
        tell(page, "Done in")
        page.get_by_role("button", name="How this video was made").click()
        sync_api.expect(page.locator(f"{TASK}-notes")).to_contain_text("in the settings 0000000000)")
        assert page.errors == []


def test_jobs_wait_in_a_queue_and_one_that_fails_takes_nothing_away(browser, address):
    with opened(browser, address, width=1280, height=900) as page:
        ask(page, "a panda")
        tell(page, "Done in")
        page.wait_for_function(playing(f"{TASK}-video"))
        ask(page, "a fox", steps=900)
        page.locator(f"{TASK}-display .display-preview img").wait_for()
        ask(page, "a horse")
        sync_api.expect(page.locator(f"{STRIP} li")).to_have_count(3)
        page.locator(f"{TASK}-stop").click()
        tell(page, "Done in")
        page.wait_for_function(playing(f"{TASK}-video"))
        page.locator(f"{TASK}-model input").fill("/no/such/model.safetensors")
        page.keyboard.press("Enter")
        page.locator(f"{TASK}-run").click()
        page.locator(f"{STATUS} .failed").get_by_text("does not exist").wait_for()
        assert page.locator(f"{TASK}-video video").is_visible()
        for form in ("mp4", "gif", "zip"):
            button = page.locator(f"button{TASK}-download-{form}, {TASK}-download-{form} button").first
            sync_api.expect(button).to_be_enabled()


def test_a_run_that_takes_very_long_asks_first(browser, address):
    with opened(browser, address, width=1280, height=900) as page:
        page.locator(f"{TASK}-size input").fill("2048x2048")
        page.keyboard.press("Enter")
        ask(page, "a fox", steps=900, frames=100)
        page.locator(f"{TASK}-confirmation").get_by_role("alert").get_by_text("This takes about").wait_for()
        keep(page, "confirmation")
        page.get_by_role("button", name="Not now").click()
        sync_api.expect(page.locator(f"{TASK}-confirmation")).to_be_hidden()
        assert page.locator(f"{STRIP} li").count() == 0


def test_another_of_a_video_that_takes_very_long_asks_below_it(browser, tiny_checkpoint, tmp_path):
    queues = []
    with (
        served(tiny_checkpoint, tmp_path, queues=queues) as address,
        opened(browser, address, width=1280, height=900) as page,
    ):
        ask(page, "a fox")
        tell(page, "Done in")
        queues[0].pace = Pace({"sd1": 1e4})
        question = page.locator(f"{TASK}-after-confirmation")
        page.locator(f"{TASK}-vary").click()
        question.get_by_text("This takes about").wait_for()
        sync_api.expect(page.locator(f"{TASK}-confirmation")).to_be_hidden()
        keep(page, "confirmation-after")
        question.get_by_role("button", name="Not now").click()
        sync_api.expect(question).to_be_hidden()
        page.locator(f"{TASK}-longer").click()
        question.get_by_role("button", name="Make it anyway").click()
        sync_api.expect(page.locator(f"{STRIP} li")).to_have_count(2)
        tell(page, "Done in")
        sync_api.expect(question).to_be_hidden()
        assert [entry.job.request.frames for entry in queues[0].of("")] == [4, 2]
        assert page.errors == []


def test_visitors_who_do_not_know_one_another_see_their_own_alone(browser, tmp_path):
    with (
        served("toyland", tmp_path, shared=True) as address,
        opened(browser, address, width=1280, height=900) as hers,
        opened(browser, address, width=1280, height=900) as his,
    ):
        ask(hers, "a red fox", frames=1)
        tell(hers, "Done in")
        ask(his, "a blue cat", frames=1)
        tell(his, "Done in")
        for page, prompt in ((hers, "a red fox"), (his, "a blue cat")):
            page.reload()
            sync_api.expect(page.locator(f"{STRIP} li p")).to_have_text([prompt])


def test_who_looks_at_an_earlier_video_has_not_left_and_who_closes_the_page_has(browser, tmp_path):
    queues, limits = [], Limits(steps=900)
    shared = {"shared": True, "limits": limits, "patience": 1.0, "queues": queues, "runner": UnhurriedRunner(0.1)}
    with served("toyland", tmp_path, **shared) as address:
        with opened(browser, address, width=1280, height=900) as page:
            cards = page.locator(f"{STRIP} li")
            page.locator(f"{TASK}-setting-presets").get_by_text("Balanced", exact=True).click()
            page.wait_for_function("() => Object.values(localStorage).some((kept) => kept.includes('full quality'))")
            ask(page, "a panda", frames=1)
            tell(page, "Done in")
            ask(page, "a fox", steps=900)
            sync_api.expect(cards.filter(has_text="a fox")).to_contain_text("is being made")
            ask(page, "a horse", steps=900)
            sync_api.expect(cards).to_have_count(3)
            cards.filter(has_text="a panda").locator("[data-act=show]").click()
            tell(page, "Done in")
            time.sleep(5)  # much longer than the queue is patient
            fox, horse = (
                entry for entry in queues[0]._entries.values() if entry.job.request.prompt in {"a fox", "a horse"}
            )
            assert isinstance(fox.standing.state, Running)
            assert isinstance(horse.standing.state, Queued)
            assert page.errors == []
        until = time.monotonic() + 60
        while not (fox.standing.is_over and horse.standing.is_over):
            assert time.monotonic() < until
            time.sleep(0.1)
        assert isinstance(fox.standing.state, Stopped)
        assert isinstance(horse.standing.state, Stopped)


def bring(page, prompts):
    with page.expect_file_chooser() as chooser:
        page.locator(f"{TASK}-prompts-file").click()
    chooser.value.set_files(prompts)


def test_what_waits_is_put_first_paused_and_emptied(browser, address, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a panda\n\n  a bear  \na robot\n", encoding="utf-8")
    with opened(browser, address, width=1280, height=900) as page:
        page.get_by_role("button", name="Several at once").click()
        bring(page, prompts)
        more = page.locator(f"{TASK}-more-prompts textarea")
        sync_api.expect(more).to_have_value("a panda\na bear\na robot")
        ask(page, "a fox", steps=900)
        line, cards = page.locator(f"{STRIP} .queue"), page.locator(f"{STRIP} li")
        sync_api.expect(line).to_contain_text("3 wait in the queue.")
        sync_api.expect(cards).to_have_count(4)
        cards.filter(has_text="a robot").locator("[data-act=next]").click()
        sync_api.expect(cards.filter(has_text="a robot").locator("[data-act=next]")).to_have_count(0)
        line.locator("[data-act=pause]").click()
        sync_api.expect(line).to_contain_text("which is paused")
        keep(page, "queue")
        cards.filter(has_text="a fox").locator("[data-act=stop]").click()
        tell(page, "In the queue, which is paused")
        line.locator("[data-act=resume]").click()
        sync_api.expect(cards.filter(has_text="a robot")).to_contain_text("is being made")
        line.locator("[data-act=empty]").click()
        sync_api.expect(line).to_have_count(0)
        sync_api.expect(cards.filter(has_text="stopped")).to_have_count(3)
        assert page.errors == []


def test_a_file_that_is_no_list_of_prompts_is_told(browser, address, tmp_path):
    broken = tmp_path / "broken.txt"
    broken.write_bytes(b"\xff\xfe\x00")
    with opened(browser, address, width=1280, height=900) as page:
        page.get_by_role("button", name="Several at once").click()
        bring(page, broken)
        sync_api.expect(page.locator(".toast-body")).to_contain_text("broken.txt cannot be read")

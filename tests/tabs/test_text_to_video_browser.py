"""A real browser on the real page: what a person does and sees."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse

import pytest

from tests.browsing import NEEDS_CHROMIUM, PATIENCE, keep, opened, playing, sync_api
from tests.served import served

pytestmark = NEEDS_CHROMIUM

TASK = "#text-to-video"
PLAYING = playing(f"{TASK}-video")
# At one moment: the page may be on its way to the video.
BOXES = "parts => parts.map(part => document.querySelector(part).getBoundingClientRect().toJSON())"
# The same once nothing moves any more, and the window lies where it stays.
RESTING = f"""async parts => {{
    const now = () => ({BOXES})(parts);
    for (let still = 0, last = ""; still < 20; await new Promise(requestAnimationFrame)) {{
        const seen = JSON.stringify(now());
        still = seen === last ? still + 1 : 0;
        last = seen;
    }}
    return now();
}}"""
MOVING = f"() => document.querySelector('{TASK}-video video').currentTime"


@pytest.fixture(scope="module")
def address(tiny_checkpoint, tmp_path_factory):
    with served(tiny_checkpoint, tmp_path_factory.mktemp("outputs")) as url:
        yield url


@pytest.fixture
def page(browser, address):
    with opened(browser, address, width=1280, height=900) as page:
        yield page


@pytest.fixture
def phone(browser, address):
    with opened(browser, address, width=390, height=844) as page:
        yield page


def ask(page, *, prompt, frames=4, steps=20):
    page.locator(f"{TASK}-prompt textarea").fill(prompt)
    page.locator(f"{TASK}-frames input").fill(str(frames))
    page.get_by_role("button", name="Sampling").click()
    page.locator(f"{TASK}-steps input").fill(str(steps))
    page.locator(f"{TASK}-steps input").blur()
    page.locator(f"{TASK}-run").click()


def test_a_prompt_becomes_a_playing_video_after_a_preview(page):
    ask(page, prompt="a red panda dancing in the snow", steps=60)
    plan = page.locator(f"{TASK}-plan").get_by_text("The prompt has 7 of 14 tokens")
    plan.wait_for()  # until it can be seen
    page.locator(".display-preview img").first.wait_for(state="attached")
    keep(page, "preview")
    page.wait_for_function(PLAYING)
    began = page.evaluate(MOVING)
    page.wait_for_function(f"before => ({MOVING})() !== before", arg=began)
    sync_api.expect(page.locator(f"{TASK}-status")).to_contain_text("Done in")
    keep(page, "video")
    hosts = {urlparse(url).hostname for url in page.requested if url.startswith(("http:", "https:", "ws:", "wss:"))}
    assert hosts == {"127.0.0.1"}
    assert page.errors == []


def test_every_form_of_the_video_can_be_downloaded_and_its_seed_used_again(page):
    ask(page, prompt="a fox", steps=4)
    for form in ("mp4", "gif", "zip"):
        button = page.locator(f"button{TASK}-download-{form}, {TASK}-download-{form} button").first
        sync_api.expect(button).to_be_enabled(timeout=PATIENCE)
        with page.expect_download() as download:
            button.click()
        assert download.value.suggested_filename.endswith(f".{form}")
        assert Path(download.value.path()).stat().st_size > 100
    page.get_by_role("button", name="How this video was made").click()
    used = page.locator(f"{TASK}-seed-used input").input_value()
    page.get_by_role("button", name="Last", exact=True).click()
    sync_api.expect(page.locator(f"{TASK}-seed input")).to_have_value(used)
    page.get_by_role("button", name="Random", exact=True).click()
    sync_api.expect(page.locator(f"{TASK}-seed input")).to_have_value("-1")


def test_stop_keeps_the_last_preview_and_the_next_run_works(page):
    ask(page, prompt="a fox", frames=8, steps=900)
    page.locator(".display-preview img").first.wait_for(state="attached")
    page.locator(f"{TASK}-stop").click()
    sync_api.expect(page.locator(f"{TASK}-status")).to_have_text("Stopped.", timeout=PATIENCE)
    sync_api.expect(page.locator(f"{TASK}-run")).to_be_enabled()
    assert page.locator(".display-preview img").is_visible()
    keep(page, "stopped")
    page.locator(f"{TASK}-steps input").fill("4")
    page.locator(f"{TASK}-steps input").blur()
    page.locator(f"{TASK}-run").click()
    page.wait_for_function(PLAYING)


def test_mistakes_are_told_on_the_page_in_one_sentence(page):
    page.locator(f"{TASK}-run").click()
    page.locator(f"{TASK}-prompt").get_by_text("Prompt is empty: write what you want to see.").wait_for()
    page.locator(f"{TASK}-size input").fill("500x300")
    page.keyboard.press("Enter")
    ask(page, prompt="a fox", steps=4)
    told = "Size is 500x300, but sides must be multiples of 8: use 496x304."
    page.locator(f"{TASK}-size").get_by_text(told).wait_for()
    page.locator(f"{TASK}-size input").fill("64x64")
    page.keyboard.press("Enter")
    page.locator(f"{TASK}-model input").fill("/no/such/model.safetensors")
    page.keyboard.press("Enter")
    page.locator(f"{TASK}-run").click()
    page.locator(".status.failed").get_by_text("does not exist").wait_for()
    keep(page, "mistake")
    assert "Traceback" not in page.content()
    sync_api.expect(page.locator(f"{TASK}-run")).to_be_enabled()


def test_an_example_fills_the_prompt_and_runs_nothing(page):
    shown = "Example: “a red panda dancing in the snow”"
    sync_api.expect(page.locator(f"{TASK}-status")).to_contain_text(shown)
    page.get_by_text("an orange fox running in the meadow").click()
    sync_api.expect(page.locator(f"{TASK}-prompt textarea")).to_have_value("an orange fox running in the meadow")
    sync_api.expect(page.locator(f"{TASK}-status")).to_contain_text(shown)
    sync_api.expect(page.locator(f"{TASK}-stop")).to_be_disabled()


def test_a_camera_preset_moves_the_sliders_and_a_slider_moved_by_hand_leaves_it(page):
    page.get_by_role("button", name="Motion").click()
    page.locator(f"{TASK}-presets").get_by_text("Still", exact=True).click()
    pan = page.locator(f"{TASK}-pan_x input[type=number]")
    sync_api.expect(pan).to_have_value("0")
    pan.fill("0.1")
    pan.blur()
    sync_api.expect(page.locator(f"{TASK}-presets label.selected")).to_have_count(0)
    sync_api.expect(page.locator(f"{TASK}-setting-presets label.selected")).to_have_count(0)
    page.reload()  # the browser keeps what was chosen, and what was entered
    page.get_by_role("button", name="Motion").click()
    sync_api.expect(pan).to_have_value("0.1")
    sync_api.expect(page.locator(f"{TASK}-pan_y input[type=number]")).to_have_value("0")
    sync_api.expect(page.locator(f"{TASK}-presets label.selected")).to_have_count(0)


def test_who_looks_at_a_form_and_leaves_it_as_it_is_takes_no_mark_off(page):
    kept = "() => Object.keys(localStorage).filter((key) => key.includes('form text-to-video'))"
    page.locator(f"{TASK}-frames input").click()
    page.keyboard.press("Tab")
    page.wait_for_timeout(1000)  # longer than until what is entered is noted
    sync_api.expect(page.locator(f"{TASK}-setting-presets label.selected")).to_have_text("Balanced")
    assert page.evaluate(kept) == []


def test_what_is_typed_while_a_preset_fills_the_form_is_kept_and_the_preset_stays_chosen(page):
    page.locator(f"{TASK}-setting-presets").get_by_text("Best", exact=True).click()
    page.locator(f"{TASK}-prompt textarea").fill("a fox")
    page.wait_for_function("() => Object.values(localStorage).some((kept) => kept.includes('a fox'))")
    sync_api.expect(page.locator(f"{TASK}-setting-presets label.selected")).to_have_text("Best")
    page.reload()
    sync_api.expect(page.locator(f"{TASK}-prompt textarea")).to_have_value("a fox")
    sync_api.expect(page.locator(f"{TASK}-setting-presets label.selected")).to_have_text("Best")


def test_a_setting_preset_stays_chosen_when_the_model_changes(page):
    page.get_by_role("button", name="Sampling").click()
    steps, chosen = page.locator(f"{TASK}-steps input[type=number]"), f"{TASK}-setting-presets label.selected"
    page.locator(f"{TASK}-setting-presets").get_by_text("Best", exact=True).click()
    sync_api.expect(steps).to_have_value("100")
    for model, number in (("toyland", "50"), ("sd-1.5", "100")):
        page.locator(f"{TASK}-model input").fill(model)
        page.keyboard.press("Enter")
        sync_api.expect(steps).to_have_value(number)
        sync_api.expect(page.locator(chosen)).to_have_text("Best")


def test_on_a_phone_the_video_comes_right_below_the_prompt_and_is_seen_whole_when_it_is_done(phone):
    ask(phone, prompt="a fox", steps=60)
    phone.wait_for_function(PLAYING)
    sync_api.expect(phone.locator(f"{TASK}-status")).to_contain_text("Done in")
    sync_api.expect(phone.locator(f"{TASK}-use")).to_be_visible()
    parts = [f"{TASK}-{part}" for part in ("prompt", "video", "presets")]
    boxes = phone.evaluate(RESTING, parts)
    assert boxes[1]["top"] >= 0
    assert boxes[1]["bottom"] <= 844
    keep(phone, "phone")
    tops = [box["y"] for box in boxes]
    assert tops == sorted(tops)
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)

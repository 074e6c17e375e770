"""The tabs that begin with a clip, in a real browser, on tiny weights: how a clip comes in and what plays beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.browsing import NEEDS_CHROMIUM, PATIENCE, keep, opened, playing, sync_api
from tests.example_files import write_clip
from tests.served import served
from text2video_zero.media.clips import probe
from text2video_zero.models import catalogue

pytestmark = NEEDS_CHROMIUM

TIMES = """() => ["guide", "video"].map((part) => {
    const video = document.querySelector(`#edge-${part} video`);
    return { time: video.currentTime, paused: video.paused, duration: video.duration };
})"""
# Sought again while a pause that is still on its way brings the other one back to where it was.
SOUGHT = f"""() => {{
    const video = document.querySelector("#edge-video video");
    if (Math.abs(video.currentTime - 0.5) > 0.01) video.currentTime = 0.5;
    return ({TIMES})().every((each) => Math.abs(each.time - 0.5) < 0.01);
}}"""
IN_STEP = f"""() => {{
    const [guide, video] = ({TIMES})();
    const distance = Math.abs(guide.time - video.time);
    return Math.min(distance, Math.abs(video.duration - distance)) < 0.1;
}}"""


@pytest.fixture(scope="module")
def address(tiny_checkpoint, tiny_controlnets, tmp_path_factory):
    table = {"sd1": {control: str(folder) for control, folder in tiny_controlnets.items()}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "CONTROLNETS", table)
        with served(tiny_checkpoint, tmp_path_factory.mktemp("outputs")) as url:
            yield url


@pytest.fixture
def page(browser, address):
    """The edge tab."""
    with opened(browser, address, width=1280, height=900) as page:
        page.get_by_role("tab", name="Edge", exact=True).click()
        page.locator("#edge-run").wait_for()
        yield page


def bring(page, path):
    page.locator("#edge-clip input[type=file]").set_input_files(path)
    page.locator("#edge-clip-preview .clip").wait_for()


def ask(page, prompt="a fox", steps=4):
    page.locator("#edge-prompt textarea").fill(prompt)
    page.locator("#edge-frames input").fill("6")
    page.get_by_role("button", name="Sampling").click()
    page.locator("#edge-steps input").fill(str(steps))
    page.locator("#edge-steps input").blur()


def test_a_clip_is_seen_in_motion_as_soon_as_it_is_there(page, tmp_path):
    bring(page, write_clip(tmp_path, "zip"))  # of the other forms the tests below bring one each
    page.locator("#edge-clip-preview").get_by_text("Frames 0 to 7 are used").wait_for()
    page.get_by_role("button", name=re.compile(r"^Clip\W*$")).click()
    page.locator("#edge-first_frame input").fill("5")
    page.locator("#edge-clip-preview").get_by_text("Frames 5 to 9 are used").wait_for()
    page.wait_for_function("() => document.querySelector('#edge-clip-preview img')?.naturalWidth > 0")


def test_a_file_that_is_no_clip_is_told_at_once_and_a_run_says_the_same(page, tmp_path):
    (tmp_path / "notes.mp4").write_text("no video")
    page.locator("#edge-clip input[type=file]").set_input_files(tmp_path / "notes.mp4")
    page.locator("#edge-clip-preview .note").wait_for()
    told = page.locator("#edge-clip-preview .note").inner_text()
    ask(page)
    page.locator("#edge-run").click()
    page.locator("#edge-status .failed").get_by_text(told).wait_for()


def test_a_folder_takes_the_place_of_a_file_and_the_other_way_round(page, tmp_path):
    bring(page, write_clip(tmp_path, "gif"))
    page.get_by_role("tab", name="Folder", exact=True).click()
    path = page.locator("#edge-clip-path textarea, #edge-clip-path input")
    path.fill(str(write_clip(tmp_path, "folder")))
    page.get_by_role("tab", name="File", exact=True).click()
    page.locator("#edge-clip input[type=file]").wait_for(state="attached")
    page.locator("#edge-clip-preview .clip").wait_for()
    ask(page)
    page.locator("#edge-show-maps").click()
    page.wait_for_function(playing("#edge-guide"))
    page.locator("#edge-clip input[type=file]").set_input_files(write_clip(tmp_path, "mp4"))
    page.get_by_role("tab", name="Folder", exact=True).click()
    sync_api.expect(path).to_have_value("")


def test_a_recording_becomes_the_clip(page):
    page.get_by_role("tab", name="Webcam", exact=True).click()
    camera = page.locator("#edge-webcam")
    camera.get_by_role("button").first.click()
    recorder = camera.locator(".capture-button")
    recorder.get_by_text("Record").click()
    recorder.get_by_text("Stop").wait_for()
    page.wait_for_timeout(3000)
    recorder.click()
    page.locator("#edge-clip-preview .clip").wait_for()
    assert page.get_by_role("tab", name="File", exact=True).get_attribute("aria-selected") == "true"


def test_the_control_map_is_seen_first_and_then_plays_in_step_with_the_video(page, tmp_path):
    bring(page, write_clip(tmp_path, "mp4"))
    ask(page, prompt="")
    page.locator("#edge-show-maps").click()
    page.wait_for_function(playing("#edge-guide"))
    sync_api.expect(page.locator("#edge-status")).to_contain_text("The control map is ready")
    sync_api.expect(page.locator("#edge-video video")).to_have_count(0)
    sync_api.expect(page.locator("#edge-run")).to_be_enabled()
    keep(page, "control-map")
    page.locator("#edge-prompt textarea").fill("a fox")
    page.locator("#edge-run").click()
    page.wait_for_function(playing("#edge-video"))
    page.wait_for_function(playing("#edge-guide"))
    for _ in range(5):
        page.wait_for_function(IN_STEP)
        page.wait_for_timeout(150)
    keep(page, "in-step")
    page.get_by_role("button", name="How this video was made").click()
    sync_api.expect(page.locator("#edge-notes")).to_contain_text("96x64 -> 80x64")
    assert page.errors == []


def test_what_is_done_to_one_of_the_two_happens_to_the_other(page, tmp_path):
    bring(page, write_clip(tmp_path, "mp4"))
    ask(page)
    page.locator("#edge-run").click()
    page.locator("#edge-status").get_by_text("Done in").wait_for()  # until then an example may be shown
    page.wait_for_function(playing("#edge-video"))
    page.wait_for_function(playing("#edge-guide"))
    page.evaluate("() => document.querySelector('#edge-guide video').pause()")
    page.wait_for_function(f"() => ({TIMES})().every((video) => video.paused)")
    page.wait_for_function(SOUGHT)
    page.evaluate("() => document.querySelector('#edge-video video').play()")
    page.wait_for_function(f"() => ({TIMES})().every((video) => !video.paused)")
    page.wait_for_function(IN_STEP)


def test_the_control_map_can_be_downloaded_and_is_as_long_as_the_video(page, tmp_path):
    bring(page, write_clip(tmp_path, "gif"))
    ask(page)
    page.locator("#edge-show-maps").click()
    button = page.locator("button#edge-download-guide, #edge-download-guide button").first
    sync_api.expect(button).to_be_enabled(timeout=PATIENCE)
    with page.expect_download() as download:
        button.click()
    assert download.value.suggested_filename.startswith("edge-")
    assert download.value.suggested_filename.endswith("-control-map.mp4")
    kept = tmp_path / "kept.mp4"
    download.value.save_as(kept)
    assert (probe(Path(kept)).frames, str(probe(kept).size)) == (6, "80x64")


def test_an_example_brings_its_clip_and_its_words(page):
    page.locator("#edge-examples button").first.click()
    page.locator("#edge-clip-preview .clip").wait_for()
    sync_api.expect(page.locator("#edge-prompt textarea")).to_have_value("a purple fox walking in the snow")


def test_on_a_phone_the_two_videos_fit_side_by_side(browser, address, tmp_path):
    with opened(browser, address, width=390, height=844) as phone:
        phone.get_by_role("tab", name="Edge", exact=True).click()
        bring(phone, write_clip(tmp_path, "mp4"))
        ask(phone)
        phone.locator("#edge-run").click()
        phone.locator("#edge-status").get_by_text("Done in").wait_for()
        phone.wait_for_function(playing("#edge-video"))
        keep(phone, "phone-in-step")
        boxes = [phone.locator(f"#edge-{part} video").bounding_box() for part in ("guide", "video")]
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
        assert boxes[0]["y"] == pytest.approx(boxes[1]["y"], abs=2)
        assert boxes[0]["width"] == pytest.approx(boxes[1]["width"], abs=2)

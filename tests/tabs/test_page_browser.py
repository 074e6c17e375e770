"""The page itself in a real browser, on Toyland: how it is laid out, and what it does before the server answers."""

from __future__ import annotations

import re

import pytest

from serving.runners.local import LocalRunner
from tests.browsing import NEEDS_CHROMIUM, PATIENCE, keep, opened, sync_api
from tests.served import on_the_cpu, served
from text2video_zero.requests import REQUESTS

pytestmark = NEEDS_CHROMIUM

# Where the two sides of the open tab end, in pixels from the top of the window.
ENDS = """() => {
    const columns = [...document.querySelectorAll(".columns")].find((one) => one.offsetParent);
    return [...columns.children].map((side) => side.lastElementChild.getBoundingClientRect().bottom);
}"""


@pytest.fixture
def page(browser, address):
    with opened(browser, address, width=1280, height=900) as page:
        yield page


def show(page, task):
    page.get_by_role("tab", name=REQUESTS[task].title, exact=True).click()
    page.locator(f"#{task}-run").wait_for()


@pytest.mark.parametrize("task", REQUESTS)
def test_no_side_of_a_tab_ends_before_the_other_does_where_one_looks(page, task):
    show(page, task)
    page.wait_for_function(f"() => document.querySelector('#{task}-video video').readyState >= 1")
    left, right = page.evaluate(ENDS)
    assert abs(left - right) < 300
    page.evaluate("() => scrollTo(0, document.body.scrollHeight)")
    page.wait_for_function(f"() => {{ const [left, right] = ({ENDS})(); return Math.abs(left - right) < 2; }}")
    keep(page, f"{task}-end")


def test_an_example_s_words_are_there_without_the_server(page):
    page.route("**/gradio_api/queue/join*", lambda route: route.abort())
    page.get_by_role("button", name="a yellow car on the beach").click()
    sync_api.expect(page.locator("#text-to-video-prompt textarea")).to_have_value("a yellow car on the beach")
    show(page, "instruct-pix2pix")
    page.get_by_role("button", name="make the panda purple").click()
    sync_api.expect(page.locator("#instruct-pix2pix-prompt textarea")).to_have_value("make the panda purple")
    sync_api.expect(page.locator("#instruct-pix2pix-seed input")).to_have_value("7")


@pytest.mark.parametrize(("task", "button"), [("text-to-video", "run"), ("pose", "run"), ("edge", "show-maps")])
def test_what_is_begun_right_after_a_click_on_an_example_begins_with_it(page, task, button):
    show(page, task)
    page.evaluate(
        "([examples, button]) => {"
        " document.querySelector(examples).querySelector('[data-example]').click();"
        " document.querySelector(button).click(); }",
        [f"#{task}-examples", f"#{task}-{button}"],
    )
    page.locator(f"#{task}-status .bar, #{task}-status .done").wait_for()
    for field in ("prompt", "clip"):
        assert page.locator(f"#{task}-{field}").get_by_text("is empty").count() == 0
    page.evaluate("stop => document.querySelector(stop).click()", f"#{task}-stop")  # it may be over by now
    page.locator(f"#{task}-status .stopped, #{task}-status .done").wait_for()


class SlowlyImported(LocalRunner):
    """Opens when it is told to: the page is up before torch is."""

    def open(self) -> None:
        """Not yet."""


def test_a_prompt_typed_before_the_device_is_known_is_counted_as_soon_as_it_is(browser, tmp_path):
    runner = SlowlyImported(on_the_cpu)
    with (
        served("toyland", tmp_path, runner=runner) as address,
        opened(browser, address, width=1280, height=900, planned=False) as page,
    ):
        page.locator("#text-to-video-prompt textarea").fill("a red panda")
        plan = page.locator("#text-to-video-plan")
        sync_api.expect(plan).to_contain_text("8 frames")
        sync_api.expect(plan).not_to_contain_text("tokens")
        LocalRunner.open(runner)
        sync_api.expect(plan).to_contain_text("tokens")


def test_an_example_that_was_chosen_is_kept_by_the_browser(page):
    page.get_by_role("button", name="a white horse walking in the desert").click()
    sync_api.expect(page.locator("#text-to-video-prompt textarea")).to_have_value("a white horse walking in the desert")
    page.reload()
    sync_api.expect(page.locator("#text-to-video-prompt textarea")).to_have_value("a white horse walking in the desert")


def test_the_filter_shows_what_has_all_its_words_also_when_the_strip_is_drawn_anew(page):
    prompt, field = page.locator("#text-to-video-prompt textarea"), page.locator("#strip-filter input")
    page.locator("#text-to-video-frames input").fill("2")
    for number, words in enumerate(("a violet fox", "a white horse")):
        prompt.fill(words)
        prompt.blur()
        page.locator("#text-to-video-run").click()
        page.locator(f"#strip [data-words='{words} toyland text to video']").wait_for(state="attached")
        field.fill("VIOLET toyland")
        visible = page.locator("#strip li:visible")
        sync_api.expect(visible).to_have_count(1)
        sync_api.expect(visible.locator("p")).to_have_text(["a violet fox"])
        sync_api.expect(page.locator("#strip-filter [role=status]")).to_contain_text(
            re.compile(rf"^1 of ([{number + 1}-9])")
        )
    # As Gradio leaves a card that it draws anew where nothing but its state is another.
    page.locator("#strip li[hidden]").first.evaluate("(card) => card.removeAttribute('hidden')")
    sync_api.expect(visible.locator("p")).to_have_text(["a violet fox"])
    field.fill("violet horse")
    sync_api.expect(page.locator("#strip li:visible")).to_have_count(0)
    field.fill("")
    assert page.locator("#strip li:visible").count() >= 2
    page.locator("#text-to-video-status").get_by_text("Done in").wait_for()


ABOUT = "[...document.querySelectorAll('#about video')]"


def test_the_pictures_of_about_are_loaded_when_they_are_seen_and_only_then_play(page):
    assert not any("assets/about" in url for url in page.requested)
    page.get_by_role("tab", name="About", exact=True).click()
    page.wait_for_function(f"() => {ABOUT}.some((video) => !video.paused && video.readyState >= 2)")
    keep(page, "about")
    page.get_by_role("tab", name="Pose", exact=True).click()
    page.wait_for_function(f"() => {ABOUT}.every((video) => video.paused)")
    assert page.errors == []


def test_the_pictures_of_about_stand_still_for_those_who_want_no_motion(browser, address):
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(address)
    page.get_by_role("tab", name="About", exact=True).click(timeout=PATIENCE)
    page.wait_for_function(f"() => {ABOUT}[0]?.readyState >= 1", timeout=PATIENCE)
    assert page.evaluate(f"() => {ABOUT}.every((video) => video.paused)")
    context.close()


def test_a_lora_that_is_chosen_is_written_below_the_others_unless_it_is_there(page):
    page.get_by_role("button", name="LoRAs on top").click()
    page.locator("#text-to-video-loras textarea").fill("mine:0.5")
    added = page.evaluate("() => forms.add('key', 'ink', 'mine:0.5')")
    again = page.evaluate("() => forms.add('key', 'mine', 'mine:0.5\\n')")
    assert (added, again) == ([None, "mine:0.5\nink"], [None, "mine:0.5"])
    sync_api.expect(page.locator("#text-to-video-lora-files input")).to_be_visible()


def test_the_camera_s_path_is_drawn_by_hand_and_becomes_key_frames(page):
    page.get_by_role("button", name="Motion").click()
    pad = page.locator("#text-to-video-camera-pad canvas")
    pad.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('#text-to-video-video video').readyState >= 2")
    pad.hover()  # in its middle, once the page above it has stopped moving
    box = pad.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.down()
    for step in range(1, 21):
        page.mouse.move(x + step * box["width"] / 80, y)
    keep(page, "camera-pad")
    page.mouse.up()
    keys = page.locator("#text-to-video-camera_keys textarea, #text-to-video-camera_keys input").first
    sync_api.expect(keys).to_have_value(re.compile(r"^1: right 0\.0\d+ down 0\.000; .*; 7: right 0\.250 down 0\.000$"))
    sync_api.expect(page.locator("#text-to-video-camera_eased input")).not_to_be_checked()
    pixel = "getContext('2d').getImageData(9, 9, 1, 1).data[3]"  # is opaque: the picture lies below the path
    page.wait_for_function(f"() => document.querySelector('#text-to-video-camera-pad canvas').{pixel}")
    page.locator("#text-to-video-camera-pad [data-clear]").click()
    sync_api.expect(keys).to_have_value("")
    assert page.errors == []

"""axe-core finds nothing on any tab, in light and in dark; who wants no motion gets none; nothing scrolls sideways."""

from __future__ import annotations

import itertools
import re

import pytest

from tests.browsing import NEEDS_CHROMIUM, PATIENCE, keep, opened, sync_api
from text2video_zero.requests import REQUESTS

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is needed")
pytestmark = NEEDS_CHROMIUM


def violations(page):
    found = axe.Axe().run(page).response["violations"]
    return [(one["id"], node["html"][:120]) for one in found for node in one["nodes"]]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_tab_can_be_read_by_everybody_and_fits(browser, address, theme, width):
    with opened(browser, f"{address}?__theme={theme}", width=width, height=844) as page:
        for task, request in REQUESTS.items():
            page.get_by_role("tab", name=request.title, exact=True).click()
            page.locator(f"#{task}-run").wait_for()
            keep(page, f"{task}-{width}-{theme}")
            assert violations(page) == [], task
            assert page.evaluate("() => document.documentElement.scrollWidth") <= width, task
        page.get_by_role("tab", name="About", exact=True).click()
        page.locator("#about video").first.wait_for()
        keep(page, f"about-{width}-{theme}")
        assert violations(page) == []
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_so_can_what_a_group_hides(browser, address, theme):
    with opened(browser, f"{address}?__theme={theme}", width=390, height=844) as page:
        for group in ("Motion", "Sampling", "LoRAs on top"):
            page.locator(".more button").get_by_text(group, exact=True).first.click()
        page.locator("#text-to-video-camera-pad canvas").wait_for()
        keep(page, f"motion-390-{theme}")
        assert violations(page) == []
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390


def test_nothing_plays_by_itself_for_those_who_want_no_motion(browser, address):
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(address)
    page.get_by_role("tab", name="Pose", exact=True).click(timeout=PATIENCE)
    page.locator("#pose-video video").wait_for()
    page.wait_for_function(
        "() => [...document.querySelectorAll('video')].filter((video) => video.checkVisibility())"
        ".every((video) => video.readyState >= 1 && video.paused)",
        timeout=PATIENCE,
    )
    # Nor do videos that play in step start one another again and again.
    page.evaluate("() => { window.started = 0; document.addEventListener('play', () => window.started++, true); }")
    page.wait_for_function(
        """async () => {
            const before = window.started;
            for (let frame = 0; frame < 30; frame++) await new Promise(requestAnimationFrame);
            return window.started === before;
        }""",
        timeout=PATIENCE,
    )
    context.close()


def test_a_screen_reader_is_told_what_goes_on_once_and_can_ask_how_far_it_is(browser, address):
    with opened(browser, address, width=1280, height=900) as page:
        page.evaluate(
            """() => {
                window.heard = [];
                const status = document.querySelector("#text-to-video-status");
                new MutationObserver((news) => {
                    const told = status.querySelector("[role=status]");
                    if (news.some(({ target }) => told.contains(target))) window.heard.push(told.textContent);
                }).observe(status, { childList: true, characterData: true, attributes: true, subtree: true });
            }"""
        )
        page.locator("#text-to-video-prompt textarea").fill("a fox")
        page.locator("#text-to-video-run").click()
        far = page.get_by_role("progressbar", name="Denoising")
        sync_api.expect(far).to_have_attribute("aria-valuenow", re.compile(r"[1-9]"))
        assert int(far.get_attribute("aria-valuemax")) > 1
        assert violations(page) == []
        page.locator("#text-to-video-status [role=status]").get_by_text("Done in").wait_for()
        heard = page.evaluate("() => window.heard")
        assert "Denoising" in heard
        assert heard[-1].startswith("Done in")
        assert all(before != after for before, after in itertools.pairwise(heard))


def test_the_keyboard_alone_starts_a_run_and_the_focus_can_be_seen(browser, address):
    with opened(browser, address, width=1280, height=900) as page:
        page.locator("#text-to-video-prompt textarea").focus()
        width = page.evaluate("() => getComputedStyle(document.activeElement).outlineWidth")
        assert width == "2px"
        page.keyboard.press("Control+Enter")
        page.locator("#text-to-video-prompt").get_by_text("Prompt is empty").wait_for()

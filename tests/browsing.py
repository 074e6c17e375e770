"""A real Chromium for the tests that drive the page; they skip where there is none."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

sync_api = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDS_CHROMIUM = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="the browser tests need Chromium: apt-get install chromium"),
]
"""The marks of a test that opens a page."""

SCREENSHOTS = Path(__file__).parent / "screenshots"
PATIENCE = 90_000
"""Milliseconds: a busy machine loads a page of a hundred files slowly."""

sync_api.expect.set_options(timeout=PATIENCE)

# A camera that films a test picture, and is never asked for permission.
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser, without a window."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", *CAMERA]
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, address: str, *, width: int, height: int, planned: bool = True) -> Iterator[Any]:
    """The page in a window of its own; `page.requested` lists what it asked for, `page.errors` what broke.

    planned: wait for the plan, which comes when the device is known, by an event that takes away what was told at the
        prompt.
    """
    context = browser.new_context(viewport={"width": width, "height": height}, locale="en-US", accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.requested, page.errors = [], []
    page.on("request", lambda request: page.requested.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    try:
        page.goto(address)
        page.locator("#text-to-video-run").wait_for()
        if planned:
            sync_api.expect(page.locator("#text-to-video-plan .plan")).not_to_be_empty()
        yield page
    finally:  # a page that is left open goes on to play its videos
        context.close()


def keep(page: Any, name: str) -> None:
    """Keep a picture of the whole page for people to look at."""
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def playing(selector: str) -> str:
    """JavaScript that tells whether the video within an element can be seen to play."""
    return f"""() => {{
        const video = document.querySelector('{selector} video');
        return video && video.readyState >= 2 && video.videoWidth > 0 && !video.paused;
    }}"""

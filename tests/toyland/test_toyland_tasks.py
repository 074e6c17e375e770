"""Every task on the embedded models, in the three ways in which people reach it: program, command line, browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file

from tabs.tasks import TABS
from tests.browsing import NEEDS_CHROMIUM, chromium, keep, opened, playing, sync_api
from tests.served import served
from text2video_zero.__main__ import main
from text2video_zero.media.clips import probe, read_clip
from text2video_zero.media.settings import read_settings
from text2video_zero.requests import ClipRequest, Size
from toyland.examples import model_of

TABS_BY_TASK = {tab.request.task: tab for tab in TABS}
NATIVE = Size(128, 128)
FRAMES = 2


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with served("toyland", tmp_path_factory.mktemp("outputs")) as url:
        yield url


@pytest.fixture(scope="module")
def client(address, tmp_path_factory):
    return Client(address, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


@pytest.fixture(params=TABS_BY_TASK)
def tab(request):
    """The tab of each task that Toyland has been trained for."""
    if model_of(request.param) is None:
        pytest.skip(f"Toyland has not been trained for {request.param}")
    return TABS_BY_TASK[request.param]


@pytest.fixture
def model(tab):
    return model_of(tab.request.task)


def check(video, tab):
    """The video is of the task, as long and as large as it was asked for, and shows something that differs."""
    info, settings = probe(video), read_settings(video)
    assert (info.frames, info.size) == (FRAMES, NATIVE)
    assert settings["task"] == tab.request.task
    assert settings["request"]["prompt"] == tab.examples[0]["prompt"]
    pictures = np.asarray(read_clip(video, first_frame=0, frames=FRAMES, fps=None, size=None, native=NATIVE).frames)
    assert pictures.std() > 20


def test_a_program_gets_a_video(client, tab, model):
    values = {**tab.examples[0], "seed": 7}
    if "clip" in values:
        values["clip"] = handle_file(values["clip"])
    video, seed, settings = client.predict(
        **values, model=model, frames=FRAMES, steps=4, api_name=f"/{tab.request.task}"
    )
    assert seed == settings["request"]["seed"] == 7
    check(Path(video), tab)


def test_the_command_line_writes_a_video(tab, model, tmp_path, capsys):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in tab.examples[0].items()]
    output = tmp_path / "out.mp4"
    run = f"{tab.request.task} --model {model} --frames {FRAMES} --steps 4 --seed 7 --device cpu --quiet"
    assert main([*run.split(), *options, "--output", str(output)]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    check(output, tab)


@pytest.fixture(scope="module")
def page(address):
    with chromium() as browser, opened(browser, address, width=1280, height=900) as page:
        yield page


class TestBrowser:
    pytestmark = NEEDS_CHROMIUM

    def test_a_click_on_an_example_and_one_on_the_button_make_a_video(self, page, tab):
        task = f"#{tab.request.task}"
        page.get_by_role("tab", name=tab.request.title, exact=True).click()
        page.locator(f"{task}-examples").get_by_text(tab.examples[0]["prompt"]).first.click()
        sync_api.expect(page.locator(f"{task}-prompt textarea")).to_have_value(tab.examples[0]["prompt"])
        with_clip = issubclass(tab.request, ClipRequest)
        if with_clip:
            page.locator(f"{task}-clip-preview .clip").wait_for()
        page.locator(f"{task}-frames input").fill(str(FRAMES))
        steps = page.locator(f"{task}-steps input").first
        if not steps.is_visible():
            page.get_by_role("button", name="Sampling").locator("visible=true").click()
        steps.fill("4")
        steps.blur()
        page.locator(f"{task}-run").click()
        page.locator(f"{task}-status").get_by_text("Done in").wait_for()
        page.wait_for_function(playing(f"{task}-video"))
        if with_clip:
            page.wait_for_function(playing(f"{task}-guide"))
        keep(page, f"toyland-{tab.request.task}")
        assert page.errors == []

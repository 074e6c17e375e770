from __future__ import annotations

import gradio as gr
import pytest

from tabs.form import PLAIN, given, required, sections, shown, sizes, widget
from tabs.tasks import TEXT_TO_VIDEO
from text2video_zero.requests import Kind, TextToVideoRequest
from text2video_zero.requests.fields import FILES

OFFERED = (TEXT_TO_VIDEO.request,)
FIELDS = [(request, *declared) for request in OFFERED for declared in request.declarations()]


@pytest.fixture(scope="module")
def widgets():
    """Every widget of every tab that the app offers, by request and field."""
    with gr.Blocks(analytics_enabled=False):
        return {(request, name): widget(name, default, spec, request.task) for request, name, default, spec in FIELDS}


@pytest.fixture(scope="module")
def form(widgets):
    return {name: made for (request, name), made in widgets.items() if request is TextToVideoRequest}


@pytest.mark.parametrize(
    ("request_type", "name", "default", "spec"), FIELDS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_field_has_a_widget_with_the_declared_label_default_and_range(widgets, request_type, name, default, spec):
    made = widgets[request_type, name]
    if spec.kind in FILES:
        assert made.label.startswith(f"{spec.label}: ")
        assert made.value is None
    else:
        assert made.label == spec.label
        assert made.info == (None if name in PLAIN else spec.help)
        assert made.value == shown(default)
    assert made.elem_id == f"{request_type.task}-{name}"
    if spec.kind in {Kind.INTEGER, Kind.DECIMAL}:
        assert (made.minimum, made.maximum, made.step) == (spec.minimum, spec.maximum, spec.step)
    if spec.kind is Kind.CHOICE:
        assert [value for _, value in made.choices] == list(spec.choices)


def test_what_the_untouched_form_shows_makes_the_default_request(form):
    values = given(TextToVideoRequest, {name: made.value for name, made in form.items()})
    assert TextToVideoRequest.from_dict(values | {"prompt": "a fox"}) == TextToVideoRequest(prompt="a fox")


def test_a_range_too_wide_for_a_slider_is_typed(form):
    assert isinstance(form["frames"], gr.Number)
    assert isinstance(form["guidance_scale"], gr.Slider)
    assert isinstance(form["fps"], gr.Number)


@pytest.mark.parametrize("side", [128, 512, 768, 1024])
def test_sizes_of_every_shape_have_the_model_s_area(side):
    for label, size in sizes(side)[1:]:
        width, height = TextToVideoRequest(prompt="a fox", size=size).size
        assert width * height == pytest.approx(side**2, rel=0.13)
        assert ("tall" in label) == (height > width)


def test_the_form_offers_sizes_that_the_request_takes_and_lets_others_be_typed(form):
    made = form["size"]
    assert made.allow_custom_value
    for _, size in made.choices:
        assert shown(TextToVideoRequest(prompt="a fox", size=size).to_dict()["size"]) == size


def test_sections_hold_every_field_once_and_the_required_text_stands_apart():
    first = required(TextToVideoRequest)
    grouped = sections(TextToVideoRequest, leave_out=first)
    names = [name for name, _, _ in TextToVideoRequest.declarations()]
    assert first == ["prompt"]
    assert sorted(first + [name for group in grouped.values() for name in group]) == sorted(names)
    assert next(iter(grouped)) == "Basics"

from __future__ import annotations

import gradio as gr
import pytest

from tabs.form import required_texts, rows, sections, shown, widget
from text2video_zero.requests import REQUESTS, Kind, TextToVideoRequest

FIELDS = [(request, *declared) for request in REQUESTS.values() for declared in request.declarations()]


def widget_of(request, name):
    default, spec = {name: (default, spec) for name, default, spec in request.declarations()}[name]
    with gr.Blocks():
        return widget(name, default, spec, request.task)


@pytest.mark.parametrize(("request_type", "name", "default", "spec"), FIELDS, ids=lambda value: str(value)[:40])
def test_every_field_has_a_widget_with_the_declared_label_default_and_range(request_type, name, default, spec):
    made = widget_of(request_type, name)
    assert made.label == spec.label
    assert made.info == spec.help
    assert made.value == shown(default)
    assert made.elem_id == f"{request_type.task}-{name}"
    if spec.kind in {Kind.INTEGER, Kind.DECIMAL}:
        assert (made.minimum, made.maximum, made.step) == (spec.minimum, spec.maximum, spec.step)
    if spec.kind is Kind.CHOICE:
        assert [value for _, value in made.choices] == list(spec.choices)


def test_what_the_untouched_form_shows_makes_the_default_request():
    values = {name: widget_of(TextToVideoRequest, name).value for name, _, _ in TextToVideoRequest.declarations()}
    assert TextToVideoRequest.from_dict(values | {"prompt": "a fox"}) == TextToVideoRequest(prompt="a fox")


def test_a_range_too_wide_for_a_slider_is_typed():
    assert isinstance(widget_of(TextToVideoRequest, "frames"), gr.Number)
    assert isinstance(widget_of(TextToVideoRequest, "fps"), gr.Slider)


def test_the_form_offers_sizes_that_the_request_takes_and_lets_others_be_typed():
    made = widget_of(TextToVideoRequest, "size")
    assert made.allow_custom_value
    for _, size in made.choices:
        assert shown(TextToVideoRequest(prompt="a fox", size=size).to_dict()["size"]) == size


def test_sections_hold_every_field_once_and_the_required_text_stands_apart():
    first = required_texts(TextToVideoRequest)
    grouped = sections(TextToVideoRequest, leave_out=first)
    names = [name for name, _, _ in TextToVideoRequest.declarations()]
    assert first == ["prompt"]
    assert sorted(first + [name for group in grouped.values() for name in group]) == sorted(names)
    assert next(iter(grouped)) == "Basics"


def test_texts_stand_alone_and_other_fields_in_pairs():
    specs = {name: spec for name, _, spec in TextToVideoRequest.declarations()}
    wanted = ["negative_prompt", "frames", "fps", "prompt", "seed"]
    assert rows({name: specs[name] for name in wanted}) == [
        ["negative_prompt"],
        ["frames", "fps"],
        ["prompt"],
        ["seed"],
    ]

"""Requests: what is declared is what is checked, and every refusal is one sentence with the remedy."""

import dataclasses
import json
import pickle
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from text2video_zero.errors import UserError
from text2video_zero.requests import REQUESTS, FieldSpec, Kind, Size, TextToVideoRequest
from text2video_zero.requests.fields import LONGEST_TEXT, SEED_LIMIT

EVERY_FIELD = [
    pytest.param(default, spec, id=f"{task} {name}")
    for task, request in REQUESTS.items()
    for name, default, spec in request.declarations()
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def valid_values(spec: FieldSpec) -> st.SearchStrategy:
    """What the declaration says it takes."""
    match spec.kind:
        case Kind.TEXT | Kind.CLIP | Kind.PICTURE:
            return st.text(min_size=1).filter(lambda value: bool(value.strip())) if spec.required else st.text()
        case Kind.INTEGER:
            return st.integers(int(spec.minimum), int(spec.maximum))
        case Kind.DECIMAL:
            return st.floats(spec.minimum, spec.maximum)
        case Kind.FLAG:
            return st.booleans()
        case Kind.CHOICE:
            return st.sampled_from(spec.choices)
        case Kind.SIZE:
            sides = st.integers(int(spec.minimum / spec.step), int(spec.maximum / spec.step))
            return st.none() | st.builds(Size, *[sides.map(lambda side: int(side * spec.step))] * 2)


def requests() -> st.SearchStrategy:
    """Any valid text-to-video request."""
    fields = {name: valid_values(spec) for name, _, spec in TextToVideoRequest.declarations()}
    fields["camera_keys"] = st.sampled_from(["", "8: right 0.2 zoom 1.5; 9: hold"])
    fields["storyboard"] = st.just("")
    timesteps = st.tuples(st.integers(1, 998), st.integers(2, 999)).filter(lambda pair: pair[0] < pair[1])
    rates = st.tuples(fields.pop("fps"), fields.pop("play_fps")).filter(lambda pair: not 0 < pair[1] < pair[0])
    return st.builds(
        lambda timesteps, rates, **values: TextToVideoRequest(
            **values
            | dict(zip(("motion_from", "motion_to"), timesteps, strict=True))
            | dict(zip(("fps", "play_fps"), rates, strict=True))
        ),
        timesteps,
        rates,
        **fields,
    )


class TestDeclarations:
    @pytest.mark.parametrize(("default", "spec"), EVERY_FIELD)
    def test_a_form_can_show_it(self, default, spec):
        assert spec.label
        assert spec.section
        assert default is not dataclasses.MISSING
        assert "_" not in spec.label
        assert re.match(r"^\S.*\.$", spec.help), "help is one or more whole sentences"

    @pytest.mark.parametrize(("default", "spec"), EVERY_FIELD)
    def test_its_default_passes_its_own_check_unchanged(self, default, spec):
        if not spec.required:
            checked = spec.checked(default)
            assert checked == default
            assert type(checked) is type(default)

    @pytest.mark.parametrize("request_type", REQUESTS.values())
    def test_labels_are_told_apart(self, request_type):
        labels = [spec.label for _, _, spec in request_type.declarations()]
        assert len(labels) == len(set(labels))

    @pytest.mark.parametrize("request_type", REQUESTS.values())
    def test_a_field_is_declared_by_the_nearest_class_that_names_it(self, request_type):
        """A dataclass with several bases takes fields as one of them inherits them, over another's own."""
        for name, default, spec in request_type.declarations():
            nearest = next(kind for kind in request_type.__mro__ if name in vars(kind).get("__annotations__", {}))
            declared = nearest.__dataclass_fields__[name]
            assert (default, spec) == (declared.default, declared.metadata["spec"]), f"{name} of {nearest.__name__}"

    @pytest.mark.parametrize("task", ["pose", "edge", "depth", "dreambooth", "instruct-pix2pix"])
    def test_the_size_of_a_task_with_a_clip_is_told_by_the_clip(self, task):
        helps = {name: spec.help for name, _, spec in REQUESTS[task].declarations()}
        assert "Blank: the clip's proportions" in helps["size"]

    @pytest.mark.parametrize(("task", "request_type"), REQUESTS.items())
    def test_a_task_goes_by_its_name(self, task, request_type):
        assert request_type.task == task
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", task)

    def test_the_papers_values_are_the_defaults(self):
        request = TextToVideoRequest(prompt="a panda")
        assert (request.frames, request.steps, request.guidance_scale, request.sampler) == (8, 50, 7.5, "DDIM")
        assert (request.motion_from, request.motion_to) == (881, 941)
        assert (request.pan_x, request.pan_y) == pytest.approx((12 / 512, 12 / 512), abs=1e-4)
        assert request.smoothing_strength == 0.6


class TestRequests:
    @given(requests())
    def test_everything_within_the_declaration_is_taken_and_comes_back_from_json(self, request):
        stored = json.loads(json.dumps(request.to_dict()))
        assert TextToVideoRequest.from_dict(stored) == request
        assert TextToVideoRequest.from_dict(stored).to_dict() == request.to_dict()

    @given(requests())
    def test_checking_twice_changes_nothing(self, request):
        assert dataclasses.replace(request) == request

    @given(requests())
    def test_it_can_be_sent_and_used_as_a_key(self, request):
        assert pickle.loads(pickle.dumps(request)) == request  # noqa: S301
        assert hash(request) == hash(dataclasses.replace(request))

    @given(st.data(), st.sampled_from(TextToVideoRequest.declarations()))
    def test_anything_at_all_is_taken_in_its_proper_type_or_refused_in_one_sentence(self, data, declaration):
        name, _, spec = declaration
        value = data.draw(JSON)
        try:
            request = TextToVideoRequest.from_dict({"prompt": "a panda", name: value})
        except UserError as error:
            refusal = str(error)
        else:
            refusal = None
        if refusal is not None:
            assert re.fullmatch(r"[^\n]{10,300}[.]", refusal)
            assert refusal.startswith((spec.label, "The size", "Motion from timestep is"))
            return
        checked = getattr(request, name)
        match spec.kind:
            case Kind.INTEGER | Kind.DECIMAL:
                assert type(checked) is (int if spec.kind is Kind.INTEGER else float)
                assert spec.minimum <= checked <= spec.maximum
            case Kind.SIZE:
                assert checked is None or all(side % spec.step == 0 for side in checked)
            case Kind.CHOICE:
                assert checked in spec.choices
            case Kind.FLAG:
                assert checked is value
            case Kind.TEXT:
                assert checked == value.strip()

    def test_nobody_changes_one(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            TextToVideoRequest(prompt="a panda").seed = 3

    def test_texts_are_trimmed(self):
        assert TextToVideoRequest(prompt="  a panda\n").prompt == "a panda"

    def test_half_characters_become_question_marks(self):
        assert TextToVideoRequest(prompt="a panda \ud83d").prompt == "a panda ?"

    def test_a_drawn_seed_is_concrete_and_repeatable(self):
        drawn = TextToVideoRequest(prompt="a panda").with_concrete_seed()
        assert 0 <= drawn.seed < SEED_LIMIT
        assert drawn.with_concrete_seed() is drawn

    @pytest.mark.parametrize("seed", [0, 1, SEED_LIMIT - 1])
    def test_a_given_seed_stays(self, seed):
        assert TextToVideoRequest(prompt="a panda", seed=seed).with_concrete_seed().seed == seed

    def test_drawn_seeds_differ(self):
        request = TextToVideoRequest(prompt="a panda")
        assert len({request.with_concrete_seed().seed for _ in range(5)}) > 1


class TestSizes:
    @given(st.integers(0, 99999), st.integers(0, 99999), st.sampled_from("x×*X"), st.sampled_from(["", " ", "  "]))
    def test_all_ways_to_write_one(self, width, height, sign, space):
        assert Size.parse(f"{space}{width}{space}{sign}{space}{height}{space}") == (width, height)

    @given(st.text(max_size=12))
    @example("512")
    @example("512x")
    @example("-512x512")
    @example("512x512x512")
    def test_everything_else_is_refused(self, value):
        if not re.fullmatch(r"\s*\d{1,5}\s*[x×*]\s*\d{1,5}\s*", value, re.IGNORECASE):
            with pytest.raises(UserError, match="WIDTHxHEIGHT: write for example 512x512"):
                Size.parse(value)

    @given(st.integers(64, 2048), st.integers(64, 2048))
    def test_the_size_that_is_proposed_is_taken(self, width, height):
        try:
            request = TextToVideoRequest(prompt="a panda", size=(width, height))
        except UserError as error:
            proposed = re.search(r"use (\d+x\d+)\.$", str(error))[1]
            request = TextToVideoRequest(prompt="a panda", size=proposed)
        assert abs(request.size.width - width) <= 4
        assert abs(request.size.height - height) <= 4

    @pytest.mark.parametrize("blank", [None, "", "  "])
    def test_blank_is_the_models_own(self, blank):
        assert TextToVideoRequest(prompt="a panda", size=blank).size is None

    @pytest.mark.parametrize(
        "value",
        [(512.5, 512), (True, True), (512,), (1, 2, 3), 512, {"a": 1, "b": 2}, ("512", "512"), [None, 8], 1e999],
    )
    def test_no_pair_of_whole_numbers(self, value):
        with pytest.raises(UserError, match=r"Size is .*: write for example 512x512"):
            TextToVideoRequest(prompt="a panda", size=value)

    def test_whole_numbers_of_a_browser(self):
        assert TextToVideoRequest(prompt="a panda", size=[512.0, 256.0]).size == Size(512, 256)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": "  "}, "Prompt is empty: write what you want to see."),
        ({"prompt": None}, "Prompt is None: write a text."),
        ({"frames": 0}, "Frames is 0, out of range: give a whole number from 1 to 512."),
        ({"frames": 7.5}, "Frames is 7.5: give a whole number from 1 to 512."),
        ({"frames": "8"}, "Frames is '8': give a whole number from 1 to 512."),
        ({"frames": True}, "Frames is True: give a whole number from 1 to 512."),
        ({"frames": 10**400}, "Frames is 1e+300, out of range: give a whole number from 1 to 512."),
        ({"steps": float("nan")}, "Steps is nan, out of range: give a whole number from 4 to 999."),
        ({"seed": 2**32}, "Seed is 4294967296, out of range: give a whole number from -1 to 4294967295."),
        ({"guidance_scale": 30.001}, "Guidance scale is 30.001, out of range: give a number from 1 to 30."),
        ({"guidance_scale": float("-inf")}, "Guidance scale is -inf, out of range: give a number from 1 to 30."),
        ({"sampler": "ddim"}, "Sampler is 'ddim': choose one of DDIM, DPM++ 2M, UniPC, Euler, DDIM trailing, LCM."),
        ({"motion": "yes"}, "Motion is 'yes': choose yes (true) or no (false)."),
        ({"motion": 1}, "Motion is 1: choose yes (true) or no (false)."),
        ({"size": "512"}, "The size '512' is not of the form WIDTHxHEIGHT: write for example 512x512."),
        ({"size": "500x512"}, "Size is 500x512, but sides must be multiples of 8: use 496x512."),
        ({"size": "32x512"}, "Size is 32x512, but each side must lie between 64 and 2048 pixels."),
        (
            {"play_fps": 4},
            (
                "Play at is 4, below the 8 frames per second that are drawn: lower Frames per second instead, or set "
                "it to 0."
            ),
        ),
        (
            {"motion_from": 950},
            (
                "Motion from timestep is 950 and Motion up to timestep is 941: "
                "the first must be below the second, for example 881 and 941."
            ),
        ),
        ({"fram": 3, "sed": 1}, "text-to-video has no setting fram, sed: remove it from the settings."),
    ],
)
def test_messages_name_the_value_and_the_remedy(values, message):
    with pytest.raises(UserError) as raised:
        TextToVideoRequest.from_dict({"prompt": "a panda"} | values)
    assert str(raised.value) == message


@pytest.mark.parametrize("values", [None, [], "prompt", 3])
def test_settings_that_are_none(values):
    with pytest.raises(UserError, match="give names with their values"):
        TextToVideoRequest.from_dict(values)


def test_long_values_are_cut_in_messages():
    with pytest.raises(UserError) as raised:
        TextToVideoRequest(prompt="a panda", sampler="x" * 10_000)
    assert len(str(raised.value)) < 200


def test_a_text_has_an_end():
    assert TextToVideoRequest(prompt="a" * LONGEST_TEXT).prompt == "a" * LONGEST_TEXT
    with pytest.raises(UserError, match=r"Prompt has 1000000 letters: write at most 5000\."):
        TextToVideoRequest(prompt="a" * 1_000_000)


def test_half_a_character_fits_into_every_answer():
    half = "\ud83d"
    assert TextToVideoRequest(prompt=f"fox {half}").prompt == "fox ?"
    for values in ({"prompt": "fox", half: 1}, {"prompt": "fox", "sampler": half}, {"prompt": "fox", "size": half}):
        with pytest.raises(UserError) as told:
            TextToVideoRequest.from_dict(values)
        assert str(told.value).encode()

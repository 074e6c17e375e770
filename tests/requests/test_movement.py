"""What a prompt has its subject do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2video_zero.job import build_job, control_of, defaults_of
from text2video_zero.models.catalogue import CONTROLNETS, TOYLAND
from text2video_zero.requests import EdgeRequest, TextToVideoRequest
from text2video_zero.requests.idle import unsaid_movement
from text2video_zero.requests.movement import BY_THE_PROMPT, MOVEMENTS, PERSON, Moving, movement_in, movement_of
from text2video_zero.requests.text_to_video import POSES_OPEN


@pytest.mark.parametrize(
    ("prompt", "movement"),
    [
        ("a red panda dancing in the snow", "person dance"),
        ("An Astronaut, who WALKS on the moon", "person walk"),
        ("a person in a jacket waving from the beach", "person wave"),
        ("two robots", None),
        ("a blue robot in the city", "person stand"),
        ("a teddy bear (jumping:1.3) on a bed", "person jump"),
        ("a man with a dog running on the beach", "person run"),
        ("a horse galloping, and a fox walking", "horse run"),
        ("a superhero flying over the city", "person fly"),
        ("a dancing panda", "person stand"),  # who dances is told afterwards
        ("a robot swimming and walking", "person walk"),  # the first of what it can do
        ("walking on the beach", None),
        ("a person on a beach with high waves", "person stand"),
        ("an orange fox in the meadow", "fox stand"),
        ("a kitten dancing", "cat jump"),
        ("a blue fish in the ocean", "fish swim"),
        ("a fish, walking", "fish swim"),
        ("a red car on the street", "car drive"),
        ("a red car parked on the street", "car stand"),
        ("a yellow rocket flying over the moon", "rocket fly"),
        ("a ball bouncing on the beach", "ball jump"),
        ("a ball running down the street", "ball roll"),
        ("", None),
    ],
)
def test_a_prompt_says_who_moves_and_how(prompt, movement):
    found = movement_in(prompt)
    assert (found and f"{found.kind} {found.does}") == movement


@given(prompts=st.lists(st.sampled_from(["a panda dancing", "a robot walking", "a fox", "a tree"]), min_size=1))
def test_several_prompts_must_say_the_same(prompts):
    said = {movement_in(prompt) for prompt in prompts}
    assert movement_of(BY_THE_PROMPT, prompts) == (said.pop() if len(said) == 1 else None)
    kind = "fox" if prompts[0] == "a fox" else PERSON
    assert movement_of("jump", prompts) == Moving(kind, "jump")
    assert movement_of("none", prompts) is None


def request(**changes) -> TextToVideoRequest:
    return TextToVideoRequest(**{"prompt": "a red panda dancing", "movement": BY_THE_PROMPT} | changes)


def done(**changes) -> list[str]:
    return [moving.does for moving in request(**changes).movements]


def test_it_is_off_unless_it_is_asked_for_and_in_a_picture_that_the_person_brings():
    assert TextToVideoRequest(prompt="a panda dancing").movements == ()
    assert done() == ["dance"]
    assert done(prompt="a tree dancing") == []
    assert done(start_picture="me.png") == []
    assert done(storyboard="4: a panda dancing on the beach") == ["dance"]
    assert done(storyboard="4: a fox on the beach") == []
    assert done(storyboard="4: a robot walking") == []  # one turns into the other


def test_each_shot_has_its_own_where_all_have_one():
    assert done(storyboard="4: a robot walking", shot_anchors=True) == ["dance", "walk"]
    assert done(storyboard="4: a robot walking; 40: a tree", shot_anchors=True) == ["dance", "walk"]
    assert done(storyboard="4: a robot walking; 6: a tree", shot_anchors=True) == []
    assert done(storyboard="4: a tree", shot_anchors=True, movement="jump") == ["jump", "jump"]
    board = request(storyboard="4: a fox walking", shot_anchors=True)
    assert board.movements == (Moving(PERSON, "dance"), Moving("fox", "walk"))


def test_frames_go_together_from_where_poses_are_open_and_no_later():
    assert request(motion_from=181, motion_to=281).together_from == POSES_OPEN
    assert request(prompt="a tree", motion_from=181, motion_to=281).together_from == 281
    assert request(motion_from=881, motion_to=941).together_from == 941


def test_toyland_does_what_its_prompt_says_and_the_paper_does_not():
    asked = {"prompt": "a red panda dancing in the snow"}
    assert defaults_of("text-to-video", TOYLAND.name)["movement"] == BY_THE_PROMPT
    assert build_job("text-to-video", asked).checkpoint.controlnet == CONTROLNETS["toyland"]["pose"]
    assert build_job("text-to-video", asked, preset="draft").checkpoint.controlnet == CONTROLNETS["toyland"]["pose"]
    for job in (
        build_job("text-to-video", asked, preset="paper"),
        build_job("text-to-video", asked, model="sd-1.5"),
    ):
        assert job.request.movements == ()
        assert job.checkpoint.controlnet is None


@pytest.mark.parametrize("movement", MOVEMENTS[2:])
def test_stable_diffusion_takes_its_controlnet_for_poses(movement):
    job = build_job("text-to-video", {"prompt": "a knight", "movement": movement}, model="sd-1.5")
    assert job.checkpoint.controlnet == CONTROLNETS["sd1"]["pose"]
    assert control_of(job.request) == "pose"


def test_each_task_says_which_control_it_has():
    assert control_of(EdgeRequest(prompt="a fox", clip="a.mp4")) == "edge"
    assert control_of(request(movement="none")) is None


def test_stable_diffusion_s_controlnet_knows_people_alone():
    asked = {"prompt": "a fox walking", "movement": BY_THE_PROMPT}
    toyland, other = build_job("text-to-video", asked), build_job("text-to-video", asked, model="sd-1.5")
    assert toyland.request.movements == (Moving("fox", "walk"),)
    assert not toyland.remarks
    assert other.request.movements == ()
    assert other.checkpoint.controlnet is None
    assert "know people, not how a fox moves, so that nothing but the camera does" in other.remarks
    chosen = build_job("text-to-video", {"prompt": "a rocket", "movement": "walk"}, model="sd-1.5")
    assert chosen.request.movement == "none"


def test_a_prompt_that_was_to_say_it_and_does_not_is_told():
    unsaid = request(prompt="a tree")
    assert "nothing but the camera moves" in unsaid_movement(unsaid, ["movement"])
    assert not unsaid_movement(unsaid, [])
    assert not unsaid_movement(request(), ["movement"])
    asked = {"prompt": "a tree", "movement": BY_THE_PROMPT}
    assert "names nobody who could move" in build_job("text-to-video", asked, model="sd-1.5").remarks
    assert not build_job("text-to-video", {"prompt": "an orange tree"}).remarks


def test_who_cannot_do_what_is_chosen_does_the_usual_and_it_is_told():
    job = build_job("text-to-video", {"prompt": "an orange fox", "movement": "wave"})
    assert job.request.movements == (Moving("fox", "stand"),)
    assert "a fox cannot wave; it is made to stand" in job.remarks
    assert not build_job("text-to-video", {"prompt": "an orange fox", "movement": "run"}).remarks

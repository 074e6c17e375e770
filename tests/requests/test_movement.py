"""What a prompt has its subject do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2video_zero.job import build_job, control_of, defaults_of
from text2video_zero.models.catalogue import CONTROLNETS, TOYLAND
from text2video_zero.requests import EdgeRequest, TextToVideoRequest
from text2video_zero.requests.idle import unsaid_movement
from text2video_zero.requests.movement import BY_THE_PROMPT, MOVEMENTS, movement_in, movement_of
from text2video_zero.requests.text_to_video import POSES_OPEN


@pytest.mark.parametrize(
    ("prompt", "movement"),
    [
        ("a red panda dancing in the snow", "dance"),
        ("An Astronaut, who WALKS on the moon", "walk"),
        ("a person in a jacket waving from the beach", "wave"),
        ("two robots", None),
        ("a blue robot in the city", "stand"),
        ("a teddy bear (jumping:1.3) on a bed", "jump"),
        ("a man with a dog running on the beach", "run"),
        ("a horse galloping, and a fox walking", None),
        ("a superhero flying over the city", "fly"),
        ("a dancing panda", "stand"),  # who dances is told afterwards
        ("walking on the beach", None),
        ("a person on a beach with high waves", "stand"),
        ("", None),
    ],
)
def test_a_prompt_says_it_of_somebody_on_two_legs(prompt, movement):
    assert movement_in(prompt) == movement


@given(prompts=st.lists(st.sampled_from(["a panda dancing", "a robot walking", "a fox"]), min_size=1))
def test_several_prompts_must_say_the_same(prompts):
    said = {movement_in(prompt) for prompt in prompts}
    assert movement_of(BY_THE_PROMPT, prompts) == (said.pop() if len(said) == 1 else None)
    assert movement_of("wave", prompts) == "wave"
    assert movement_of("none", prompts) is None


def request(**changes) -> TextToVideoRequest:
    return TextToVideoRequest(**{"prompt": "a red panda dancing", "movement": BY_THE_PROMPT} | changes)


def test_it_is_off_unless_it_is_asked_for_and_in_a_picture_that_the_person_brings():
    assert TextToVideoRequest(prompt="a panda dancing").movements == ()
    assert request().movements == ("dance",)
    assert request(prompt="a fox dancing").movements == ()
    assert request(start_picture="me.png").movements == ()
    assert request(storyboard="4: a panda dancing on the beach").movements == ("dance",)
    assert request(storyboard="4: a fox on the beach").movements == ()
    assert request(storyboard="4: a robot walking").movements == ()  # one turns into the other


def test_each_shot_has_its_own_where_all_have_one():
    assert request(storyboard="4: a robot walking", shot_anchors=True).movements == ("dance", "walk")
    assert request(storyboard="4: a robot walking; 40: a fox", shot_anchors=True).movements == ("dance", "walk")
    assert request(storyboard="4: a robot walking; 6: a fox", shot_anchors=True).movements == ()
    assert request(storyboard="4: a fox", shot_anchors=True, movement="jump").movements == ("jump", "jump")


def test_frames_go_together_from_where_poses_are_open_and_no_later():
    assert request(motion_from=181, motion_to=281).together_from == POSES_OPEN
    assert request(prompt="a fox", motion_from=181, motion_to=281).together_from == 281
    assert request(motion_from=881, motion_to=941).together_from == 941


def test_toyland_does_what_its_prompt_says_and_the_paper_does_not():
    asked = {"prompt": "a red panda dancing in the snow"}
    assert defaults_of("text-to-video", TOYLAND.name)["movement"] == BY_THE_PROMPT
    assert build_job("text-to-video", asked).checkpoint.controlnet == CONTROLNETS["toyland"]["pose"]
    assert build_job("text-to-video", asked, preset="draft").checkpoint.controlnet == CONTROLNETS["toyland"]["pose"]
    for job in (
        build_job("text-to-video", asked, preset="paper"),
        build_job("text-to-video", {"prompt": "an orange fox walking in the meadow"}),
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


def test_a_prompt_that_was_to_say_it_and_does_not_is_told():
    unsaid = request(prompt="a fox")
    assert "nothing but the camera moves" in unsaid_movement(unsaid, ["movement"])
    assert not unsaid_movement(unsaid, [])
    assert not unsaid_movement(request(), ["movement"])
    asked = {"prompt": "a fox", "movement": BY_THE_PROMPT}
    assert "names nobody on two legs" in build_job("text-to-video", asked, model="sd-1.5").remarks
    assert not build_job("text-to-video", {"prompt": "an orange fox"}).remarks

"""Parts of a clip that workers make apart: put one behind the other they are the clip that one makes alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from text2video_zero.events import Finished, Preview, Progress
from text2video_zero.generate import generate, sample
from text2video_zero.generators import result_of
from text2video_zero.requests import EdgeRequest, TextToVideoRequest
from text2video_zero.sampling.share import WHOLE, Share, can_be_shared
from text2video_zero.tasks.finishing import joined

# Not those with the tests' random LoRA, which amplifies what is rounded.
KINDS = ("text", "text, XL", "pose", "edge", "edge, XL", "edit")
REQUEST = TextToVideoRequest(prompt="a red fox", frames=5, steps=4, seed=5, size="64x64")


@given(st.integers(1, 600), st.integers(1, 40))
def test_parts_hold_every_frame_once_in_order_and_are_even(frames, of):
    parts = [Share(number, of).frames(frames) for number in range(of)]
    assert [frame for part in parts for frame in part] == list(range(frames))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def latents_of(request, lent, manager, share=WHOLE):
    with torch.inference_mode():
        return result_of(sample(request, lent, manager, share=share)).latents


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_the_clip_for_every_task(orders, manager, kind):
    checkpoint, request = orders[kind]
    request = dataclasses.replace(request, frames=5 if isinstance(request, TextToVideoRequest) else 3)
    with manager.lend(checkpoint) as lent:
        whole = latents_of(request, lent, manager)
        parts = [latents_of(request, lent, manager, Share(number, 3)) for number in range(3)]
    assert len(whole) == request.frames
    assert [len(part) for part in parts] == [len(Share(number, 3).frames(len(whole))) for number in range(3)]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"motion": False},
        {"sampler": "UniPC"},
        {"sampler": "LCM", "guidance_scale": 1.0},
        {"storyboard": "2: a blue robot"},
        {"storyboard": "2: a blue robot", "shot_anchors": True},
        {"storyboard": "1: a blue robot; 4: the moon", "shot_anchors": True, "chunk_size": 1},
        {"cross_frame_attention": False},
        {"loop": True, "motion_smoothness": 2.0, "resampling": "white"},
        {"chunk_size": 2},
        {"token_merging": 0.5},
        {"guidance_end": 0.5},
        {"restart": True},
        {"cache_interval": 2},
    ],
    ids=str,
)
def test_parts_are_the_clip_for_every_option(pipeline, changes):
    request = dataclasses.replace(REQUEST, **changes)
    whole = latents_of(request, pipeline, None)
    parts = [latents_of(request, pipeline, None, Share(number, 3)) for number in range(3)]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-4)


def test_a_part_samples_its_own_frames_and_the_anchor(pipeline):
    batches = []
    handle = pipeline.components.unet.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    request = dataclasses.replace(REQUEST, frames=9, motion=False, guidance_scale=1.0, chunk_size=9)
    for number, expected in enumerate([[3], [1, 3], [1, 3]]):
        batches.clear()
        latents_of(request, pipeline, None, Share(number, 3))
        assert batches == expected * request.steps
    handle.remove()


@pytest.mark.parametrize("changes", [{}, {"storyboard": "2: a blue robot", "shot_anchors": True}], ids=str)
def test_videos_of_the_parts_make_the_video_with_its_frames_in_between_and_settings(pipeline, changes):
    pan = {"pan_x": 0.3 / 8, "pan_y": 0.0, "cell_step": 2}  # edges of which the first frame of a shot has more
    request = dataclasses.replace(REQUEST, frames=6, play_fps=16, fps=8, **pan, **changes)
    *_, whole = generate(request, pipeline)
    events = [list(generate(request, pipeline, share=Share(number, 2))) for number in range(2)]
    firsts = len(request.shots)
    assert all(len(event.frames) in {firsts, 3} for part in events for event in part if isinstance(event, Preview))
    videos = [part[-1].video for part in events]
    assert [len(video.frames) for video in videos] == [3, 3]
    *steps, finished = joined(request, videos)
    assert all(isinstance(event, Progress) for event in steps)
    assert isinstance(finished, Finished)
    assert (finished.video.fps, finished.video.settings) == (whole.video.fps, whole.video.settings)
    apart = np.abs(np.asarray(finished.video.frames).astype(int) - np.asarray(whole.video.frames))
    assert apart.max() <= 1


def test_a_part_that_a_short_clip_has_no_frames_for_ends_without_a_video(orders, manager):
    checkpoint, request = orders["edit"]
    request = dataclasses.replace(request, frames=8)  # the clip has three
    with manager.lend(checkpoint) as lent:
        made = [list(generate(request, lent, manager, share=Share(number, 4)))[-1] for number in range(4)]
    videos = [event.video for event in made if isinstance(event, Finished)]
    assert [len(video.frames) for video in videos] == [1, 1, 1]


@pytest.mark.parametrize(
    "changes", [{"smooth_background": True}, {"parallax": 0.5}, {"reference_frames": "first + previous"}], ids=str
)
def test_what_hangs_on_other_frames_cannot_be_shared(pipeline, changes):
    request = dataclasses.replace(REQUEST, **changes)
    assert not can_be_shared(request)
    with pytest.raises(ValueError, match="hang on each other"):
        latents_of(request, pipeline, None, Share(0, 2))
    assert can_be_shared(REQUEST)
    assert can_be_shared(EdgeRequest(prompt="a fox", clip="a.mp4"))

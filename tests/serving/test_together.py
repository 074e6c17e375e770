"""Parts of a video that several workers make, told as one run."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

from serving.runners.together import FRAMES_APIECE, Together, useful_workers
from text2video_zero.device.memory_plan import placement_for
from text2video_zero.events import ClipFrames, Finished, Notice, Preview, Progress
from text2video_zero.job import Job
from text2video_zero.media.video import Video
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.requests import EdgeRequest, Size, TextToVideoRequest
from text2video_zero.sampling.preview import LatentRGB, TinyDecoder

REQUEST = TextToVideoRequest(prompt="a fox", frames=4 * FRAMES_APIECE, steps=4, seed=3)


def job(request=REQUEST, **more):
    return Job(request, Checkpoint("a"), **more)


def told(together, number, event):
    return list(together.heard(number, event))


def frames(count, shade=0):
    return np.full((count, 2, 2, 3), shade, np.uint8)


@pytest.mark.parametrize(
    ("changes", "workers"),
    [({}, 4), ({"frames": 8}, 1), ({"frames": 1}, 1), ({"smooth_background": True}, 1), ({"parallax": 0.5}, 1)],
    ids=str,
)
def test_more_workers_are_of_use_where_frames_do_not_hang_on_each_other(changes, workers):
    assert useful_workers(job(dataclasses.replace(REQUEST, **changes))) == workers


def test_maps_alone_are_made_by_one():
    assert useful_workers(job(EdgeRequest(prompt="a fox", clip="a.mp4", frames=64), maps_only=True)) == 1


def test_the_slowest_part_says_how_far_all_are():
    together = Together(2)
    first, second = Progress("Denoising", 5, 10), Progress("Denoising", 2, 10)
    assert told(together, 0, Progress("Loading", 0, 1)) == [Progress("Loading", 0, 1)]
    assert told(together, 1, second) == [Progress("Loading", 0, 1)]
    assert told(together, 0, first) == [second]
    assert told(together, 1, Progress("Decoding", 1, 4)) == [first]


def test_a_part_that_is_done_is_not_waited_for():
    together = Together(2)
    told(together, 0, Progress("Denoising", 1, 10))
    assert told(together, 0, Finished(Video(frames(1), 8, {}))) == []
    assert told(together, 1, Progress("Denoising", 7, 10)) == [Progress("Denoising", 7, 10)]


def test_a_part_that_ends_without_frames_is_not_waited_for():
    together = Together(3)
    told(together, 1, Progress("Reading the clip", 0, 1))
    told(together, 0, Preview(frames(1)))
    together.ended(1)
    assert told(together, 0, Progress("Denoising", 7, 10)) == [Progress("Denoising", 7, 10)]
    [preview] = told(together, 2, Preview(frames(1, shade=9)))
    together.ended(0)
    assert preview.frames[:, 0, 0, 0].tolist() == [0, 9]
    [preview] = told(together, 2, Preview(frames(1, shade=7)))
    assert preview.frames[:, 0, 0, 0].tolist() == [0, 7]


def test_previews_stand_behind_each_other_once_all_parts_have_one():
    together = Together(2)
    assert told(together, 1, Preview(frames(2, shade=9))) == []
    [preview] = told(together, 0, Preview(frames(3)))
    assert preview.frames[:, 0, 0, 0].tolist() == [0, 0, 0, 9, 9]


@torch.inference_mode()
def test_previews_of_two_sizes_are_shown_at_the_smaller():
    """Of 49 frames on two workers the first decodes 24, and the second's 25 are more than are decoded."""
    together = Together(2)
    blocks = {f"{half}_block_out_channels": (4,) * 4 for half in ("encoder", "decoder")}
    layers = {f"num_{half}_blocks": (1,) * 4 for half in ("encoder", "decoder")}
    linear = LatentRGB(np.ones((4, 3)), np.zeros(3))
    decoder = TinyDecoder(AutoencoderTiny(**blocks, **layers), linear)
    latents = torch.rand(49, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    first, second = (decoder.frames(latents[share]) for share in (slice(24), slice(24, 49)))
    told(together, 0, Preview(first))
    [preview] = told(together, 1, Preview(second))
    assert (first.shape, second.shape) == ((24, 48, 64, 3), (25, 6, 8, 3))
    assert np.array_equal(preview.frames, np.concatenate([first[:, ::8, ::8], second]))


def test_videos_come_in_the_order_of_their_frames_and_parts_without_frames_are_left_out():
    together = Together(3)
    last, first = Video(frames(1), 8, {}), Video(frames(2), 8, {})
    told(together, 2, Finished(last))
    told(together, 0, Finished(first))
    assert together.videos == [first, last]


def test_the_first_alone_tells_of_its_machine(pipeline):
    """Each has other memory free, so that no two sentences are equal."""
    together = Together(2)
    [plan] = placement_for(REQUEST, Size(64, 64), pipeline)
    assert [told(together, number, plan) for number in (1, 0)] == [[], [plan]]


def test_what_all_say_is_said_once():
    together = Together(2)
    notice, clip = Notice("The clip as it is used: cut."), ClipFrames(frames(2))
    assert [told(together, number, notice) for number in (0, 1)] == [[notice], []]
    assert [told(together, number, clip) for number in (1, 0)] == [[], [clip]]

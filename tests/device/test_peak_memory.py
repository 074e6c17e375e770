"""Peak memory does not grow with the number of frames."""

from __future__ import annotations

import argparse
import tracemalloc

import pytest
import torch

from benchmarks.memory import MIB, measured_apart
from text2video_zero.generate import generate
from text2video_zero.requests import TextToVideoRequest

FEW, MANY = 16, 64


def apart(task, frames, device):
    arguments = argparse.Namespace(model="toyland", device=device, steps=4)
    return measured_apart(task, frames, 4, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["text-to-video", "edge"])
def test_the_process_stays_as_large_as_it_is(task):
    few, many = (apart(task, frames, "cpu") for frames in (FEW, MANY))
    assert (few["frames"], many["frames"]) == (FEW, MANY)
    assert few["resident"] > 100 * MIB
    assert many["resident"] <= 1.05 * few["resident"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("task", ["text-to-video", "edge"])
def test_so_do_the_tensors_on_a_gpu(task):
    few, many = (apart(task, frames, "cuda") for frames in (FEW, MANY))
    assert many["cuda"] <= 1.05 * few["cuda"]


def test_finished_frames_are_not_held(pipeline):
    peaks = {}
    for frames in (FEW, MANY):
        request = TextToVideoRequest(prompt="a red fox", frames=frames, steps=4, seed=1, chunk_size=4)
        list(generate(TextToVideoRequest(prompt="a red fox", frames=1, steps=4, seed=1), pipeline))  # what is cached
        tracemalloc.start()
        for event in generate(request, pipeline):
            last = event
        peaks[frames] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    _, *picture = last.video.frames.shape
    height, width, colours = picture
    assert peaks[MANY] - peaks[FEW] < (MANY - FEW) * height * width * colours / 2

"""Noise that is carried along a clip, on clips whose motion is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.evaluation.moving import panned, texture
from text2video_zero.sampling.motion.carried import CarriedNoise
from text2video_zero.sampling.noise import frame_noise

CELLS = 12  # of 8 pixels


def carried(frames):
    return CarriedNoise.along(frames, CELLS, CELLS)


def test_a_still_clip_has_one_noise_for_all_frames():
    noise = carried(panned(3, 0, side=96))
    for frame in range(3):
        assert torch.equal(noise.noise(7, 4)[frame], frame_noise(7, 0, (4, CELLS, CELLS), "cpu"))


@pytest.mark.parametrize("pixels", [8, 4, 2])
def test_noise_goes_with_an_even_motion_also_where_it_is_less_than_a_cell(pixels):
    frames = panned(9, pixels, side=96)
    found, first = carried(frames), frame_noise(7, 0, (4, CELLS, CELLS), "cpu")
    cells = 8 * pixels // 8
    last = found.noise(7, 4)[8]
    kept = (last[:, 1:-1, 1 : CELLS - cells - 1] == first[:, 1:-1, 1 + cells : -1]).float().mean()
    assert kept > 0.75


def test_what_comes_into_the_picture_is_new_and_of_its_frame():
    found = carried(panned(3, 8, side=96))
    assert (found.births[1, :, -1] == 1).all()
    assert (found.births[2, :, -1] == 2).all()
    assert (found.births[2, :, 1:8] == 0).mean() > 0.9


def test_after_a_cut_all_is_new():
    frames = np.stack([texture(96, 96, seed=1), 255 - texture(96, 96, seed=9)])
    assert (carried(frames).births[1] == 1).mean() > 0.4


def test_no_noise_is_shown_twice_so_that_it_stays_white():
    rng = np.random.default_rng(0)
    frames = np.stack([texture(96, 96, seed=seed) for seed in rng.integers(0, 99, 5)])  # anything but a motion
    found = carried(frames)
    for births, places in zip(found.births, found.places, strict=True):
        assert len(set(zip(births.ravel().tolist(), places.ravel().tolist(), strict=True))) == CELLS**2
    noise = torch.stack([found.noise(seed, 4)[4] for seed in range(200)])
    assert noise.std() == pytest.approx(1, abs=0.01)
    assert abs((noise[..., 1:] * noise[..., :-1]).mean()) < 0.01


def test_longer_clips_begin_with_shorter_ones():
    frames = panned(6, 3, side=96)
    shorter, longer = carried(frames[:3]), carried(frames)
    assert np.array_equal(longer.births[:3], shorter.births)
    assert np.array_equal(longer.places[:3], shorter.places)


def test_every_draw_is_carried_the_same_way():
    found = carried(panned(2, 8, side=96))
    one, other = (found.noise(7, 4, draw)[1] for draw in (0, 3))
    assert not torch.equal(one, other)
    own = frame_noise(7, 0, (4, CELLS, CELLS), "cpu", 3)
    assert torch.equal(other[:, 3, 3], own[:, 3, 4])

"""Frames in between, on clips whose true ones are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.evaluation.moving import panned, texture
from text2video_zero.media.between import resampled

EDGE = 16  # pixels that come into the picture, and cannot be known in between


def error(made, true):
    """Mean absolute difference of 255, away from the edges."""
    return np.abs(made.astype(float) - true)[:, EDGE:-EDGE, EDGE:-EDGE].mean()


def filmed(frames, fps, play_fps, **options):
    return np.stack(list(resampled(frames, fps, play_fps, **options)))


def test_frames_in_between_are_where_an_even_motion_is():
    true = panned(13, 2, side=96)
    made = filmed(true[::4], 2, 8)
    assert len(made) == 16
    assert np.array_equal(made[:13:4], true[::4])
    assert error(made[:13], true) < 1.5
    assert error(true[:12:4].repeat(4, 0), true[:12]) > 15


def test_the_clip_is_as_long_as_before():
    frames = panned(8, 1)
    assert len(filmed(frames, 8, 24)) == 24
    assert len(filmed(frames, 8, 12)) == 12
    assert len(filmed(frames[:1], 8, 24)) == 3
    assert len(filmed(frames[:1], 8, 1)) == 1


def test_the_same_rate_changes_nothing():
    frames = panned(5, 2)
    assert np.array_equal(filmed(frames, 8, 8), frames)


def test_a_lower_rate_leaves_frames_out():
    frames = panned(8, 1)
    assert np.array_equal(filmed(frames, 8, 4), frames[::2])


def test_the_last_frame_stays_unless_the_clip_is_a_loop():
    frames = panned(4, 2)
    stays = filmed(frames, 8, 16)
    assert np.array_equal(stays[-1], frames[-1])
    there_and_back = np.concatenate([frames, frames[2:0:-1]])
    loops = filmed(there_and_back, 8, 16, loop=True)
    assert not np.array_equal(loops[-1], there_and_back[-1])
    assert error(loops[-1:], loops[1:2]) < 4  # half-way between frames 0 and 1, on the way back as on the way out


def test_what_is_covered_is_not_seen_twice():
    """A disc goes 16 pixels to the right over a still picture: half-way there is one disc, and no ghost at its ends."""
    ground = texture(96, 96) // 4 + 40

    def with_disc(x):
        return cv2.circle(ground.copy(), (x, 48), 12, (250, 250, 250), -1, cv2.LINE_AA)

    made = filmed(np.stack([with_disc(36), with_disc(52)]), 1, 2)[1]
    bright = (made.min(-1) > 200).sum()
    assert bright == pytest.approx((with_disc(44).min(-1) > 200).sum(), rel=0.25)
    assert (
        np.abs(made.astype(int) - with_disc(44)).mean() < 0.6 * np.abs(with_disc(36).astype(int) - with_disc(44)).mean()
    )


def test_a_cut_is_no_mixture():
    one, other = texture(64, 64, seed=1), 255 - texture(64, 64, seed=9)
    made = filmed(np.stack([one, other]), 2, 8)
    mixed = one.astype(float) * 0.75 + other * 0.25
    assert np.abs(made[1].astype(float) - one).mean() < np.abs(made[1] - mixed).mean()

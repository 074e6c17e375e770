"""Whiteness of noise whose answer is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from text2video_zero.evaluation.whiteness import Whiteness


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).normal(size=(16, 4, 32, 32)).astype(np.float32)


def test_white_noise_is_white(noise):
    found = Whiteness.of(noise)
    assert found.lag < 0.01
    assert found.deviation == pytest.approx(1, abs=0.01)
    assert found.bands == pytest.approx((1, 1, 1), abs=0.02)


def test_blurred_noise_has_neighbours_that_are_alike_and_few_high_frequencies(noise):
    blurred = np.stack([cv2.GaussianBlur(one.transpose(1, 2, 0), (0, 0), 1) for one in noise]).transpose(0, 3, 1, 2)
    found = Whiteness.of(blurred)
    assert found.lag > 0.04
    assert found.deviation < 0.4
    assert found.bands[0] > 5 * found.bands[2]


def test_louder_noise_is_louder_in_every_band(noise):
    assert Whiteness.of(2 * noise).bands == pytest.approx((2, 2, 2), abs=0.04)

"""The Fréchet distance: nothing to itself, the shift to a shifted set, the formula where it is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_toyland import TINY
from toyland.judges.frechet import features_of, frechet_distance
from toyland.judges.judge import build_judge


def drawn(count: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(2, 40), st.integers(2, 12), st.integers(0, 99))
def test_a_set_is_at_no_distance_from_itself(count, width, seed):
    features = drawn(count, width, seed)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)


@given(st.integers(0, 99), st.floats(-5, 5))
def test_a_shift_counts_by_its_square(seed, length):
    features = drawn(30, 6, seed)
    shift = torch.zeros(6, dtype=torch.float64)
    shift[seed % 6] = length
    assert frechet_distance(features, features + shift) == pytest.approx(length**2, abs=1e-6)


def test_it_is_the_same_both_ways_and_known_where_spreads_share_their_axes():
    one, other = drawn(50, 5, 1), drawn(40, 5, 2)
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one))
    assert frechet_distance(one, other) > 0.1
    # Three times the spread on all axes: tr(Σ + 9 Σ - 2·3 Σ) = 4 tr Σ.
    centred = one - one.mean(0)
    assert frechet_distance(centred, 3 * centred) == pytest.approx(4 * one.T.cov().trace().item())


def test_features_are_those_that_the_heads_are_given():
    judge = build_judge(TINY).eval()
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    features = features_of(judge, images, batch=2)
    assert features.shape == (5, 2 * TINY.judge_channels[-1])
    assert features.dtype == torch.float64

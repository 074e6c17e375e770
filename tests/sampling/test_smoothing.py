"""Background smoothing: the formula, its ends, and what it never touches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from text2video_zero.sampling.motion.camera import CameraPath
from text2video_zero.sampling.motion.warp import warp
from text2video_zero.sampling.smoothing import dilated, smoothed_latents

RESAMPLING = ("smooth", "nearest")


@st.composite
def clips(draw):
    """Latents (f, 4, h, w), masks (f, h, w) and poses of some clip."""
    frames, height, width = draw(st.integers(1, 4)), draw(st.integers(4, 18)), draw(st.integers(4, 18))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    latents = torch.from_numpy(rng.standard_normal((frames, 4, height, width), np.float32))
    covered = draw(st.sampled_from((0, 0.05, 0.3)))
    masks = torch.from_numpy((rng.random((frames, height, width)) < covered).astype(np.float32))
    speeds = [draw(st.floats(-bound, bound)) for bound in (0.1, 0.1, 0.05, 0.02)]
    path = CameraPath(*speeds, reach=0.25)
    return latents, masks, [path.pose(frame) for frame in range(frames)]


def carried(masks, pose):
    return warp(dilated(masks)[:1], pose, "nearest")[0]


@settings(max_examples=25, deadline=None)
@given(clips(), st.sampled_from(RESAMPLING))
def test_strength_zero_changes_nothing(clip, resampling):
    assert torch.equal(smoothed_latents(*clip, 0.0, resampling), clip[0])


@settings(max_examples=25, deadline=None)
@given(clips(), st.sampled_from(RESAMPLING))
def test_at_strength_one_the_background_is_the_first_frame_moved(clip, resampling):
    latents, masks, poses = clip
    smoothed = smoothed_latents(*clip, 1.0, resampling)
    for number, pose in enumerate(poses):
        background = (dilated(masks)[number] == 0) & (carried(masks, pose) == 0)
        assert torch.equal(smoothed[number][:, background], warp(latents[0], pose, resampling)[:, background])


@settings(max_examples=25, deadline=None)
@given(clips(), st.floats(0, 1), st.sampled_from(RESAMPLING))
def test_foreground_is_untouched_also_where_the_first_one_is_carried(clip, strength, resampling):
    latents, masks, poses = clip
    smoothed = smoothed_latents(*clip, strength, resampling)
    for number, pose in enumerate(poses):
        foreground = (dilated(masks)[number] == 1) | (carried(masks, pose) == 1)
        assert torch.equal(smoothed[number][:, foreground], latents[number][:, foreground])


@settings(max_examples=25, deadline=None)
@given(clips(), st.floats(0, 1), st.sampled_from(RESAMPLING))
def test_is_the_papers_equation(clip, strength, resampling):
    latents, masks, poses = clip
    smoothed = smoothed_latents(*clip, strength, resampling)
    for number, pose in enumerate(poses):
        foreground = torch.maximum(dilated(masks)[number], carried(masks, pose))
        moved = warp(latents[0], pose, resampling)
        mixed = strength * moved + (1 - strength) * latents[number]
        assert torch.allclose(smoothed[number], foreground * latents[number] + (1 - foreground) * mixed, atol=1e-5)


def test_the_first_frame_stays_as_it_is():
    latents = torch.randn(3, 4, 8, 8)
    poses = [CameraPath(0.1, 0, 0, 0, 1).pose(frame) for frame in range(3)]
    for resampling in RESAMPLING:
        smoothed = smoothed_latents(latents, torch.zeros(3, 8, 8), poses, 0.6, resampling)
        assert torch.equal(smoothed[0], latents[0])


def test_a_half_certain_mask_takes_half_the_share():
    latents = torch.randn(2, 4, 8, 8)
    poses = [CameraPath(0, 0, 0, 0, 1).pose(0)] * 2
    masks = torch.stack([torch.zeros(8, 8), torch.full((8, 8), 0.5)])
    half = smoothed_latents(latents, masks, poses, 0.8)
    assert torch.allclose(half, smoothed_latents(latents, torch.zeros(2, 8, 8), poses, 0.4), atol=1e-6)


@pytest.mark.parametrize(
    ("grid", "side"), [((8, 8), 3), ((16, 16), 3), ((32, 32), 3), ((64, 64), 5), ((96, 64), 5), ((128, 128), 9)]
)
def test_a_cell_grows_in_proportion_to_the_grid(grid, side):
    mask = torch.zeros(1, *grid)
    mask[0, grid[0] // 2, grid[1] // 2] = 1
    grown = dilated(mask)
    assert grown.shape == mask.shape
    assert grown.sum() == side**2
    top, left = grid[0] // 2 - side // 2, grid[1] // 2 - side // 2
    assert grown[0, top : top + side, left : left + side].all()


@given(clips())
@settings(max_examples=25, deadline=None)
def test_growing_never_loses_a_cell(clip):
    masks = clip[1]
    assert (dilated(masks) >= masks).all()
    assert not dilated(torch.zeros_like(masks)).any()

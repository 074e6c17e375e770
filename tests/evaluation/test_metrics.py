"""Metrics of masks and of steadiness, on pictures whose answer is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from text2video_zero.evaluation.metrics import (
    flow_warp_error,
    iou,
    occluded,
    optical_flow,
    pose_warp_error,
    warped_along,
)
from text2video_zero.sampling.motion.camera import CameraPath
from text2video_zero.sampling.motion.warp import warp

MASKS = arrays.arrays(np.bool_, (5, 6))


def texture(height, width, seed=0):
    """A picture that optical flow can follow, (h, w, 3) uint8."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((height, width, 3)), (0, 0), 2.5)
    return np.round((noise - noise.min()) / (noise.max() - noise.min()) * 255).astype(np.uint8)


def panned(frames, pixels, side=64):
    """A window that moves over a texture: what it shows is known to move the other way."""
    wide = texture(side, side + frames * pixels)
    return np.stack([wide[:, k * pixels : k * pixels + side] for k in range(frames)])


class TestIoU:
    @given(MASKS, MASKS)
    def test_is_symmetric_within_bounds_and_one_for_equals(self, mask, truth):
        assert 0 <= iou(mask, truth) <= 1
        assert iou(mask, truth) == iou(truth, mask)
        assert iou(mask, mask) == 1
        assert (iou(mask, truth) == 1) == np.array_equal(mask, truth)

    @given(MASKS, MASKS)
    def test_is_the_definition(self, mask, truth):
        cells = {(int(y), int(x)) for y, x in np.argwhere(mask)}, {(int(y), int(x)) for y, x in np.argwhere(truth)}
        if cells[0] | cells[1]:
            assert iou(mask, truth) == pytest.approx(len(cells[0] & cells[1]) / len(cells[0] | cells[1]))

    def test_takes_soft_masks(self):
        assert iou(np.array([0.2, 0.6, 0.9]), np.array([0, 1, 0])) == 0.5


class TestPoseWarpError:
    @pytest.mark.parametrize("speed", [0, 1, 2, -3])
    def test_a_clip_that_follows_its_poses_has_none(self, speed):
        frames = panned(5, abs(speed))[:: 1 if speed >= 0 else -1]
        path = CameraPath(speed / 64, 0, 0, 0, reach=1)
        assert pose_warp_error(frames, [path.pose(k) for k in range(5)]) < 1e-3

    def test_agrees_with_the_engines_own_warp(self):
        first = texture(32, 48)
        path = CameraPath(0.06, -0.03, 0.02, 0.004, reach=1)
        poses = [path.pose(k) for k in range(4)]
        channels = torch.from_numpy(first).permute(2, 0, 1).float()
        frames = np.stack([warp(channels, pose, "nearest").permute(1, 2, 0).byte().numpy() for pose in poses])
        error, still = (pose_warp_error(clip, poses) for clip in (frames, np.repeat(frames[:1], 4, 0)))
        assert error < 0.03
        assert error < still / 3

    @given(st.integers(0, 255), st.integers(0, 255))
    def test_is_the_mean_absolute_difference_in_shares_of_the_range(self, first, other):
        frames = np.full((3, 8, 8, 3), other, np.uint8)
        frames[0] = first
        poses = [CameraPath(0, 0, 0, 0, 1).pose(0)] * 3
        assert pose_warp_error(frames, poses) == pytest.approx(abs(first - other) / 255, abs=1e-6)

    def test_only_pixels_of_the_mask_in_both_frames_count(self):
        frames = np.zeros((2, 8, 8, 3), np.uint8)
        frames[1, :, :4] = 255
        poses = [CameraPath(0, 0, 0, 0, 1).pose(0)] * 2
        left = np.zeros((2, 8, 8))
        left[:, :, :4] = 1
        assert pose_warp_error(frames, poses, left) == pytest.approx(1)
        assert pose_warp_error(frames, poses, 1 - left) == 0
        left[0] = 0
        assert np.isnan(pose_warp_error(frames, poses, left))

    def test_what_comes_into_the_frame_does_not_count(self):
        frames = panned(2, 8)
        frames[1, :, -8:] = 0  # was not in frame 0
        assert pose_warp_error(frames, [CameraPath(8 / 64, 0, 0, 0, 1).pose(k) for k in range(2)]) < 1e-3


class TestFlowWarpError:
    def test_flow_is_the_known_motion(self):
        flow = optical_flow(*panned(2, 3))
        assert np.median(flow[8:-8, 8:-8, 0]) == pytest.approx(-3, abs=0.2)
        assert np.abs(np.median(flow[8:-8, 8:-8, 1])) < 0.2

    def test_even_motion_has_nearly_none_and_flicker_has_some(self):
        even = panned(5, 2)
        flickering = even.copy()
        flickering[1::2] = (flickering[1::2] * 0.8).astype(np.uint8)
        assert flow_warp_error(even) < 1e-3
        assert flow_warp_error(flickering) > 5 * flow_warp_error(even)

    def test_a_still_clip_has_none(self):
        assert flow_warp_error(panned(4, 0)) < 1e-6
        assert flow_warp_error(panned(1, 0)) == 0

    def test_only_pixels_of_the_mask_count(self):
        frames = panned(2, 0).copy()
        frames[1, :, 40:] = 255 - frames[1, :, 40:]
        left = np.zeros(frames.shape[:3])
        left[:, :, :24] = 1
        assert flow_warp_error(frames, left) < 1e-3
        assert np.isnan(flow_warp_error(frames, np.zeros_like(left)))

    def test_what_is_covered_is_found_by_going_there_and_back(self):
        forward = np.zeros((20, 20, 2), np.float32)
        backward = forward.copy()
        assert not occluded(forward, backward).any()
        backward[:, 10:, 0] = 3  # frame 2's right half says it comes from elsewhere
        assert occluded(forward, backward)[:, 11:].all()
        assert not occluded(forward, backward)[:, :9].any()

    def test_what_leaves_the_frame_is_occluded(self):
        forward = np.full((12, 12, 2), (5, 0), np.float32)
        assert np.array_equal(occluded(forward, -forward), np.broadcast_to(np.arange(12) + 5 > 11, (12, 12)))

    @settings(max_examples=20)
    @given(st.integers(-4, 4), st.integers(-4, 4))
    def test_warping_reads_at_pixel_plus_flow(self, dx, dy):
        picture = texture(16, 16)
        moved = warped_along(picture, np.full((16, 16, 2), (dx, dy), np.float32))
        assert np.array_equal(moved[4:12, 4:12], picture[4 + dy : 12 + dy, 4 + dx : 12 + dx])

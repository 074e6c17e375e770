"""Metrics of masks and of steadiness, on pictures whose answer is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.evaluation.moving import panned, texture
from text2video_zero.evaluation.flow import Flows
from text2video_zero.evaluation.metrics import (
    coverage,
    flow_warp_error,
    iou,
    pose_warp_error,
    redrawn,
    sharpness_kept,
    temporal_flicker,
)
from text2video_zero.sampling.motion.camera import CameraPath
from text2video_zero.sampling.motion.warp import warp

MASKS = arrays.arrays(np.bool_, (5, 6))


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

    def test_flows_at_hand_are_not_estimated_again(self):
        frames = panned(4, 2)
        assert flow_warp_error(frames, flows=Flows.of(frames)) == flow_warp_error(frames)


class TestCoverage:
    def test_a_still_clip_is_seen_again_as_a_whole(self):
        assert coverage(Flows.of(panned(3, 0))) == 1
        assert coverage(Flows.of(panned(1, 0))) == 1

    def test_a_clip_that_is_half_covered_is_seen_again_by_half(self):
        frames = panned(2, 0, side=96).copy()
        frames[1, :, 48:] = texture(96, 48, seed=5)  # another picture slides over the right half
        assert coverage(Flows.of(frames)) == pytest.approx(0.5, abs=0.12)

    def test_noise_is_hardly_seen_again(self):
        noise = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3)).astype(np.uint8)
        assert coverage(Flows.of(noise)) < 0.5


class TestRedrawn:
    def test_one_frame_from_which_on_all_is_another_counts_though_the_rest_stands_still(self):
        steady, broken = panned(8, 0, side=96), panned(8, 0, side=96).copy()
        broken[5:, :, 48:] = texture(96, 48, seed=5)
        assert redrawn(Flows.of(steady)) == 0
        assert redrawn(Flows.of(broken)) == pytest.approx(0.5, abs=0.12)
        assert coverage(Flows.of(broken)) > 0.9  # which the mean does not see

    def test_a_single_frame_has_none(self):
        assert redrawn(Flows.of(panned(1, 0))) == 0


class TestFlicker:
    def test_is_the_mean_change_in_shares_of_the_range(self):
        frames = np.zeros((3, 4, 4, 3), np.uint8)
        frames[1] = 51
        assert temporal_flicker(frames) == pytest.approx(0.2)
        assert temporal_flicker(frames[:1]) == 0


class TestSharpness:
    def test_of_the_same_picture_is_one_and_of_a_blurred_one_less(self):
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
        frames = np.repeat(noise[None], 3, axis=0)
        assert sharpness_kept(frames) == pytest.approx(1)
        frames[1:] = cv2.GaussianBlur(frames[0], (0, 0), 2)
        assert sharpness_kept(frames) < 0.3

    def test_has_no_answer_without_detail_or_a_second_frame(self):
        assert np.isnan(sharpness_kept(np.zeros((2, 8, 8, 3), np.uint8)))
        assert np.isnan(sharpness_kept(texture(8, 8)[None]))

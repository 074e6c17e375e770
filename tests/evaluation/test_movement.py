"""How much moves, how evenly, and whether as asked, on clips whose motion is known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.moving import panned
from text2video_zero.evaluation.flow import Flows, tracks
from text2video_zero.evaluation.movement import end_point_error, following, is_dynamic, jitter, speeds
from text2video_zero.requests.camera import CameraPose

STILL = CameraPose(0, 0, 1, 0)


def even(pixels, frames=9, side=64):
    """Flows of a clip that moves to the left as a whole, exactly."""
    forward = np.full((frames - 1, side, side, 2), (-pixels, 0), np.float32)
    return Flows(forward, -forward)


class TestSpeed:
    def test_is_that_of_the_fastest_pixels(self):
        flows = even(0)
        flows.forward[:, :2, :, 1] = 7  # 3 % of the pixels
        assert speeds(flows) == pytest.approx(np.full(8, 7 * 128 / int(0.05 * 4096)))
        assert speeds(even(2)) == pytest.approx(np.full(8, 2))

    def test_a_clip_is_dynamic_from_vbenchs_threshold_on(self):
        threshold = 6 * 64 / 256
        assert is_dynamic(even(threshold + 0.01), fps=8)
        assert not is_dynamic(even(threshold - 0.01), fps=8)
        assert is_dynamic(even(threshold / 2 + 0.01), fps=16)  # which is looked at eight times a second

    def test_a_single_jump_in_a_long_clip_is_no_motion(self):
        flows = even(0, frames=33)
        flows.forward[3] = 20
        assert not is_dynamic(flows, fps=8)
        flows.forward[3:11] = 20
        assert is_dynamic(flows, fps=8)


class TestJitter:
    def test_tells_independent_poses_from_even_motion(self):
        rng = np.random.default_rng(0)
        independent = rng.normal(size=(200, 18, 2))
        assert jitter([independent]) == pytest.approx(1.7, abs=0.1)
        moving = np.cumsum(np.ones((200, 18, 2)), axis=0) + 0.01 * independent
        assert jitter([moving]) < 0.1

    def test_of_a_panned_picture_is_small_and_of_no_picture_unknown(self):
        frames = panned(6, 2)
        assert jitter(tracks(frames, Flows.of(frames))) < 0.1
        assert np.isnan(jitter([]))


class TestFollowing:
    POSES = tuple(CameraPose(frame * 3 / 64, 0, 1, 0) for frame in range(9))

    def test_a_clip_that_moves_as_asked_follows_and_a_still_one_does_not(self):
        assert following(even(3), self.POSES) == pytest.approx((1, 0), abs=1e-4)
        assert following(even(0), self.POSES) == pytest.approx((0, 3), abs=1e-4)
        assert following(even(1.5), self.POSES) == pytest.approx((0.5, 1.5), abs=1e-4)

    def test_movement_that_nobody_asked_for_is_astray(self):
        followed, astray = following(even(4), [STILL] * 9)
        assert np.isnan(followed)
        assert astray == pytest.approx(4)

    def test_the_subject_does_not_count(self):
        flows, background = even(3), np.ones((9, 64, 64), bool)
        background[:, 16:48, 16:48] = False
        flows.forward[:, 16:48, 16:48] = 9
        assert following(flows, self.POSES, background) == pytest.approx((1, 0), abs=1e-4)

    def test_a_real_pan_is_seen_to_follow(self):
        frames = panned(5, 4, side=96)
        poses = [CameraPose(frame * 4 / 96, 0, 1, 0) for frame in range(5)]
        assert following(Flows.of(frames), poses) == pytest.approx((1, 0), abs=0.05)


class TestEndPointError:
    def test_is_the_distance_of_the_flows_where_the_source_is_seen_again(self):
        source = even(3)
        assert end_point_error(even(3), source) == 0
        assert end_point_error(even(1), source) == pytest.approx(2)
        astray = even(3)
        astray.forward[:, :, 0] = 50  # which leaves the picture
        assert end_point_error(astray, source) == 0

"""Camera paths and the warp of latents."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers.pipelines.deprecated.text_to_video_synthesis import pipeline_text_to_video_zero as reference
from hypothesis import given
from hypothesis import strategies as st

from text2video_zero.requests import TextToVideoRequest
from text2video_zero.requests.camera import CAMERA_PRESETS, CameraPose, read_camera_keys
from text2video_zero.requests.text_to_video import RESAMPLING
from text2video_zero.sampling.motion.anchor import Anchor
from text2video_zero.sampling.motion.camera import CameraPath, KeyedPath, ShakenPath, sample_positions
from text2video_zero.sampling.motion.noise import NoisePath, NoiseScene
from text2video_zero.sampling.motion.warp import forward_noise, warp

STILL = CameraPose(0, 0, 1, 0)
speeds = st.floats(-0.2, 0.2)
reaches = st.floats(0.01, 1.0)


def path(pan_x=0.0, pan_y=0.0, zoom=0.0, rotation=0.0, reach=0.25, period=None):
    return CameraPath(pan_x, pan_y, zoom, rotation, reach, period)


def distance(one, other):
    """Between two poses, in shares of the frame and radians."""
    turn = math.remainder(one.angle - other.angle, math.tau)
    return math.hypot(one.x - other.x, one.y - other.y, math.log(one.scale / other.scale), turn)


def noise(height=64, width=64, channels=4):
    return torch.randn(channels, height, width, generator=torch.Generator().manual_seed(0))


class TestPath:
    @given(speeds, speeds, speeds, st.floats(-0.1, 0.1), reaches)
    def test_begins_where_the_first_frame_is(self, pan_x, pan_y, zoom, rotation, reach):
        pose = path(pan_x, pan_y, zoom, rotation, reach).pose(0)
        assert (pose.x, pose.y, pose.scale, pose.angle) == pytest.approx((0, 0, 1, 0), abs=1e-9)

    @given(speeds, reaches)
    def test_long_clips_stay_within_reach(self, speed, reach):
        poses = [path(speed, -speed, speed, speed / 2, reach).pose(frame) for frame in range(0, 2000, 7)]
        assert max(abs(pose.x) for pose in poses) <= reach + 1e-9
        assert max(abs(pose.y) for pose in poses) <= reach + 1e-9
        assert max(abs(pose.angle) for pose in poses) <= 2 * np.pi * reach + 1e-9
        edges = [abs(pose.scale) for pose in poses]
        assert 1 / (1 + 2 * reach) - 1e-9 <= min(edges) <= max(edges) <= 1 + 2 * reach + 1e-9

    def test_every_step_before_the_turn_has_the_same_length(self):
        shifts = [path(0.0234, reach=0.25).pose(frame).x for frame in range(10)]
        assert np.allclose(np.diff(shifts), 0.0234)

    def test_turns_back_at_the_reach(self):
        shifts = [path(0.1, reach=0.2).pose(frame).x for frame in range(9)]
        assert shifts == pytest.approx([0, 0.1, 0.2, 0.1, 0, -0.1, -0.2, -0.1, 0])

    @pytest.mark.parametrize("reach", [0.1, 0.25, 1.0])
    def test_a_zoom_turns_back_where_the_edge_has_moved_by_the_reach(self, reach):
        farthest = 1 + 2 * reach  # magnification at which an edge, half a frame from the middle, has moved by it
        speed = farthest ** (1 / 4) - 1
        scales = [path(zoom=speed, reach=reach).pose(frame).scale for frame in range(13)]
        exponents = [0, 1, 2, 3, 4, 3, 2, 1, 0, -1, -2, -3, -4]
        assert scales == pytest.approx([farthest ** (exponent / 4) for exponent in exponents])

    @pytest.mark.parametrize("frames", [2, 3, 8, 25])
    @given(speeds, speeds, speeds, st.floats(-0.1, 0.1), reaches)
    def test_a_loop_returns_and_its_last_step_is_no_longer_than_most(self, frames, pan_x, pan_y, zoom, rotation, reach):
        loop = path(pan_x, pan_y, zoom, rotation, reach, period=frames)
        poses = [loop.pose(frame) for frame in range(frames + 1)]
        assert poses[-1] == poses[0] == STILL
        steps = [distance(before, after) for before, after in pairwise(poses)]
        assert steps[-1] <= np.median(steps) + 1e-9

    def test_a_loop_goes_as_far_as_its_speed_says_and_no_further_than_its_reach(self):
        assert path(pan_x=0.02, period=16).pose(8).x == pytest.approx(0.16)
        assert path(pan_x=-0.02, reach=0.1, period=16).pose(8).x == pytest.approx(-0.1)
        assert path(zoom=0.1, reach=1.0, period=4).pose(2).scale == pytest.approx(1.1**2)

    def test_a_loop_of_whole_turns_goes_on_turning(self):
        turning = path(rotation=0.1, reach=1.0, period=20)
        angles = np.diff([turning.pose(frame).angle for frame in range(20)])
        assert angles == pytest.approx(np.full(19, 0.1 * math.tau))
        swinging = path(rotation=0.1, reach=0.2, period=20)
        assert max(abs(swinging.pose(frame).angle) for frame in range(20)) <= 0.2 * math.tau + 1e-9

    def test_key_frames_are_where_they_were_asked_for_and_stay_after_the_last(self):
        way = KeyedPath(read_camera_keys("4: right 0.2 zoom 2; 6: hold; 10: up 0.1 turn -0.25"))
        assert way.pose(0) == STILL
        assert way.pose(4) == way.pose(5) == way.pose(6) == CameraPose(0.2, 0, 2, 0)
        assert way.pose(10) == way.pose(99) == CameraPose(0.2, -0.1, 2, -math.tau / 4)

    def test_an_eased_way_is_slow_at_both_ends_and_an_even_one_nowhere(self):
        keys = read_camera_keys("8: right 0.8")
        eased, even = (KeyedPath(keys, eased=eased) for eased in (True, False))
        steps = [np.diff([way.pose(frame).x for frame in range(9)]) for way in (eased, even)]
        assert steps[1] == pytest.approx(np.full(8, 0.1))
        assert max(steps[0][0], steps[0][-1]) < 0.04
        assert steps[0][3] > 0.14
        assert KeyedPath(read_camera_keys("8: zoom 4"), eased=False).pose(4).scale == pytest.approx(2)

    def test_the_way_of_a_loop_leads_back(self):
        way = KeyedPath(read_camera_keys("4: right 0.2; 99: left 1"), eased=False, period=12)
        assert way.pose(12) == way.pose(0) == STILL
        assert way.pose(8).x == pytest.approx(0.1)

    @given(st.integers(0, 2**32 - 1), st.floats(0.001, 0.1), st.sampled_from([None, 12]))
    def test_a_hand_sways_within_its_strength_and_begins_at_rest(self, seed, strength, period):
        shaken = ShakenPath(path(period=period), strength, seed, period)
        poses = [shaken.pose(frame) for frame in range(40)]
        assert poses[0] == STILL
        assert 0 < max(abs(pose.x) for pose in poses) <= 2 * strength
        assert poses[1] != poses[2]
        if period:
            assert distance(poses[period], STILL) < 1e-9

    def test_no_strength_shakes_nothing(self):
        assert ShakenPath(path(0.02, 0.01), 0.0, 7).pose(5) == path(0.02, 0.01).pose(5)

    def test_presets_are_valid_settings(self):
        for preset in CAMERA_PRESETS.values():
            TextToVideoRequest(prompt="a fox", **preset)


class TestWarp:
    @pytest.mark.parametrize("resampling", ["smooth", "nearest", "signal"])
    @pytest.mark.parametrize("size", [(16, 16), (64, 48), (7, 9)])
    def test_standing_still_changes_nothing(self, resampling, size):
        latents = noise(*size)
        assert torch.equal(warp(latents, STILL, resampling), latents)

    def test_moving_the_camera_right_and_down_moves_the_picture_left_and_up(self):
        picture = torch.zeros(1, 32, 32)
        picture[0, 16, 20] = 1
        for resampling in ("nearest", "smooth"):
            moved = warp(picture, CameraPose(4 / 32, 2 / 32, 1, 0), resampling)
            assert moved[0, 14, 16] == 1
            assert moved.sum() == 1

    def test_zooming_in_moves_things_away_from_the_middle(self):
        picture = torch.zeros(1, 33, 33)
        picture[0, 16, 20] = 1
        assert warp(picture, CameraPose(0, 0, 2, 0), "nearest")[0, 16, 24] == 1

    def test_turning_the_camera_clockwise_turns_the_picture_the_other_way(self):
        picture = torch.zeros(1, 33, 33)
        picture[0, 16, 26] = 1  # to the right of the middle
        turned = warp(picture, CameraPose(0, 0, 1, np.pi / 2), "nearest")
        assert turned[0, 6, 16] == 1  # above it

    @pytest.mark.parametrize("frame", range(1, 9))
    def test_nearest_equals_the_authors_warp(self, frame):
        latents = noise()
        flow = reference.create_motion_field(12, 12, [frame], "cpu", torch.float32)
        theirs = reference.warp_single_latent(latents[None], flow)[0]
        assert torch.equal(warp(latents, CameraPose(frame * 12 / 512, frame * 12 / 512, 1, 0), "nearest"), theirs)

    @given(st.integers(-20, 20), st.integers(-20, 20))
    def test_whole_cells_are_moved_bit_for_bit(self, x, y):
        latents = noise(16, 16)
        pose = CameraPose(x / 16, y / 16, 1, 0)
        assert torch.equal(warp(latents, pose, "smooth"), warp(latents, pose, "nearest"))

    @pytest.mark.parametrize(
        "pose",
        [CameraPose(0.5 / 64, 0.5 / 64, 1, 0), CameraPose(0.01, 0, 1.1, 0.1), CameraPose(0, 0, 1, 0.4)],
        ids=["half a cell", "zoom and turn", "turn"],
    )
    def test_noise_keeps_its_standard_deviation(self, pose):
        assert warp(noise(), pose).std() == pytest.approx(1, abs=0.03)

    def test_a_signal_keeps_its_level(self):
        even = torch.full((1, 16, 16), 3.0)
        assert torch.allclose(warp(even, CameraPose(0.3, 0.1, 1.2, 0.3), "signal"), even, atol=1e-5)

    def test_small_speeds_move_evenly(self):
        rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
        blob = torch.exp(-((rows - 32) ** 2 + (columns - 32) ** 2) / 50)[None]
        middles = []
        for frame in range(8):
            moved = warp(blob, path(0.002, 0.004).pose(frame))[0]
            middles.append([(moved * columns).sum() / moved.sum(), (moved * rows).sum() / moved.sum()])
        steps = np.diff(np.array(middles), axis=0)
        assert np.allclose(steps, [-0.002 * 64, -0.004 * 64], rtol=0.1)

    def test_the_same_share_of_the_frame_at_any_size(self):
        for width in (16, 64, 96):
            x, _ = sample_positions(path(0.05).pose(3), 16, width)
            assert torch.allclose(x - torch.arange(width), torch.full((16, width), 0.15 * width), atol=1e-4)

    def test_coordinates_stay_exact_in_half_precision(self):
        latents = noise().bfloat16()
        pose = path(0.0234, 0.0234).pose(5)
        assert warp(latents, pose).dtype == torch.bfloat16
        assert torch.allclose(warp(latents, pose).float(), warp(latents.float(), pose), atol=0.02)

    def test_positions_are_float32(self):
        assert sample_positions(STILL, 8, 8)[0].dtype == torch.float32


def test_forward_noise_keeps_unit_variance():
    latents, fresh = noise(), noise().flip(1)
    forward = forward_noise(latents, fresh, alpha_from=0.012, alpha_to=0.007)
    assert forward.std() == pytest.approx(1, abs=0.05)
    assert torch.equal(forward_noise(latents, fresh, 0.5, 0.5), latents)


@pytest.mark.parametrize("resampling", RESAMPLING)
@pytest.mark.parametrize("smoothness", [0.0, 4.0])
@pytest.mark.parametrize(
    "pose", [CameraPose(0.5 / 16, 0.5 / 16, 1, 0), CameraPose(0.1, 0, 1.1, 0.1)], ids=["half a cell", "zoom and turn"]
)
def test_a_picture_in_noise_keeps_its_level_when_it_is_moved(resampling, smoothness, pose):
    shape, (at_to, at_from) = (4, 16, 16), noise(16, 16, 8).chunk(2)
    moved = []
    for level in (0.0, 3.0):
        anchor = Anchor(
            at_to=math.sqrt(0.2) * level + math.sqrt(0.8) * at_to,
            at_from=math.sqrt(0.3) * level + math.sqrt(0.7) * at_from,
            clean=torch.full(shape, level),
            alpha_to=0.2,
            alpha_from=0.3,
        )
        moved.append(anchor.moved(2, pose, NoisePath(7, shape, smoothness), NoiseScene(7, shape), resampling))
    assert torch.allclose(moved[1] - moved[0], torch.full(shape, math.sqrt(0.2) * 3), atol=1e-4)

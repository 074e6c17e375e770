"""The benchmark of the time axis on clips whose motion is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from benchmarks.time_axis import camera_flow, following, jitter, parsed, row, scenes, settings
from text2video_zero.requests.camera import CameraPose
from toyland.world.bipeds import BIPEDS

STILL = CameraPose(0, 0, 1, 0)


@pytest.fixture(scope="module")
def landscape():
    """A wide picture of soft patches, (96, 400, 3)."""
    noise = np.random.default_rng(0).integers(0, 255, (96, 400, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def test_the_flow_of_a_pan_is_its_opposite():
    flow = camera_flow(CameraPose(0.1, 0, 1, 0), CameraPose(0.1 + 3 / 64, -2 / 48, 1, 0), 48, 64)
    assert np.allclose(flow, [-3, 2], atol=1e-4)


def test_the_flow_of_a_zoom_leads_away_from_the_middle():
    flow = camera_flow(STILL, CameraPose(0, 0, 1.1, 0), 65, 65)
    assert np.allclose(flow[32, 32], 0, atol=1e-5)
    assert np.allclose(flow[32, 52], [2, 0], atol=1e-4)


def test_a_clip_that_moves_as_asked_follows_and_a_still_one_does_not(landscape):
    poses = [CameraPose(frame * 4 / 96, 0, 1, 0) for frame in range(5)]
    everywhere = np.ones((5, 96, 96), bool)
    panned = np.stack([landscape[:, 4 * frame : 4 * frame + 96] for frame in range(5)])
    assert following(panned, everywhere, poses) == pytest.approx((1, 0), abs=0.05)
    static = np.stack([landscape[:, :96]] * 5)
    assert following(static, everywhere, poses) == pytest.approx((0, 4), abs=0.05)
    followed, astray = following(panned, everywhere, [STILL] * 5)
    assert np.isnan(followed)
    assert astray == pytest.approx(4, abs=0.1)


def test_jitter_tells_independent_poses_from_even_motion():
    rng = np.random.default_rng(0)
    independent = rng.normal(size=(200, 18, 2))
    assert jitter(independent) == pytest.approx(1.7, abs=0.1)
    even = np.cumsum(np.ones((200, 18, 2)), axis=0) + 0.01 * independent
    assert jitter(even) < 0.1


def test_every_setting_is_asked_of_scenes_with_two_legs():
    chosen = parsed(["--spans", "681/781", "481/501", "--smoothness", "0", "4", "--cameras", "Still", "Zoom in"])
    names = [setting.name for setting in settings(chosen)]
    assert len(set(names)) == 8
    assert all(scene.subject in BIPEDS for scene in scenes(7, 0))
    assert row(next(settings(chosen)), []).startswith("| Still | 681/781 | 0 | smooth |")

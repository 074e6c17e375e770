"""Optical flow, tracks and the camera's own flow, on pictures whose motion is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models import optical_flow as raft

from tests.evaluation.moving import panned, texture
from text2video_zero.errors import UserError
from text2video_zero.evaluation.flow import Flows, camera_flow, flow_of, tracks
from text2video_zero.evaluation.measures import MeasuredClip, Steadiness
from text2video_zero.media.flow import occluded, optical_flow, warped_along
from text2video_zero.requests import TextToVideoRequest
from text2video_zero.requests.camera import CameraPose

STILL = CameraPose(0, 0, 1, 0)


def test_flow_is_the_known_motion():
    flow = optical_flow(*panned(2, 3))
    assert np.median(flow[8:-8, 8:-8, 0]) == pytest.approx(-3, abs=0.2)
    assert np.abs(np.median(flow[8:-8, 8:-8, 1])) < 0.2


def test_what_is_covered_is_found_by_going_there_and_back():
    forward = np.zeros((20, 20, 2), np.float32)
    backward = forward.copy()
    assert not occluded(forward, backward).any()
    backward[:, 10:, 0] = 3  # frame 2's right half says it comes from elsewhere
    assert occluded(forward, backward)[:, 11:].all()
    assert not occluded(forward, backward)[:, :9].any()


def test_what_leaves_the_frame_is_occluded():
    forward = np.full((12, 12, 2), (5, 0), np.float32)
    assert np.array_equal(occluded(forward, -forward), np.broadcast_to(np.arange(12) + 5 > 11, (12, 12)))


@settings(max_examples=20)
@given(st.integers(-4, 4), st.integers(-4, 4))
def test_warping_reads_at_pixel_plus_flow(dx, dy):
    picture = texture(16, 16)
    moved = warped_along(picture, np.full((16, 16, 2), (dx, dy), np.float32))
    assert np.array_equal(moved[4:12, 4:12], picture[4 + dy : 12 + dy, 4 + dx : 12 + dx])


def test_the_flows_of_a_clip_go_there_and_back():
    flows = Flows.of(panned(3, 3))
    assert flows.forward.shape == flows.backward.shape == (2, 64, 64, 2)
    assert np.median(flows.forward[..., 0]) == pytest.approx(-3, abs=0.2)
    assert np.median(flows.backward[..., 0]) == pytest.approx(3, abs=0.2)
    assert not flows.found_again[:, :, :2].any()  # what leaves the picture
    assert Flows.of(panned(1, 0)).found_again.shape == (0, 64, 64)


def test_points_are_followed_along_an_even_motion():
    frames = panned(12, 2)
    found = tracks(frames, Flows.of(frames))
    assert [len(track) for track in found] == [8, 5]  # chosen anew after 8 frames, of which one is shared
    for track in found:
        assert track.shape[1] > 8
        assert np.median(np.diff(track, axis=0)[..., 0]) == pytest.approx(-2, abs=0.1)


@pytest.fixture
def raft_weights(tmp_path, monkeypatch):
    """RAFT's small weights where torchvision keeps them; random ones, good for shapes and for the way."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    torch.manual_seed(0)
    network = raft.raft_small(weights=None)
    path = tmp_path / "checkpoints" / raft.Raft_Small_Weights.DEFAULT.url.rsplit("/", 1)[-1]
    path.parent.mkdir()
    torch.save(network.state_dict(), path)
    return path, network.eval()


class TestRaft:
    def test_its_weights_are_read_and_the_flow_is_the_network_s_last(self, raft_weights):
        before, after = panned(2, 3, side=128)
        _, network = raft_weights
        shown = [torch.from_numpy(frame.copy()).movedim(-1, 0)[None].float() / 127.5 - 1 for frame in (before, after)]
        with torch.inference_mode():
            expected = network(*shown)[-1][0].movedim(0, -1).numpy()
        found = flow_of("raft-small")(before, after)
        assert np.abs(found).max() > 0
        assert np.allclose(found, expected, atol=1e-4)

    @pytest.mark.usefixtures("raft_weights")
    def test_small_and_odd_pictures_have_a_flow_in_their_own_pixels(self):
        flow = flow_of("raft-small")
        small = panned(2, 3, side=64)
        large = np.stack([cv2.resize(frame, (128, 128)) for frame in small])
        halved = cv2.resize(flow(*large), (64, 64), interpolation=cv2.INTER_LINEAR) / 2
        assert np.allclose(flow(*small), halved, atol=1e-4)
        flows = Flows.of(panned(2, 3, side=70)[:, :50], flow)
        assert flows.forward.shape == (1, 50, 70, 2)
        assert flows.forward.dtype == np.float32

    def test_what_is_missing_or_damaged_is_told_in_one_sentence(self, raft_weights):
        path, _ = raft_weights
        with pytest.raises(
            UserError, match=r"raft-large are not on this machine: put torchvision's raft_large_\S+\.pth .* flow dis"
        ):
            flow_of("raft-large")
        for content in (b"", b"no weights", path.read_bytes()[:5000]):
            path.write_bytes(content)
            with pytest.raises(UserError, match=r"raft_small_\S+\.pth cannot be read as the weights of raft-small"):
                flow_of("raft-small")

    def test_without_a_wish_it_is_dis(self):
        assert flow_of("dis") is optical_flow

    def test_what_is_measured_is_measured_along_the_flow_that_was_chosen(self):
        frames = panned(3, 3)
        asked = TextToVideoRequest(prompt="a fox")
        moved, still = (
            Steadiness()(MeasuredClip(frames, asked, source=frames, flow=flow))
            for flow in (flow_of("dis"), lambda before, _: np.zeros((*before.shape[:2], 2), np.float32))
        )
        assert moved["speed"] == pytest.approx(3, abs=0.3)
        assert (still["speed"], still["flow_error"]) == (0, 0)
        assert moved["warp_error"] < still["warp_error"]


def test_nothing_is_followed_on_an_empty_picture():
    assert tracks(np.zeros((3, 32, 32, 3), np.uint8), Flows.of(np.zeros((3, 32, 32, 3), np.uint8))) == []


def test_the_flow_of_a_pan_is_its_opposite():
    flow = camera_flow(CameraPose(0.1, 0, 1, 0), CameraPose(0.1 + 3 / 64, -2 / 48, 1, 0), 48, 64)
    assert np.allclose(flow, [-3, 2], atol=1e-4)


def test_the_flow_of_a_zoom_leads_away_from_the_middle():
    flow = camera_flow(STILL, CameraPose(0, 0, 1.1, 0), 65, 65)
    assert np.allclose(flow[32, 32], 0, atol=1e-5)
    assert np.allclose(flow[32, 52], [2, 0], atol=1e-4)

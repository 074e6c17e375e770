"""The foreground by what stands out: a network in the real one's format, and where it comes from."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from tests.runs import sampled
from tests.tiny_onnx import left_half_stands_out
from text2video_zero.errors import UserError
from text2video_zero.foreground import salient_object
from text2video_zero.foreground.salient_object import SalientObjectDetector, network_input, saliency_weights
from text2video_zero.requests import Size, TextToVideoRequest

WEIGHTS = left_half_stands_out()
REQUEST = TextToVideoRequest(
    prompt="a red panda in the snow",
    frames=2,
    steps=4,
    seed=3,
    size=Size(128, 64),
    smooth_background=True,
    foreground_detector="salient object",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the network is looked for; no download comes through."""
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "u2net"))
    monkeypatch.setattr(salient_object, "WEIGHTS_MD5", hashlib.md5(WEIGHTS, usedforsecurity=False).hexdigest())
    monkeypatch.setattr(salient_object, "WEIGHTS_URL", "http://127.0.0.1:9/u2netp.onnx")
    return tmp_path / "u2net"


@pytest.fixture
def at_hand(folder):
    """The network's file, downloaded by somebody before."""
    folder.mkdir()
    (folder / "u2netp.onnx").write_bytes(WEIGHTS)
    return folder / "u2netp.onnx"


@pytest.fixture
def served(folder, monkeypatch):  # noqa: ARG001 - whose address it takes the place of
    """What a server sends for the network, behind a redirection as GitHub has it, and how often it did."""
    answers = [WEIGHTS]
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(302 if self.path == "/u2netp.onnx" else 200)
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            if self.path == "/elsewhere":
                self.wfile.write(answers[0])

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(salient_object, "WEIGHTS_URL", f"http://127.0.0.1:{server.server_port}/u2netp.onnx")
        yield answers, asked
        server.shutdown()


class TestMasks:
    @pytest.mark.usefixtures("at_hand")
    @torch.inference_mode()
    def test_they_are_what_the_network_finds_salient(self, pipeline):
        masks = SalientObjectDetector(pipeline.components.vae).masks(torch.randn(3, 4, 8, 12))
        left = torch.zeros(3, 8, 12)
        left[..., :6] = 1
        assert masks.dtype == torch.float32
        assert torch.equal(masks, left)

    def test_the_network_sees_what_it_was_trained_on(self):
        shown = network_input(np.full((64, 96, 3), (10, 20, 40), np.uint8))
        expected = (np.array([0.25, 0.5, 1.0]) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        assert shown.dtype == np.float32
        assert shown.shape == (1, 3, 320, 320)
        assert np.allclose(shown, expected[:, None, None], atol=1e-6)
        assert np.isfinite(network_input(np.zeros((8, 8, 3), np.uint8))).all()

    @pytest.mark.usefixtures("at_hand")
    def test_what_stands_out_least_and_most_are_the_bounds(self, pipeline):
        saliency = SalientObjectDetector(pipeline.components.vae).saliency(np.full((64, 96, 3), 90, np.uint8))
        assert saliency.shape == (64, 96)
        assert (saliency[:, :40] == 255).all()
        assert (saliency[:, 56:] == 0).all()

    @pytest.mark.usefixtures("at_hand")
    def test_it_steadies_the_background_of_a_clip(self, pipeline):
        smoothed = sampled(REQUEST, pipeline)
        assert smoothed.isfinite().all()
        plain = sampled(dataclasses.replace(REQUEST, smooth_background=False), pipeline)
        assert not torch.equal(smoothed[1], plain[1])

    @pytest.mark.usefixtures("at_hand")
    def test_behind_each_shot_it_is_the_background_of_its_own_first_frame(self, pipeline):
        story = dataclasses.replace(REQUEST, frames=4, storyboard="2: a blue robot", shot_anchors=True)
        shots = [dataclasses.replace(REQUEST, prompt=prompt) for prompt in (REQUEST.prompt, "a blue robot")]
        alone = torch.cat([sampled(shot, pipeline) for shot in shots])
        assert torch.allclose(sampled(story, pipeline), alone, atol=1e-4)


class TestWeights:
    def test_are_downloaded_once(self, served, folder):
        _, asked = served
        assert saliency_weights() == saliency_weights() == WEIGHTS
        assert asked == ["/u2netp.onnx", "/elsewhere"]
        assert [path.name for path in folder.iterdir()] == ["u2netp.onnx"]

    def test_half_a_file_is_downloaded_again(self, served, at_hand):
        at_hand.write_bytes(WEIGHTS[:500])
        assert saliency_weights() == WEIGHTS == at_hand.read_bytes()
        assert served[1]

    def test_another_file_is_not_kept(self, served, folder):
        served[0][0] = b"<html>sign in</html>"
        with pytest.raises(UserError, match="another file came"):
            saliency_weights()
        assert not folder.exists()

    @pytest.mark.usefixtures("folder")
    def test_out_of_reach_is_told_before_the_first_step(self, pipeline):
        steps = []
        hook = pipeline.components.unet.register_forward_pre_hook(lambda *_: steps.append(1))
        with pytest.raises(UserError, match=r"\(ConnectError\): connect to the internet once, put u2netp\.onnx into"):
            sampled(REQUEST, pipeline)
        hook.remove()
        assert not steps

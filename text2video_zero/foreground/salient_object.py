"""Where the foreground is, by what stands out in each finished frame; for prompts whose foreground no word names.

The network is U²-Net (Qin et al. 2020) in its small form: 4.6 MB, and as good as the large one on a grid of latents.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from huggingface_hub import get_session
from huggingface_hub.errors import HTTPError
from PIL import Image

from text2video_zero.errors import UserError
from text2video_zero.media.files import renamed_when_whole
from text2video_zero.sampling.decoding import decoded_frames
from text2video_zero.sampling.denoising import nothing_around

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from diffusers import AutoencoderKL

    from text2video_zero.sampling.denoising import ChunkContext

WEIGHTS_URL = "https://github.com/danielgatis/rembg/releases/download/v0.0.0/u2netp.onnx"
WEIGHTS_MD5 = "8e83ca70e441ab06c318d82300c84806"
SILENCE_SECONDS = 30  # after which a download is given up
INPUT_SIZE = 320, 320
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of its training's pictures, by channel


class SalientObjectDetector:
    """The most eye-catching object of each decoded frame.

    Raises UserError when the network's weights, downloaded the first time, cannot be had.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        self._vae = vae
        self._network = cv2.dnn.readNetFromONNX(np.frombuffer(saliency_weights(), np.uint8))
        self._finest_output, *_ = self._network.getUnconnectedOutLayersNames()

    def observing(self) -> AbstractContextManager[ChunkContext]:
        """Nothing needs to be observed: the finished frames say all."""
        return nullcontext(nothing_around)

    def memory(self) -> dict[str, Any]:
        """Nothing is remembered from step to step."""
        return {}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Nothing is to be remembered."""

    def masks(self, latents: torch.Tensor) -> torch.Tensor:
        """Masks (f, h, w) float32, 1 = foreground, of clean latents (f, c, h, w)."""
        height, width = latents.shape[-2:]
        masks = []
        for frame in decoded_frames(self._vae, latents):
            saliency = cv2.resize(self.saliency(frame), (width, height), interpolation=cv2.INTER_AREA)
            masks.append(saliency > 127)
        return torch.from_numpy(np.stack(masks)).float().to(latents.device)

    def saliency(self, frame: np.ndarray) -> np.ndarray:
        """How much each pixel of a frame (height, width, 3) uint8 stands out, (height, width) uint8."""
        self._network.setInput(network_input(frame))
        found = self._network.forward(self._finest_output)[0, 0]
        found = (found - found.min()) / max(np.ptp(found), 1e-6)
        height, width = frame.shape[:2]
        levels = Image.fromarray((found * 255).astype(np.uint8))
        return np.asarray(levels.resize((width, height), Image.Resampling.LANCZOS))


def network_input(frame: np.ndarray) -> np.ndarray:
    """A frame (height, width, 3) uint8 as U²-Net was trained on: (1, 3, 320, 320) float32, standardised.

    Its brightest value becomes 1 before that.
    """
    resized = Image.fromarray(frame).resize(INPUT_SIZE, Image.Resampling.LANCZOS)
    pixels = np.asarray(resized, np.float64)
    pixels = (pixels / max(pixels.max(), 1e-6) - MEAN) / DEVIATION
    return pixels.transpose(2, 0, 1)[None].astype(np.float32)


def saliency_weights() -> bytes:
    """The network's file, from the folder U2NET_HOME or ~/.u2net, where the first call puts it.

    Raises UserError when it is not there and cannot be downloaded.
    """
    folder = Path(os.environ.get("U2NET_HOME") or "~/.u2net").expanduser()
    path = folder / "u2netp.onnx"
    try:
        if path.exists() and _is_right(weights := path.read_bytes()):
            return weights
        weights = get_session().get(WEIGHTS_URL, timeout=SILENCE_SECONDS).raise_for_status().content
        if _is_right(weights):
            folder.mkdir(parents=True, exist_ok=True)
            with renamed_when_whole(path) as temporary:
                temporary.write_bytes(weights)
            return weights
        reason, cause = "another file came", None
    except (OSError, HTTPError) as error:
        reason, cause = type(error).__name__, error
    raise UserError(
        f"The network that finds salient objects cannot be had ({reason}): connect to the internet once, put "
        f"u2netp.onnx into {folder}, or choose the foreground detector 'attention'."
    ) from cause


def _is_right(weights: bytes) -> bool:
    return hashlib.md5(weights, usedforsecurity=False).hexdigest() == WEIGHTS_MD5

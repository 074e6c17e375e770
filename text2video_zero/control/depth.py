"""Depth: how near things are, guessed by a network and drawn as brightness."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from controlnet_aux import MidasDetector

    from text2video_zero.models.pipeline import Detector

FAR, NEAR = 1.0, 99.0  # percentiles that become black and white; a few wild values must not dim the rest
SAMPLES = 1 << 21  # values of a clip by which these are found; more cost time and change nothing
MIDAS_SIDE, MIDAS_MULTIPLE = 384, 32  # the side that MiDaS was trained at, and the grid of its patches


def network_depths(detector: Detector, frames: np.ndarray) -> np.ndarray:
    """Relative nearness (m, h, w) float32 of frames (m, h, w, 3) uint8, by a depth network of transformers.

    Nearer is larger, as the relative models have it (DPT, Depth Anything); the scale is the network's own.
    """
    import torch

    network = detector.network
    with torch.inference_mode():
        inputs = network.processor(images=list(frames), return_tensors="pt").to(detector.device)
        outputs = network.model(**inputs)
    sizes = [frames.shape[1:3]] * len(frames)
    found = network.processor.post_process_depth_estimation(outputs, target_sizes=sizes)
    return np.stack([one["predicted_depth"].float().cpu().numpy() for one in found])


def midas_depths(detector: MidasDetector, frames: np.ndarray) -> np.ndarray:
    """Relative nearness (m, h, w) float32 of frames (m, h, w, 3) uint8, by controlnet-aux's MiDaS.

    Its network is asked and not the annotator, which would scale each frame by itself.
    """
    import torch

    height, width = frames.shape[1:3]
    scale = MIDAS_SIDE / min(height, width)
    grid = [max(1, round(side * scale / MIDAS_MULTIPLE)) * MIDAS_MULTIPLE for side in (width, height)]
    resized = np.stack([cv2.resize(frame, grid, interpolation=cv2.INTER_AREA) for frame in frames])
    device = next(detector.model.parameters()).device
    pictures = torch.from_numpy(resized).to(device).float().movedim(-1, 1) / 127.5 - 1
    found = detector.model(pictures).float().cpu().numpy()
    return np.stack([cv2.resize(depth, (width, height), interpolation=cv2.INTER_CUBIC) for depth in found])


def drawn_depths(depths: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Nearness of all frames of a clip, f x (h, w), as brightness, (h, w, 3) uint8 each: near is bright.

    One scale serves the whole clip, so that what stands still keeps its brightness while something nearer
    comes in. A clip of one depth is black.
    """
    stride = -(-len(depths) * depths[0].size // SAMPLES)
    samples = np.concatenate([depth.ravel()[::stride] for depth in depths])
    far, near = np.percentile(samples, (FAR, NEAR))
    scale = 255 / (near - far) if near > far else 0.0
    for depth in depths:
        grey = ((depth - far) * scale).clip(0, 255).round().astype(np.uint8)
        yield np.repeat(grey[..., None], 3, axis=-1)

"""Optical flow between two frames: where things go, and where that cannot be told.

Frames are (h, w, 3) uint8 RGB; flows (h, w, 2) float32, x and y in pixels.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np


def optical_flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where each pixel of `before` is found in `after`. OpenCV's DIS (Kroeger et al. 2016), medium preset."""
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey_before, grey_after = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after))
    no_guess = cast("np.ndarray", None)  # OpenCV's stubs know no flow that begins from nothing
    return estimator.calc(grey_before, grey_after, no_guess)


def warped_along(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """A picture (h, w, …) read at each pixel plus its flow, float32; what lies outside repeats the border."""
    height, width = flow.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return cv2.remap(
        picture.astype(np.float32), x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


def occluded(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Pixels (h, w) bool that cannot be found again: occluded, out of the frame, or at a motion boundary.

    forward, backward: flows between two frames. Thresholds of Ruder et al. (2016), section 4.2.
    """
    height, width = forward.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    to_x, to_y = x + forward[..., 0], y + forward[..., 1]
    outside = (to_x < 0) | (to_x > width - 1) | (to_y < 0) | (to_y > height - 1)
    back = warped_along(backward, forward)
    lengths = np.square(forward).sum(-1) + np.square(back).sum(-1)
    astray = np.square(forward + back).sum(-1) > 0.01 * lengths + 0.5
    steepness = sum(np.square(np.gradient(forward, axis=axis)).sum(-1) for axis in (0, 1))
    boundary = steepness > 0.01 * np.square(forward).sum(-1) + 0.002
    return outside | astray | boundary

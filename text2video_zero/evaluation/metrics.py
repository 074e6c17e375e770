"""Numbers that say how good a mask is and how steady a clip is. Pure functions on arrays.

Frames are (f, h, w, 3) uint8 RGB, read two at a time; masks (f, h, w) or (h, w), anything above one half counts
as foreground.
Errors are in shares of the full range of a colour, 0..1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from text2video_zero.sampling.motion.camera import sample_positions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from text2video_zero.media.frames import Frames
    from text2video_zero.requests.camera import CameraPose


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two masks of one shape, 0..1 (Jaccard 1912); two empty masks agree, 1."""
    found, true = mask > 0.5, truth > 0.5
    union = np.count_nonzero(found | true)
    return float(np.count_nonzero(found & true) / union) if union else 1.0


def pose_warp_error(frames: Frames, poses: Sequence[CameraPose], mask: np.ndarray | None = None) -> float:
    """Mean absolute difference between frame k and frame 0 seen from pose k, over all frames but the first.

    poses: the camera at each frame, the first the identity, as `CameraPath` gives them.
    mask: (f, h, w), the pixels of each frame that count, by default all. Pixels whose place on frame 0 lies
    outside of it never count, nor, with a mask, those that come from where frame 0's own mask is empty.
    Returns nan when nothing counts. This is the consistency that background smoothing promises (Text2Video-Zero,
    section 3.3.3) and ought to be read beside an error that does not know the motion.
    """
    height, width = frames.shape[1:3]
    difference, counted = 0.0, 0
    for number in range(1, len(frames)):
        positions = sample_positions(poses[number], height, width)
        x, y = (position.numpy() for position in positions)
        counts = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        if mask is not None:
            carried = cv2.remap((mask[0] > 0.5).astype(np.float32), x, y, cv2.INTER_LINEAR)
            counts &= (mask[number] > 0.5) & (carried > 0.999)
        seen = cv2.remap(frames[0].astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        difference += np.abs(seen - frames[number])[counts].sum(dtype=np.float64) / 255 / 3
        counted += np.count_nonzero(counts)
    return difference / counted if counted else float("nan")


def flow_warp_error(frames: Frames, mask: np.ndarray | None = None) -> float:
    """Warping error of a clip whose motion is unknown: mean squared difference of neighbouring frames.

    Frame k is warped to frame k - 1 along OpenCV's DIS optical flow (Kroeger et al. 2016); occluded pixels and
    motion boundaries, found as Ruder et al. (2016) do, do not count. The measure is that of Lai et al. (2018,
    "Learning Blind Video Temporal Consistency", equation 11), mean over pairs of frames.
    mask: (f, h, w), the pixels of each frame that count, by default all.
    Returns 0 for a single frame and nan when nothing counts.
    """
    if len(frames) == 1:
        return 0.0
    errors = []
    for number in range(1, len(frames)):
        before, after = frames[number - 1], frames[number]
        forward, backward = optical_flow(before, after), optical_flow(after, before)
        counts = ~occluded(forward, backward)
        if mask is not None:
            counts &= mask[number - 1] > 0.5
        if counts.any():
            difference = (warped_along(after, forward) - before) / 255
            errors.append(np.square(difference)[counts].mean(dtype=np.float64))
    return float(np.mean(errors)) if errors else float("nan")


def optical_flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where each pixel of `before` is found in `after`: (h, w, 2) float32, x and y in pixels. DIS, fine preset."""
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after))
    return estimator.calc(*grey, None)


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

    forward, backward: flows (h, w, 2) between two frames. Thresholds of Ruder et al. (2016), section 4.2.
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

"""Numbers that say how good a mask is and how steady a clip is. Pure functions on arrays.

Frames are (f, h, w, 3) uint8 RGB, read two at a time; masks (f, h, w) or (h, w), anything above one half counts
as foreground.
Errors are in shares of the full range of a colour, 0..1.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import cv2
import numpy as np

from text2video_zero.evaluation.flow import Flows
from text2video_zero.media.flow import warped_along
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


def flow_warp_error(frames: Frames, mask: np.ndarray | None = None, flows: Flows | None = None) -> float:
    """Warping error of a clip whose motion is unknown: mean squared difference of neighbouring frames.

    Frame k is warped to frame k - 1 along the optical flow; pixels that are not found again do not count. The
    measure is that of Lai et al. (2018, "Learning Blind Video Temporal Consistency", equation 11), mean over pairs
    of frames. To be read beside `coverage`: a clip that falls to pieces has little left that counts.
    mask: (f, h, w), the pixels of each frame that count, by default all.  flows: those of the frames, if at hand.
    Returns 0 for a single frame and nan when nothing counts.
    """
    if len(frames) == 1:
        return 0.0
    flows = flows or Flows.of(frames)
    errors = []
    for number, (before, after) in enumerate(pairwise(frames)):
        counts = flows.found_again[number] if mask is None else flows.found_again[number] & (mask[number] > 0.5)
        if counts.any():
            difference = (warped_along(after, flows.forward[number]) - before) / 255
            errors.append(np.square(difference)[counts].mean(dtype=np.float64))
    return float(np.mean(errors)) if errors else float("nan")


def coverage(flows: Flows) -> float:
    """Share of the pixels, 0..1, that the next frame shows too, and that `flow_warp_error` is taken over."""
    return float(flows.found_again.mean()) if flows.found_again.size else 1.0


def redrawn(flows: Flows) -> float:
    """Largest share of the pixels, 0..1, that one frame of a clip has and the next does not show again.

    Means over a clip do not see a single frame from which on the subject is another one; this does. The share that a
    moving camera leaves behind is in it, see that of the same picture under the same camera. 0 for a single frame.
    """
    return float(1 - flows.found_again.mean((1, 2)).min()) if flows.found_again.size else 0.0


def temporal_flicker(frames: Frames) -> float:
    """Mean absolute difference of neighbouring frames, 0..1; 0 for a single frame.

    VBench's temporal flickering (Huang et al. 2024, section 3.2) is 1 minus this, and is taken of still scenes.
    """
    changes = [np.abs(after.astype(np.float32) - before).mean() / 255 for before, after in pairwise(frames)]
    return float(np.mean(changes)) if changes else 0.0


def sharpness_kept(frames: Frames) -> float:
    """Energy of the later frames' second derivative over that of frame 0: 1 = as sharp, 0 = blurred away.

    The variance of the Laplacian (Pech-Pacheco et al. 2000), mean over the frames behind the first. nan for a single
    frame or a first one without any detail.
    """
    energies = [float(cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var()) for frame in frames]
    return float(np.mean(energies[1:]) / energies[0]) if len(energies) > 1 and energies[0] else float("nan")

"""Whether a clip is a control map already: yes only where there is hardly another explanation."""

from __future__ import annotations

import cv2
import numpy as np

from text2video_zero.pose import FACE_COLOUR, FINGER_COLOURS, JOINT_COLOURS, LIMB_COLOURS

LOOKED_AT = 8  # frames, spread over the clip
DARK, BRIGHT = 48, 208
GREY = 24  # largest difference between the colours of a pixel that is called grey; compression leaves that much


def looks_ready_made(frames: np.ndarray, kind: str) -> bool:
    """Whether frames (f, h, w, 3) uint8 are certainly control maps of a kind: "pose", "edge" or "depth".

    A clip that is none may be taken for none: the caller lets the person overrule this.
    """
    looks = {"pose": _looks_like_skeletons, "edge": _looks_like_edges, "depth": _looks_like_depth}[kind]
    chosen = np.linspace(0, len(frames) - 1, min(len(frames), LOOKED_AT)).round().astype(int)
    return all(looks(frame) for frame in frames[chosen])


def _looks_like_skeletons(frame: np.ndarray) -> bool:
    """Mostly black, and what is not is of the colours of limbs and joints, of many of them."""
    brightest = frame.max(-1)
    # The borders of limbs are mixed by scaling and compression; their insides are not.
    inside = cv2.erode((brightest > 2 * DARK).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    if (brightest < DARK).mean() < 0.7 or inside.sum() < 20:
        return False
    palette = np.array([*JOINT_COLOURS, *LIMB_COLOURS, *FINGER_COLOURS, FACE_COLOUR])
    distance = np.abs(frame[inside][:, None].astype(int) - palette).max(-1)  # (pixels, colours)
    of_limbs = distance[:, : len(JOINT_COLOURS) + len(LIMB_COLOURS)]
    seen = {int(colour) % len(JOINT_COLOURS) for colour in of_limbs.argmin(1)[of_limbs.min(1) < 40]}
    return bool((distance.min(1) < 40).mean() > 0.7 and len(seen) >= 6)


def _looks_like_edges(frame: np.ndarray) -> bool:
    """Thin white lines on black, and nothing between."""
    grey, colour = frame.mean(-1), np.ptp(frame, axis=-1)
    white = (grey > BRIGHT).astype(np.uint8)
    solid = cv2.erode(white, np.ones((5, 5), np.uint8))
    return bool(
        (colour <= GREY).mean() > 0.99
        and (grey < DARK).mean() > 0.6
        and white.mean() > 0.003
        and ((grey >= DARK) & (grey <= BRIGHT)).mean() < 0.08
        and solid.sum() < 0.1 * white.sum()
    )


def _looks_like_depth(frame: np.ndarray) -> bool:
    """Grey, from dark to bright, and nearly everywhere a gentle slope, which neither photos nor drawings are."""
    grey = frame.mean(-1).astype(np.float32)
    grey = cv2.GaussianBlur(grey, (0, 0), 1)
    slope = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)) / 8
    return bool(
        (np.ptp(frame, axis=-1) <= GREY / 2).mean() > 0.995
        and np.ptp(np.percentile(grey, (2, 98))) > 100
        and ((slope > 0.1) & (slope < 3)).mean() > 0.5
        and (slope > 8).mean() < 0.1
    )

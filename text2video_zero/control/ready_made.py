"""Whether a clip is a control map already: yes only where there is hardly another explanation."""

from __future__ import annotations

import cv2
import numpy as np

from text2video_zero.control.pose import FACE_COLOUR, FINGER_COLOURS, JOINT_COLOURS, LIMB_COLOURS

DARK, BRIGHT = 48, 208
SAMPLES = 1 << 14  # pixels of a frame whose colours are looked at; more cost memory and change nothing
GREY = 24  # largest difference between the colours of a pixel that is called grey; compression leaves that much


def looks_ready_made(frame: np.ndarray, kind: str) -> bool:
    """Whether a frame (h, w, 3) uint8 is certainly a control map of a kind: "pose", "edge" or "depth".

    Never for "depth", because nothing tells a depth map from a picture without colours. What is a control map
    may be taken for none: the caller lets the person overrule this. To be asked of frames as they were drawn: scaling
    mixes lines as thin as these with what is beside them.
    """
    if kind == "depth":
        return False
    return {"pose": _looks_like_skeletons, "edge": _looks_like_edges}[kind](frame)


def _looks_like_skeletons(frame: np.ndarray) -> bool:
    """Thin on black, in the colours of many limbs and, brighter, of many joints."""
    brightest = frame.max(-1)
    coloured = (brightest > 2 * DARK).astype(np.uint8)
    thickest = max(5, min(frame.shape[:2]) // 16)
    if (brightest < DARK).mean() < 0.7 or cv2.erode(
        coloured, np.ones((thickest, thickest))
    ).sum() > 0.1 * coloured.sum():
        return False
    # The borders of limbs are mixed by scaling and compression; their insides are not.
    inside = cv2.erode(coloured, np.ones((3, 3), np.uint8)) > 0
    if inside.sum() < 20:
        return False
    colours = frame[inside]
    colours = colours[:: -(-len(colours) // SAMPLES)].astype(int)
    palette = np.array([*LIMB_COLOURS, *JOINT_COLOURS, *FINGER_COLOURS, FACE_COLOUR])
    distance = np.abs(colours[:, None] - palette).max(-1)  # (pixels, colours)
    nearest = distance.argmin(1)[distance.min(1) < 40]
    limbs = nearest < len(LIMB_COLOURS)
    several = min(len(set(nearest[limbs])), len(set(nearest[~limbs])))
    return bool(len(nearest) > 0.7 * len(colours) and limbs.mean() > 0.2 and several >= 5)


def _looks_like_edges(frame: np.ndarray) -> bool:
    """Thin white lines on black, and next to nothing between."""
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

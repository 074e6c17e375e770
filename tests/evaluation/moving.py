"""Clips whose motion is known."""

from __future__ import annotations

import cv2
import numpy as np


def texture(height, width, seed=0):
    """A picture that optical flow can follow, (h, w, 3) uint8."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((height, width, 3)), (0, 0), 2.5)
    return np.round((noise - noise.min()) / (noise.max() - noise.min()) * 255).astype(np.uint8)


def panned(frames, pixels, side=64):
    """A window that moves over a texture: what it shows is known to move the other way."""
    wide = texture(side, side + frames * pixels)
    return np.stack([wide[:, k * pixels : k * pixels + side] for k in range(frames)])

"""The control maps of rendered pictures, from ground truth, in the form that the engine makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from text2video_zero.control.control_maps import CannyMapper
from text2video_zero.control.pose import draw_skeletons

if TYPE_CHECKING:
    from toyland.training.dataset import Pictures

__all__ = ["CONTROLS", "control_maps"]

CONTROLS = ("edge", "pose", "depth")


def control_maps(kind: str, pictures: Pictures, rows: np.ndarray) -> np.ndarray:
    """Control maps uint8 (n, h, w, 3) of some rows: Canny's edges, OpenPose skeletons, or depth."""
    images = pictures.images[rows]
    if kind == "edge":
        mapper = CannyMapper()
        return np.stack(list(mapper.drawn(mapper.seen(images), *images.shape[1:3])))
    if kind == "pose":
        skeletons = pictures.skeletons[rows]
        return np.stack([draw_skeletons(one[None], *images.shape[1:3]) for one in skeletons])
    return np.repeat(pictures.depths[rows][..., None], 3, axis=3)

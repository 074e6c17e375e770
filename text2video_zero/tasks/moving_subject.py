"""A subject that moves: the poses that a ControlNet draws it in, and what stays as it is around it."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from text2video_zero.control.figure import GROWN_UP, PICTURE_BOOK
from text2video_zero.control.movements import body_of, skeletons
from text2video_zero.media.files import readable_errors
from text2video_zero.media.frames import StoredFrames, spool_folder
from text2video_zero.models.catalogue import draws_picture_book
from text2video_zero.sampling.guidance import Control
from text2video_zero.sampling.motion.camera import shown_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from text2video_zero.control.figure import Build
    from text2video_zero.models.pipeline import Pipeline
    from text2video_zero.requests import TextToVideoRequest
    from text2video_zero.sampling.motion.plan import MotionPlan
    from text2video_zero.sampling.motion.split import SplitPose


def moving_control(
    request: TextToVideoRequest, pipeline: Pipeline, views: Sequence[SplitPose], plan: MotionPlan
) -> Control:
    """What draws the subject in the poses of its movements, one for each shot.

    views: the camera's at each frame. Raises UserError for a pipeline without ControlNet, and where the disk is full.
    """
    size, timesteps = request.concrete_size, frozenset([*plan.opening.timesteps, *plan.joint.timesteps])
    maps = (
        skeletons(movement, views[shot.start : shot.stop], request.fps, size, _build_of(pipeline), loop=request.loops)
        for movement, shot in zip(request.movements, request.shots, strict=True)
    )
    with readable_errors(spool_folder()):
        stored = StoredFrames.of(chain.from_iterable(maps))
    return Control(pipeline.needed_controlnet, stored, strength=1.0, active=timesteps)


def own_cells(
    control: Control, pipeline: Pipeline, views: Sequence[SplitPose], height: int, width: int
) -> torch.Tensor:
    """Masks (f, h, w) of the cells that are a frame's own, 1, and not its shot's first frame's, as the camera sees it.

    Where the skeletons of `moving_control` have the subject, and where the camera sees what the first frame does not.
    """
    build = _build_of(pipeline)
    masks = [
        _cells(body_of(skeleton, build), height, width) | ~shown_cells(view.cells, height, width)
        for skeleton, view in zip(control.maps, views, strict=True)
    ]
    return torch.stack(masks).float().to(pipeline.device)


def _cells(mask: np.ndarray, height: int, width: int) -> torch.Tensor:
    """Which cells (height, width) a mask of 0 and 1 in pixels touches."""
    return torch.from_numpy(cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)) > 0


def _build_of(pipeline: Pipeline) -> Build:
    return PICTURE_BOOK if draws_picture_book(pipeline.checkpoint) else GROWN_UP

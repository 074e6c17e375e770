"""A subject that moves: the poses that a ControlNet draws it in, and what stays as it is around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from text2video_zero.control.figure import GROWN_UP, PICTURE_BOOK
from text2video_zero.control.movements import MOVED
from text2video_zero.control.moving_figure import body_of, figure_of, poses, skeleton_of, trunk_of
from text2video_zero.media.files import readable_errors
from text2video_zero.media.frames import StoredFrames, spool_folder
from text2video_zero.models.catalogue import draws_picture_book
from text2video_zero.sampling.guidance import Control
from text2video_zero.sampling.motion.camera import shown_cells
from text2video_zero.sampling.smoothing import background

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from text2video_zero.control.moving_figure import Figure, Posed
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
    timesteps = frozenset([*plan.opening.timesteps, *plan.joint.timesteps])
    maps = (skeleton_of(posed, request.concrete_size) for _, posed in _poses(request, pipeline, views))
    with readable_errors(spool_folder()):
        stored = StoredFrames.of(maps)
    return Control(pipeline.needed_controlnet, stored, strength=1.0, active=timesteps)


def kept_in_view(
    latents: torch.Tensor, request: TextToVideoRequest, pipeline: Pipeline, views: Sequence[SplitPose]
) -> torch.Tensor:
    """Latents (f, c, h, w) of a scene that has moved, with a subject that goes along with the camera where it was.

    Where the scene has carried it to, it is not left behind: what the first frame has there is there. That is for its
    trunk alone; as far as it reaches, too much of the background would stand still.
    """
    height, width = latents.shape[-2:]
    cells = [
        _cells(trunk_of(posed, request.concrete_size), height, width) for _, posed in _poses(request, pipeline, views)
    ]
    trunk, kept = torch.stack(cells).float().to(latents.device), latents.clone()
    for moving, shot in zip(request.movements, request.shots, strict=True):
        if MOVED[moving.kind][moving.does].goes:
            rows = slice(shot.start, shot.stop)
            around = background(trunk[rows], [view.cells for view in views[rows]])
            kept[rows] = torch.where(around[:, None] > 0, latents[rows], latents[shot.start])
    return kept


def own_cells(
    request: TextToVideoRequest, pipeline: Pipeline, views: Sequence[SplitPose], height: int, width: int
) -> torch.Tensor:
    """Masks (f, h, w) of the cells that are a frame's own, 1, and not its shot's first frame's, as the camera sees it.

    Where the poses of `moving_control` have the subject, and where the camera sees what the first frame does not.
    """
    masks = [
        _cells(body_of(posed, request.concrete_size, figure), height, width) | ~shown_cells(view.cells, height, width)
        for (figure, posed), view in zip(_poses(request, pipeline, views), views, strict=True)
    ]
    return torch.stack(masks).float().to(pipeline.device)


def _poses(
    request: TextToVideoRequest, pipeline: Pipeline, views: Sequence[SplitPose]
) -> Iterator[tuple[Figure, Posed]]:
    """Who is seen at each view, and how."""
    build = PICTURE_BOOK if draws_picture_book(pipeline.checkpoint) else GROWN_UP
    for moving, shot in zip(request.movements, request.shots, strict=True):
        figure, seen = figure_of(moving.kind, build), views[shot.start : shot.stop]
        for posed in poses(moving, seen, request.fps, request.concrete_size, figure, loop=request.loops):
            yield figure, posed


def _cells(mask: np.ndarray, height: int, width: int) -> torch.Tensor:
    """Which cells (height, width) a mask of 0 and 1 in pixels touches."""
    return torch.from_numpy(cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)) > 0

"""A subject that moves: the poses that a ControlNet draws it in, frame by frame."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from text2video_zero.control.figure import GROWN_UP, PICTURE_BOOK
from text2video_zero.control.movements import skeletons
from text2video_zero.media.files import readable_errors
from text2video_zero.media.frames import StoredFrames, spool_folder
from text2video_zero.models.catalogue import draws_picture_book
from text2video_zero.sampling.guidance import Control

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    build = PICTURE_BOOK if draws_picture_book(pipeline.checkpoint) else GROWN_UP
    size, timesteps = request.concrete_size, frozenset([*plan.opening.timesteps, *plan.joint.timesteps])
    maps = (
        skeletons(movement, views[shot.start : shot.stop], request.fps, size, build, loop=request.loops)
        for movement, shot in zip(request.movements, request.shots, strict=True)
    )
    with readable_errors(spool_folder()):
        stored = StoredFrames.of(chain.from_iterable(maps))
    return Control(pipeline.needed_controlnet, stored, strength=1.0, active=timesteps)

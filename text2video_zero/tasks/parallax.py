"""A camera in the scene: what parallax needs, and finished frames as that camera sees them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import numpy as np

from text2video_zero.control.depth import network_depths
from text2video_zero.errors import FieldError, UserError
from text2video_zero.models.catalogue import depth_detector_of
from text2video_zero.requests import TextToVideoRequest
from text2video_zero.sampling.motion.parallax import DepthScale, Parallax
from text2video_zero.sampling.motion.split import SplitPose, completed

if TYPE_CHECKING:
    from collections.abc import Generator

    from text2video_zero.control.control_source import Detectors
    from text2video_zero.events import Event
    from text2video_zero.models.pipeline import Detector, Pipeline
    from text2video_zero.requests import VideoRequest

# A decoded frame (h, w, 3) uint8, its view and the first frame of its shot -> the frame as its camera sees it; called
# in the order of the frames.
SeenFrame = Callable[[np.ndarray, SplitPose, np.ndarray], np.ndarray]


def depth_detector(
    request: VideoRequest, pipeline: Pipeline, detectors: Detectors | None
) -> Generator[Event, None, str | None]:
    """The name of the depth detector that a request needs, downloaded if it is not here; None where it needs none.

    Raises UserError, before anything is sampled, when it cannot be had.
    """
    if not (isinstance(request, TextToVideoRequest) and request.motion and request.parallax):
        return None
    if detectors is None:
        raise TypeError("parallax needs depth: pass the model manager, which lends detectors")
    name = depth_detector_of(pipeline.checkpoint)
    try:
        yield from detectors.fetch_detector(name)
    except UserError as error:
        raise FieldError(
            f"Parallax is {request.parallax:g} and needs a depth detector, which cannot be had. {error} Or set "
            "parallax to 0."
        ) from error
    return name


@contextmanager
def camera_of(request: VideoRequest, detector: str | None, detectors: Detectors | None) -> Generator[SeenFrame]:
    """What makes of decoded frames what the camera sees; the detector, if there is one, is lent meanwhile."""
    if detector is None or detectors is None:
        yield completed
        return
    strength, scale = cast("TextToVideoRequest", request).parallax, None
    with detectors.lend_detector(detector) as lent:

        def seen(frame: np.ndarray, view: SplitPose, _first: np.ndarray) -> np.ndarray:
            nonlocal scale
            depth = network_depths(cast("Detector", lent), frame[None])[0]
            scale = scale or DepthScale.of(depth)
            return Parallax(strength, scale).seen(frame, depth, view)

        yield seen

"""From the clip of a request to its control maps: which detector, from the cache if it has looked before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from text2video_zero.control.control_maps import (
    OPENPOSE_LICENCE_NOTE,
    CannyMapper,
    ControlMapper,
    DepthMapper,
    MidasMapper,
    OpenPoseMapper,
    PoseMapper,
    missing_weights,
)
from text2video_zero.control.map_cache import MapKey
from text2video_zero.control.ready_made import looks_ready_made
from text2video_zero.errors import UserError
from text2video_zero.events import Event, Notice, Progress
from text2video_zero.generators import mapped
from text2video_zero.media.clips import glimpses, hashing
from text2video_zero.media.files import readable_errors
from text2video_zero.media.frames import spool_folder
from text2video_zero.requests.controlled import DepthFields, EdgeFields, PoseFields

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from contextlib import AbstractContextManager

    from controlnet_aux import MidasDetector, OpenposeDetector

    from text2video_zero.control.map_cache import MapCache
    from text2video_zero.media.clips import Clip
    from text2video_zero.media.frames import Frames
    from text2video_zero.models.checkpoints import DetectorCheckpoint
    from text2video_zero.models.pipeline import Detector
    from text2video_zero.requests import ControlledRequest

Found = TypeVar("Found")
LOOKED_AT = 8  # frames, spread over the clip, by which it is told whether it is a control map
# What the person chooses -> the name under which the manager lends it, and who draws with it; each wants its own kind
MapperTable = Mapping[str, tuple[str, Callable[..., ControlMapper]]]
POSE_MAPPERS: MapperTable = {"ViTPose": ("pose", PoseMapper), "OpenPose": ("openpose", OpenPoseMapper)}
DEPTH_MAPPERS: MapperTable = {
    "Depth Anything V2 Small": ("depth", DepthMapper),
    "DPT-hybrid": ("depth-dpt-hybrid", DepthMapper),
    "MiDaS": ("midas", MidasMapper),
}


class Detectors(Protocol):
    """Who lends the networks that see poses and depth, and keeps the maps that were made: the model manager.

    map_cache: control maps that were made before.
    """

    map_cache: MapCache

    def fetch_detector(self, detector: str) -> Iterator[Progress]:
        """Download what a known name stands for, with progress; nothing if it is here. Raises UserError."""
        ...

    def lend_detector(
        self, detector: str | DetectorCheckpoint
    ) -> AbstractContextManager[Detector | OpenposeDetector | MidasDetector]:
        """What sees poses or depth, by its known name or what to load, for a context's length; raises UserError."""
        ...


def control_maps(request: ControlledRequest, clip: Clip, detectors: Detectors | None) -> Generator[Event, None, Frames]:
    """Control maps (f, h, w, 3) uint8 for the frames of a request's clip.

    detectors: may be None for clips that are control maps already, which are taken as they are.
    Raises UserError when a detector cannot be had or finds nothing.
    """
    if (yield from is_ready_made(request, clip)):
        yield Notice("The clip is taken as a control map.")
        return clip.frames
    if detectors is None:
        raise TypeError("control maps are to be made: pass the model manager, which lends detectors")
    key = MapKey(
        file=(yield from _looking(hashing(Path(request.clip)))),
        detector=detector_name(request),
        settings=detector_settings(request),
        size=clip.size,
        fps=clip.fps,
        first_frame=request.first_frame,
        frames=len(clip.frames),
    )
    if detector_name(request) == "OpenPose":
        yield Notice(OPENPOSE_LICENCE_NOTE)
    maps = detectors.map_cache.get(key)
    if maps is None:
        if request.control != "edge":
            yield from _fetched(request, detectors)
        with mapper_of(request, detectors) as mapper, readable_errors(spool_folder()):
            stage, count = f"Looking for {request.control}", len(clip.frames)
            maps = yield from mapped(mapper.steps(clip.frames), lambda done: Progress(stage, done, count))
        detectors.map_cache.put(key, maps)
    return maps


def is_ready_made(request: ControlledRequest, clip: Clip) -> Generator[Event, None, bool]:
    """What the person says, or where that is left open, what is certain; yields now and then while it looks."""
    if request.ready_made != "detect" or request.control == "depth":  # no depth map is certain
        return request.ready_made == "yes"
    return (yield from _looking(_certain(request, clip)))


def _certain(request: ControlledRequest, clip: Clip) -> Generator[None, None, bool]:
    with closing(glimpses(Path(request.clip), clip, request.first_frame, LOOKED_AT)) as frames:
        for frame in frames:
            if not (frame is None or looks_ready_made(frame, request.control)):
                return False
            yield
    return True


def _looking(steps: Generator[None, None, Found]) -> Generator[Event, None, Found]:
    """Tell that something is done to the clip whose length nobody knows."""
    return mapped(steps, lambda _: Progress("Looking at the clip", 0, 1))


def detector_name(request: ControlledRequest) -> str:
    """The detector that a request asks for, by the name that the person sees."""
    match request.control, request:
        case "pose", PoseFields():
            return request.pose_detector
        case "depth", DepthFields():
            return request.depth_detector
        case _:
            return "Canny"


def detector_settings(request: ControlledRequest) -> dict[str, Any]:
    """The settings of that detector which change what it draws."""
    match request.control, request:
        case "edge", EdgeFields():
            return {"low": request.canny_low, "high": request.canny_high}
        case "pose", PoseFields():
            return {"hands_and_face": request.hands_and_face and request.pose_detector == "OpenPose"}
        case _:
            return {}


def _fetched(request: ControlledRequest, detectors: Detectors) -> Iterator[Event]:
    """Download the detector's weights if they are not here."""
    lent_as, _ = {**POSE_MAPPERS, **DEPTH_MAPPERS}[detector_name(request)]
    try:
        yield from detectors.fetch_detector(lent_as)
    except UserError as error:
        raise missing_weights(request.control, detector_name(request), error) from error


@contextmanager
def mapper_of(request: ControlledRequest, detectors: Detectors) -> Generator[ControlMapper]:
    """What draws the control maps; its networks are lent for the length of the context."""
    settings = detector_settings(request)
    if request.control == "edge":
        yield CannyMapper(**settings)
        return
    lent_as, mapper_class = {**POSE_MAPPERS, **DEPTH_MAPPERS}[detector_name(request)]
    with ExitStack() as lent:
        try:
            detector = lent.enter_context(detectors.lend_detector(lent_as))
        except UserError as error:
            raise missing_weights(request.control, detector_name(request), error) from error
        yield mapper_class(detector, **settings) if mapper_class is OpenPoseMapper else mapper_class(detector)

"""Requests: one frozen, self-describing record per task."""

from text2video_zero.requests.controlled import (
    ControlledRequest,
    DepthRequest,
    DreamBoothRequest,
    EdgeRequest,
    PoseRequest,
)
from text2video_zero.requests.fields import FieldSpec, Kind, Request, Size
from text2video_zero.requests.instructed import InstructPix2PixRequest
from text2video_zero.requests.text_to_video import TextToVideoRequest
from text2video_zero.requests.video import ClipRequest, FewStepRequest, StartPictureRequest, VideoRequest

# By task, in the order in which they are offered.
REQUESTS: dict[str, type[VideoRequest]] = {
    request.task: request
    for request in (
        TextToVideoRequest,
        PoseRequest,
        EdgeRequest,
        DepthRequest,
        DreamBoothRequest,
        InstructPix2PixRequest,
    )
}

__all__ = [
    "REQUESTS",
    "ClipRequest",
    "ControlledRequest",
    "DepthRequest",
    "DreamBoothRequest",
    "EdgeRequest",
    "FewStepRequest",
    "FieldSpec",
    "InstructPix2PixRequest",
    "Kind",
    "PoseRequest",
    "Request",
    "Size",
    "StartPictureRequest",
    "TextToVideoRequest",
    "VideoRequest",
]

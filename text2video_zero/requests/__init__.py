"""Requests: one frozen, self-describing record per task."""

from text2video_zero.requests.fields import FieldSpec, Kind, Request, Size
from text2video_zero.requests.text_to_video import TextToVideoRequest
from text2video_zero.requests.video import ClipRequest, VideoRequest

REQUESTS: dict[str, type[VideoRequest]] = {request.task: request for request in (TextToVideoRequest,)}

__all__ = ["REQUESTS", "ClipRequest", "FieldSpec", "Kind", "Request", "Size", "TextToVideoRequest", "VideoRequest"]

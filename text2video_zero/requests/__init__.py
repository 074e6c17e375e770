"""Requests: one frozen, self-describing record per task."""

from text2video_zero.requests.fields import FieldSpec, Kind, Request, Size
from text2video_zero.requests.text_to_video import TextToVideoRequest

REQUESTS: dict[str, type[Request]] = {request.task: request for request in (TextToVideoRequest,)}

__all__ = ["REQUESTS", "FieldSpec", "Kind", "Request", "Size", "TextToVideoRequest"]

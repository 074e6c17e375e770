"""Runs that nobody watches: for tests that ask for the end alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from text2video_zero.generate import sample
from text2video_zero.generators import result_of

if TYPE_CHECKING:
    from text2video_zero.models.pipeline import Pipeline
    from text2video_zero.requests import VideoRequest


@torch.inference_mode()
def sampled(request: VideoRequest, pipeline: Pipeline) -> torch.Tensor:
    """The final latents (f, c, h, w) of a request."""
    return result_of(sample(request, pipeline)).latents

"""Runs that nobody watches: for tests that ask for the end alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch

from text2video_zero.generate import sample

if TYPE_CHECKING:
    from collections.abc import Generator

    from text2video_zero.pipeline import Pipeline
    from text2video_zero.requests import VideoRequest

Value = TypeVar("Value")


def result_of(run: Generator[object, None, Value]) -> Value:
    """What a run returns, its events passed over."""
    while True:
        try:
            next(run)
        except StopIteration as finished:
            return finished.value


@torch.inference_mode()
def sampled(request: VideoRequest, pipeline: Pipeline) -> torch.Tensor:
    """The final latents (f, c, h, w) of a request."""
    return result_of(sample(request, pipeline)).latents

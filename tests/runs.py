"""Short runs of tiny weights, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from text2video_zero.generate import sample
from text2video_zero.generators import result_of
from text2video_zero.requests import Size, TextToVideoRequest

if TYPE_CHECKING:
    from text2video_zero.models.pipeline import Pipeline
    from text2video_zero.requests import VideoRequest

PROMPT = "a red panda dancing in the snow"


@torch.inference_mode()
def sampled(request: VideoRequest, pipeline: Pipeline) -> torch.Tensor:
    """The final latents (f, c, h, w) of a request."""
    return result_of(sample(request, pipeline)).latents


def order(**changes):
    """A short text-to-video request."""
    defaults = {"prompt": PROMPT, "frames": 4, "steps": 5, "seed": 7, "size": Size(64, 64)}
    return TextToVideoRequest(**(defaults | changes))


class EvaluationCount:
    """Counts the frames that go through the UNet, guidance branches not counted."""

    def __init__(self, unet, branches):
        self.frames = 0
        self.batches = []
        self.branches = branches
        self.handle = unet.register_forward_pre_hook(self.count)

    def count(self, _module, inputs):
        self.batches.append(len(inputs[0]) // self.branches)
        self.frames += self.batches[-1]

"""Everything that a request changes inside the models, for the length of its run."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from text2video_zero.attention.cross_frame import cross_frame_attention
from text2video_zero.attention.text_keys import text_memory
from text2video_zero.attention.token_merging import token_merging
from text2video_zero.requests import TextToVideoRequest

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

    from diffusers.models.modeling_utils import ModelMixin

    from text2video_zero.attention.branches import Branches
    from text2video_zero.attention.cross_frame import FrameMemory
    from text2video_zero.requests import VideoRequest


@contextmanager
def attention_of(request: VideoRequest, branches: Branches, *models: ModelMixin) -> Generator[FrameMemory | None]:
    """The attention that a request asks for: cross-frame or what the models have, with cells merged or not.

    branches: of every batch. Open for one run, that is for one set of prompts. Prompts of a
    storyboard differ between frames, so that nothing of them is kept. Yields the memory of cross-frame attention, None
    without it.
    """
    across: AbstractContextManager[FrameMemory | None] = nullcontext()
    if request.cross_frame_attention:
        across = cross_frame_attention(*models, branches=branches, references=request.reference_frames)
    changes = isinstance(request, TextToVideoRequest) and request.storyboard
    texts = nullcontext() if changes else text_memory(*models, branches=branches)
    with across as memory, token_merging(request.token_merging, *models), texts:
        yield memory

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

    from diffusers.models.modeling_utils import ModelMixin

    from text2video_zero.attention.cross_frame import FrameMemory
    from text2video_zero.requests import VideoRequest


@contextmanager
def attention_of(request: VideoRequest, *models: ModelMixin) -> Generator[FrameMemory | None]:
    """The attention that a request asks for: cross-frame or what the models have, with cells merged or not.

    Open for one run, that is for one set of prompts, whose first frame goes first and alone. Prompts of a storyboard
    differ between frames, so that nothing of them is kept. Yields the memory of cross-frame attention, None without it.
    """
    references = request.reference_frames
    across = cross_frame_attention(*models, references=references) if request.cross_frame_attention else None
    changes = isinstance(request, TextToVideoRequest) and request.storyboard
    texts = nullcontext() if changes else text_memory(*models)
    with across or nullcontext() as memory, token_merging(request.token_merging, *models), texts:
        yield memory

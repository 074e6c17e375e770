"""What the person is told while a clip is sampled."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from text2video_zero.events import Event, Preview, Progress
from text2video_zero.sampling.share import WHOLE

if TYPE_CHECKING:
    from collections.abc import Generator

    import torch

    from text2video_zero.sampling.denoising import ChunkDone
    from text2video_zero.sampling.preview import PreviewDecoder
    from text2video_zero.sampling.share import Share

PREVIEWS_PER_RUN = 10
DECODE_COST = 1.5  # of one frame, in UNet evaluations with guidance: 1,257 against 2 x 402 GMAC at SD 1.5


@dataclass
class ProgressReporter:
    """Turns the chunks of one run into events, and keeps its clock.

    evaluations: frames that will go through the UNet in the whole run, all steps counted but those that were kept.
    frames, steps: length of the clip and of the schedule. share: the frames that are made, and previewed.
    """

    preview_decoder: PreviewDecoder
    evaluations: int
    frames: int
    steps: int
    share: Share = WHOLE
    began: float = field(default_factory=time.monotonic)
    done: int = 0

    def reported(
        self, loop: Generator[ChunkDone, None, torch.Tensor], stage: str
    ) -> Generator[Event, None, torch.Tensor]:
        """Run a denoising loop to its end, with events for what happens; returns what the loop returns."""
        preview_every = max(1, self.steps // PREVIEWS_PER_RUN)
        while True:
            try:
                chunk = next(loop)
            except StopIteration as finished:
                return finished.value
            if chunk.was_kept:
                self.evaluations -= chunk.frames
            else:
                self.done += chunk.frames
            yield Progress(stage, chunk.step - (chunk.clean is None), chunk.of, self._seconds_left())
            if chunk.clean is not None and chunk.step % preview_every == 0:
                is_opening = len(chunk.clean) < self.frames  # of the first frame alone, which all shares begin with
                shown = chunk.clean if is_opening else chunk.clean[self.share.rows(self.frames)]
                if len(shown):
                    yield Preview(self.preview_decoder.frames(shown))

    def _seconds_left(self) -> float | None:
        if not self.done:
            return None
        total = self.evaluations / self.share.of + DECODE_COST * len(self.share.frames(self.frames))
        return (time.monotonic() - self.began) / self.done * max(0.0, total - self.done)

"""The safety checker: frames that show what strangers must not be shown make no video.

It is Stable Diffusion's own, a CLIP vision model that compares each frame with seventeen unwanted concepts; it errs
on either side. A clip of which it blocks a frame is withheld as a whole and said to be: a black or a blurred frame
among the others would be a worse clip and no less of a hint. Previews are not looked at: where frames are, they are
the colours of the latents alone, at an eighth of the size.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING

import torch

from text2video_zero.device.precision import not_imitated
from text2video_zero.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor

FRAMES_AT_A_TIME = 8


@dataclass(frozen=True)
class SafetyChecker:
    """What looks at finished frames, and with what they are prepared for it."""

    network: StableDiffusionSafetyChecker
    processor: CLIPImageProcessor

    @torch.inference_mode()
    def blocks(self, frames: Sequence[np.ndarray]) -> list[bool]:
        """Whether each of the frames (height, width, 3) uint8 RGB is blocked."""
        prepared = self.processor(list(frames), return_tensors="pt").pixel_values
        with not_imitated(self.network):
            prepared = prepared.to(self.network.device, self.network.dtype)
            # The vectorised form of its rule, which says nothing of black pictures; those it blackens are a stand-in.
            _, blocked = self.network.forward_onnx(prepared, torch.ones(len(frames), device=prepared.device))
        return blocked.tolist()

    def passed(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The frames (height, width, 3) uint8 RGB of a clip, each after it was looked at.

        Raises UserError, naming all frames that are blocked; from the first of them on no frame is handed out.
        """
        left = iter(frames)
        blocked: list[int] = []
        seen = 0
        while chunk := list(islice(left, FRAMES_AT_A_TIME)):
            blocked += [seen + number for number, is_blocked in enumerate(self.blocks(chunk)) if is_blocked]
            seen += len(chunk)
            if not blocked:
                yield from chunk
        if blocked:
            raise UserError(
                f"The safety checker blocked {_spans(blocked)} of {seen}, so there is no video: change the prompt or "
                "the seed."
            )


def _spans(numbers: Sequence[int]) -> str:
    """Frames in words, counted from 1: "frame 3", "frames 1 to 4 and 7"."""
    runs = groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])  # consecutive ones keep this difference
    parts = []
    for _, run in runs:
        (_, first), *rest = run
        parts.append(f"{first + 1} to {rest[-1][1] + 1}" if rest else f"{first + 1}")
    *others, last = parts
    listed = f"{', '.join(others)} and {last}" if others else last
    return f"frame{'s' if len(numbers) > 1 else ''} {listed}"

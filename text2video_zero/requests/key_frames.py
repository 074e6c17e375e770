"""Key frames: what shall be at some frames of a video, as the person writes it; in between it changes little by little.

12: a fox on the beach; 24: a fox in the city
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

from text2video_zero.errors import FieldError

LAST_FRAME = 1_000_000


def read_key_frames(text: str, label: str, example: str) -> list[tuple[int, str]]:
    """Frames, from 1 on and in rising order, with the text of each; lines and semicolons part them.

    label: of the field, and an example of it, for the message. Raises UserError for anything else.
    """
    found: list[tuple[int, str]] = []
    for part in filter(None, (part.strip() for part in re.split(r"[;\n]", text))):
        number, colon, value = part.partition(":")
        if not colon or not re.fullmatch(r"\s*\d{1,9}\s*", number) or not value.strip():
            raise FieldError(f"{label} has {part[:60]!r}: write 'FRAME: …; FRAME: …', {example}.")
        frame = int(number)
        if not 1 <= frame <= LAST_FRAME:
            raise FieldError(f"{label} names frame {frame}: give frames from 1 on, for frame 0 is where it begins.")
        if found and frame <= found[-1][0]:
            raise FieldError(f"{label} names frame {frame} after frame {found[-1][0]}: give them in rising order.")
        found.append((frame, value.strip()))
    return found


@dataclass(frozen=True)
class Between:
    """Where a frame is among key frames: a share of the way, 0..1, from one to the next, by their numbers."""

    before: int
    after: int
    share: float

    @classmethod
    def of(cls, frame: int, keys: tuple[int, ...]) -> Between:
        """keys: frames in rising order, the first of them 0. After the last one all is as there."""
        after = bisect_right(keys, frame)
        if after == len(keys):
            return cls(after - 1, after - 1, 0.0)
        begin, end = keys[after - 1 : after + 1]
        return cls(after - 1, after, (frame - begin) / (end - begin))

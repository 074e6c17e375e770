"""What a tab shows before its first run: an example video, made by the same engine, and what it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from text2video_zero.media.video import read_settings
from text2video_zero.models.catalogue import ASSETS

if TYPE_CHECKING:
    from pathlib import Path

CLIPS = ASSETS / "clips"
RESULTS = CLIPS / "results"


@dataclass(frozen=True)
class Showcase:
    """A finished example.

    video: carries the settings that made it.  guide: the clip that plays beside it, None for tasks without.
    """

    video: Path
    guide: Path | None

    @property
    def caption(self) -> str:
        """How the example was made, in one sentence."""
        settings = read_settings(self.video)
        request = settings["request"]
        return f"Example: \u201c{request['prompt']}\u201d, made with {settings['model']}, seed {request['seed']}."


def find_showcase(task: str, folder: Path = RESULTS) -> Showcase | None:
    """The example of a task, None where none has been rendered."""
    video, guide = folder / f"{task}.mp4", folder / f"{task}-guide.mp4"
    if not video.is_file():
        return None
    return Showcase(video, guide if guide.is_file() else None)

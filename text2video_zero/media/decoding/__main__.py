"""The process behind the wall: `clip_reader` writes what it wants of a clip, a line of JSON each; pictures come back.

An answer is a line of JSON, followed by the bytes of a picture where it says so. Every error here is the file's doing
until the opposite is shown: it becomes a sentence, and its traceback travels along.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from text2video_zero.errors import UserError
from text2video_zero.media.decoding.facts import FORMATS_TO_GIVE, Limits
from text2video_zero.media.decoding.pictures import MovingPicture, Pictures, open_pictures, reason

if TYPE_CHECKING:
    from text2video_zero.media.decoding.video import Video


def main() -> None:
    """Serve one clip after the other until nobody asks any more."""
    path, source = Path(), None
    for line in sys.stdin.buffer:
        order = json.loads(line)
        path = Path(order.get("path", path))
        try:
            if "path" in order:
                source = None  # the clip before closes its files
                source = _opened(path, Limits(**order["limits"]))
                _answer(facts=dataclasses.asdict(source.facts), packets=source.packets)
            elif source is not None:
                for picture in source.pictures(order["numbers"], order["rate"], tuple(order["size"])):
                    _answer(picture.tobytes())
                _answer(packets=source.packets)
        except UserError as error:
            _answer(refused=str(error), trace="")
        except Exception as error:  # noqa: BLE001 - see above
            sentence = f"The clip {path.name} cannot be read ({reason(error)}): give {FORMATS_TO_GIVE}."
            _answer(refused=sentence, trace=traceback.format_exc())


def _opened(path: Path, limits: Limits) -> Pictures | MovingPicture | Video:
    _confine(limits)
    pictures = open_pictures(path, limits)
    if pictures is not None:
        return pictures
    from text2video_zero.media.decoding.video import Video  # pictures need no PyAV

    return Video(path, limits)


def _confine(limits: Limits) -> None:
    """Give the process no more memory than that, and no file to write to, where the system has such limits."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _answer(picture: bytes = b"", **values: Any) -> None:
    answers = sys.stdout.buffer
    answers.write(json.dumps(values | {"bytes": len(picture)}).encode() + b"\n")
    answers.write(picture)
    answers.flush()


if __name__ == "__main__":
    main()

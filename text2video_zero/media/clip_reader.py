"""This side of the wall: a process decodes one clip, is waited for without being trusted, and can be ended any time.

Its answers are numbers, sentences and pixels, read as such: nothing that comes back is ever executed.
"""

from __future__ import annotations

import atexit
import dataclasses
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self, cast

from text2video_zero.errors import UserError
from text2video_zero.media.decoding.facts import FORMATS_TO_GIVE, Facts, Limits
from text2video_zero.requests.fields import Size

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import numpy as np

    Picture = np.ndarray[Any, np.dtype[np.uint8]]  # (h, w, 3) RGB

LIMITS = Limits()
_HOME = Path(__file__).parents[2]
REPLACED_AFTER = 50  # clips; what libraries leave lying about counts against the limit of memory
GOING_SECONDS = 3.0
"""How long a process may take to end by itself."""
LOOK_AGAIN_SECONDS = 0.1
"""How often whoever waits for a picture may stop waiting."""


class ClipInfo(Facts):
    """What a clip holds, as those who read clips see it."""

    @property
    def size(self) -> Size:
        """As shown, turned upright and with square pixels."""
        return Size(self.width, self.height)


class DecodingError(Exception):
    """What happened in the decoder's process, with its traceback, behind the sentence that a person gets."""


class ClipReader:
    """One clip, open in a process of its own until the context ends.

    A process that has answered everything it was asked serves the next clip, so that nobody waits for a new one to
    start; one that was stopped, broke down or took too long is ended.
    packets: of the file, read so far.
    """

    def __init__(self, path: Path, limits: Limits = LIMITS) -> None:
        self.packets = 0
        self._path, self._limits = path, limits
        self._decoder = _idle_decoder() or Decoder()
        self._decoder.order(path=str(path.absolute()), limits=dataclasses.asdict(limits))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._decoder.owes or self._decoder.served >= REPLACED_AFTER:
            self._decoder.close()
            return
        try:
            IDLE.put_nowait(self._decoder)
        except queue.Full:
            self._decoder.close()

    def opening(self) -> Generator[None, None, ClipInfo]:
        """Wait for what the clip holds; yields now and then. Raises UserError, one sentence, if it cannot be read."""
        answer, _ = yield from self._answer()
        return ClipInfo(**answer["facts"] | {"remarks": tuple(answer["facts"]["remarks"])})

    def reading(self, numbers: Sequence[int], rate: float, size: Size) -> Generator[Picture | None, None, None]:
        """Pictures by their numbers, and None now and then while the next is waited for.

        numbers: ascending.  rate: frames per second at which they are counted; picture k is what is on the screen
        k / rate seconds after the first one. Fewer come where the clip is damaged; UserError where there is none.
        """
        import numpy as np  # late: every mistake in the options comes by here

        self._decoder.order(numbers=list(numbers), rate=rate, size=size)
        while True:
            _, pixels = yield from self._answer()
            if not pixels:
                return
            yield np.frombuffer(pixels, np.uint8).reshape(size.height, size.width, 3)

    def _answer(self) -> Generator[None, None, tuple[dict[str, Any], bytes]]:
        patience = time.monotonic() + self._limits.seconds
        while (answered := self._decoder.answer(LOOK_AGAIN_SECONDS)) is None:
            if time.monotonic() > patience:
                raise self._refusal(f"it takes longer than {self._limits.seconds:.0f} seconds")
            yield
        answer, pixels = answered
        if not answer:
            told = self._decoder.last_words()
            raise self._refusal("its decoder broke down over it, or ran out of memory") from DecodingError(told)
        if "refused" in answer:
            raise UserError(answer["refused"]) from DecodingError(answer["trace"])
        self.packets = answer.get("packets", self.packets)
        return answer, pixels

    def _refusal(self, reason: str) -> UserError:
        return UserError(f"The clip {self._path.name} cannot be read ({reason}): give {FORMATS_TO_GIVE}.")


class Decoder:
    """A process that decodes one clip after the other, see `text2video_zero.media.decoding.__main__`.

    owes: whether an order is not answered to its end.  served: clips it was given.
    """

    def __init__(self) -> None:
        self.owes, self.served = False, 0
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        # -P: what lies in the current folder is not taken for a module, but for this package, which may have been found
        # there. Few arenas: their address space counts.
        places = os.pathsep.join((str(_HOME), *filter(None, sys.path)))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "text2video_zero.media.decoding"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=os.environ | {"PYTHONPATH": places, "MALLOC_ARENA_MAX": "2"},
        )
        self._answers: queue.Queue[tuple[dict[str, Any], bytes]] = queue.Queue(1)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        weakref.finalize(self, _ended, self._process, self._listener)

    @property
    def is_alive(self) -> bool:
        """Whether there is somebody to ask."""
        return self._process.poll() is None

    def order(self, **values: Any) -> None:
        """Ask for something; a process that is gone says so in its answer."""
        self.owes = True
        self.served += "path" in values
        pipe = cast("IO[bytes]", self._process.stdin)
        with suppress(BrokenPipeError):
            pipe.write(json.dumps(values).encode() + b"\n")
            pipe.flush()

    def answer(self, seconds: float) -> tuple[dict[str, Any], bytes] | None:
        """The next answer with its pixels, None if there is none after some seconds; empty when the process is gone."""
        try:
            answer, pixels = self._answers.get(timeout=seconds)
        except queue.Empty:
            return None
        self.owes = not answer or bool(pixels)
        return answer, pixels

    def last_words(self) -> str:
        """What a process that is going has left; one that does not go, and so may have been taken over, is ended.

        Raises RuntimeError where it never began, which is a bug.
        """
        try:
            status = self._process.wait(GOING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._complaints.seek(0)
        told = f"status {status}: {self._complaints.read().decode(errors='replace')}"
        if status == 1:
            raise RuntimeError(f"the decoder of clips does not start: {told}")
        return told

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        while self._listener.is_alive():  # it may be waiting to hand an answer over
            self.answer(LOOK_AGAIN_SECONDS)
        with suppress(BrokenPipeError), self._process:  # closes the pipes; an order that nobody read is lost
            self._complaints.close()

    def _listen(self) -> None:
        """Take answers from the pipe as they come, the last of them empty."""
        pipe = cast("IO[bytes]", self._process.stdout)
        with suppress(ValueError, KeyError, OSError):
            while line := pipe.readline():
                answer = json.loads(line)
                pixels = pipe.read(answer["bytes"])
                if len(pixels) < answer["bytes"]:  # it broke down within a picture
                    break
                self._answers.put((answer, pixels))
        self._answers.put(({}, b""))


def _idle_decoder() -> Decoder | None:
    """The process that waits for a clip, if there is one and nobody has ended it meanwhile."""
    try:
        decoder = IDLE.get_nowait()
    except queue.Empty:
        return None
    if decoder.is_alive:
        return decoder
    decoder.close()
    return None


def _ended(process: subprocess.Popen[bytes], listener: threading.Thread) -> None:
    """End the process with this program: a thread that still listens then would bring Python down."""
    process.kill()
    listener.join(LOOK_AGAIN_SECONDS)


IDLE: queue.Queue[Decoder] = queue.Queue(1)
"""The process that waits for the next clip; it goes when this program does."""


@atexit.register
def _close_idle() -> None:
    if (decoder := _idle_decoder()) is not None:
        decoder.close()

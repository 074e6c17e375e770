"""ffmpeg in its own process: pictures go in one by one, its output comes back, and its complaints become errors."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from text2video_zero.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import IO

    import numpy as np

FFMPEG_REMEDY = "install imageio-ffmpeg again, or set IMAGEIO_FFMPEG_EXE to an ffmpeg that has libx264"


def run_ffmpeg(arguments: list[str], stdin: Iterable[np.ndarray] = (), *, seconds: float | None = None) -> bytes:
    """Run ffmpeg and return its standard output.

    stdin: pictures that it reads, handed over one after the other; with them it must write to a file.
    seconds: how long it may take when it has got all pictures; None for as long as it takes.
    imageio_ffmpeg's own writer is not used: it neither looks at ffmpeg's exit status nor keeps its message.
    Raises OSError for a full disk or a missing permission, UserError for everything else that fails.
    """
    # Late: every mistake in the options comes by here.
    import imageio_ffmpeg
    import numpy as np

    with tempfile.TemporaryFile() as complaints:
        try:
            command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-v", "error", *arguments]
            ffmpeg = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints
            )
        except (RuntimeError, OSError) as error:
            raise UserError(f"The video encoder ffmpeg cannot be started ({error}): {FFMPEG_REMEDY}.") from error
        with ffmpeg:
            try:
                # It closes its end when it fails, and tells then why.
                with suppress(BrokenPipeError):
                    pipe = cast("IO[bytes]", ffmpeg.stdin)
                    for picture in stdin:
                        pipe.write(np.ascontiguousarray(picture).data.cast("B"))
                output, _ = ffmpeg.communicate(timeout=seconds)
            except subprocess.TimeoutExpired as error:
                raise UserError(f"ffmpeg takes longer than {seconds:.0f} seconds: give it another file.") from error
            finally:
                ffmpeg.kill()
        complaints.seek(0)
        _raise_failure(ffmpeg.returncode, complaints.read().decode(errors="replace").strip())
    return output


def _raise_failure(status: int, message: str) -> None:
    """Raise what an exit status of ffmpeg other than 0 stands for, by what it wrote before."""
    if status:
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            if os.strerror(number) in message:
                raise OSError(number, os.strerror(number))
        reason = message.splitlines()[-1] if message else f"it stopped with status {status}"
        raise UserError(f"The video encoder ffmpeg failed ({reason}): {FFMPEG_REMEDY}.")

"""Downloads in pieces: told in bytes, stopped after any piece, and gone on with where they were left.

The Hub's own client keeps no half of a file, and cannot be stopped in the middle of one. So the large files are
brought here, into the client's cache and under its names; the client finds them there and does the rest.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import hf_raise_for_status

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

PIECE = 2**20  # bytes that are read at once
ATTEMPTS = 5  # in a row that bring nothing, before a broken connection is an error
PAUSE_SECONDS = 0.2  # between two looks at a lock, and before a new attempt
SILENCE_SECONDS = 30  # after which a connection counts as broken
SUFFIX = ".incomplete"


def downloaded(url: str, headers: dict[str, str], size: int, file: Path, lock: Path) -> Generator[int]:
    """Bring a file of `size` bytes; yields the bytes that are here, after every piece.

    headers: of the request.  lock: held meanwhile, so that of several programs one brings the file.
    What is here already, of an earlier attempt too, is not brought again. Closing the iterator keeps what is
    here. Raises the Hub client's HTTPError when the connection breaks again and again, OSError for the disk.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + SUFFIX)
    held = FileLock(lock, thread_local=False)  # a generator's next() comes from a different thread each time
    while not file.exists():
        try:
            held.acquire(timeout=0)
        except Timeout:
            yield bytes_of(partial)
            time.sleep(PAUSE_SECONDS)
            continue
        try:
            if not file.exists():
                yield from _pieces(url, headers, size, partial)
                partial.replace(file)
        finally:
            held.release()
    yield size


def bytes_of(file: Path) -> int:
    """Size of a file, nought where there is none."""
    return file.stat().st_size if file.exists() else 0


def _pieces(url: str, headers: dict[str, str], size: int, partial: Path) -> Generator[int]:
    """Fill the partial file up to its size, over as many connections as it takes."""
    attempts = ATTEMPTS
    while (here := bytes_of(partial)) != size:
        if here > size:  # left by another version of the file
            partial.unlink()
        try:
            for reached in _one_connection(url, headers, partial):
                attempts = ATTEMPTS
                yield reached
        except HfHubHTTPError:  # an answer, and no broken connection
            raise
        except HTTPError:
            attempts -= 1
            if not attempts:
                raise
            time.sleep(PAUSE_SECONDS)


def _one_connection(url: str, headers: dict[str, str], partial: Path) -> Generator[int]:
    begin = bytes_of(partial)
    asked = headers | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begin}-"} if begin else {})
    with get_session().stream("GET", url, headers=asked, timeout=SILENCE_SECONDS) as response:
        hf_raise_for_status(response)
        goes_on = begin > 0 and response.status_code == 206
        with partial.open("ab" if goes_on else "wb") as file:
            for piece in response.iter_bytes(PIECE):
                file.write(piece)
                file.flush()
                yield file.tell()

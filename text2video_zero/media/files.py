"""Files: read if they are any, written whole or not at all, by names that nobody guesses; errors tell the remedy."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from text2video_zero.errors import UserError
from text2video_zero.media.decoding.facts import FORMATS_TO_GIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

SLUG_LENGTH = 40
NAME_SHOWN = 80  # letters; a longer name may be no name
STEPS_FILE = "steps.safetensors"  # in the folder where a run keeps its steps
UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.\w+")  # what `renamed_when_whole` names a file that is being written


def unique_path(directory: Path, stem: str, suffix: str) -> Path:
    """Return a path for a new file: a readable name, the local time, and a token that nobody can guess.

    stem: any text, for example the prompt.  suffix: with its dot.  Nothing is written.
    """
    while True:
        moment = time.strftime("%Y%m%d-%H%M%S")
        path = Path(directory) / f"{slug(stem)}-{moment}-{secrets.token_hex(8)}{suffix}"
        if not path.exists():
            return path


def slug(prompt: str) -> str:
    """Letters and digits of any script, joined by hyphens, at most 40 characters; "video" if there are none."""
    words = "-".join(re.findall(r"[^\W_]+", prompt.lower()))
    return words[:SLUG_LENGTH].strip("-") or "video"


def typed_path(text: str) -> Path:
    """A path as people type it: ~ is their home, also where no shell puts it in, as in --output=~/fox.mp4."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser fails where nobody has that name


def listed(suffixes: Iterable[str]) -> str:
    """Suffixes in words, at least two: ".mp4, .gif or .zip"."""
    *others, last = suffixes
    return f"{', '.join(others)} or {last}"


@contextmanager
def readable_errors(path: Path) -> Generator[None]:
    """Turn what the file system refuses into a UserError with its remedy."""
    try:
        yield
    except OSError as error:
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                remedy = "the disk is full: free some space or write elsewhere"
            case errno.EACCES | errno.EPERM | errno.EROFS:
                remedy = "permission is denied: write to a folder of your own"
            case errno.ENOTDIR | errno.EEXIST:
                remedy = "a part of its path is a file and no folder: write elsewhere"
            case errno.EISDIR:
                remedy = "it is a folder: name a file in it"
            case _:
                remedy = f"{error.strerror or error}: write elsewhere"
        raise UserError(f"{path} cannot be written, {remedy}.") from error


def readable_file(path: Path) -> Path:
    """The path of something that can be a clip; devices and pipes, which may never end, are refused unopened."""
    try:
        kind = path.stat()
    except (OSError, ValueError) as error:  # ValueError: no file system has such a name
        if isinstance(error, PermissionError):
            raise UserError(f"{path.name} cannot be read (permission is denied): copy it elsewhere.") from error
        raise UserError(f"There is no file {path.name[:NAME_SHOWN]}: check the name.") from error
    if not (stat.S_ISREG(kind.st_mode) or stat.S_ISDIR(kind.st_mode)):
        raise UserError(f"{path.name} is no file: give {FORMATS_TO_GIVE}.")
    if stat.S_ISREG(kind.st_mode) and not kind.st_size:
        raise UserError(f"{path.name} is empty: give {FORMATS_TO_GIVE}.")
    return path


@contextmanager
def renamed_when_whole(path: Path) -> Generator[Path]:
    """Give a temporary name beside `path`; rename it to `path` at the end, or remove it after an error."""
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix.lower()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what a program that was killed was writing into a folder; for folders that nobody else writes into."""
    for path in folder.iterdir():
        if UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)


def folder_of_this_program(prefix: str) -> tuple[Path, Callable[[], None]]:
    """A new folder among the temporary ones, for as long as this program runs, and what removes it.

    Folders of the same prefix whose program was killed go now: a lock, which ends with a program however it ends,
    tells them from others.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):
            lock = _locked(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)
    while True:
        folder, lock = Path(tempfile.mkdtemp(prefix=prefix)), None
        try:
            lock = _locked(folder)
        except (BlockingIOError, FileNotFoundError):  # another program has just taken it for one that is left
            continue
        except OSError:  # a file system without locks: nobody removes folders of others there
            break
        if folder.exists():
            break
        os.close(lock)

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)

    return folder, remove


def _locked(folder: Path) -> int:
    """A descriptor that holds the lock of one's own folder.

    Raises BlockingIOError where another program has it, another OSError where it is no such folder or cannot be locked.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.getuid():
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor

"""Tells one state of a model's files from another: cheaply by their stamps, for good by what they hold."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# Name of a file, or of one inside a folder; when it was last written, in nanoseconds; bytes
Stamp = tuple[tuple[str, int, int], ...]

HASH_LENGTH = 10  # hexadecimal digits of SHA-256, as those who share single files write it
SHA_256 = re.compile(r"[0-9a-f]{64}")


def stamp_of(places: Iterable[Path]) -> Stamp:
    """The stamps of all files that a checkpoint is read from.

    places: where its parts lie, folders or files; those that are not there have no stamp.
    """
    stamps: list[tuple[str, int, int]] = []
    for path in places:
        beside = (path.with_suffix(""), path.with_suffix(".yaml"), path.with_suffix(".yml")) if path.is_file() else ()
        for place in (path, *beside):
            files = (*place.glob("*"), *place.glob("*/*")) if place.is_dir() else (place,)
            stamps += [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file()]
    return tuple(sorted(stamps))


def short_hash(files: Iterable[Path]) -> str:
    """The beginning of the SHA-256 of some files' content, of one file as `sha256sum` tells it; blank without files."""
    hashes = [_sha_256(file) for file in sorted(files)]
    whole = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    return whole[:HASH_LENGTH] if hashes else ""


def _sha_256(file: Path) -> str:
    """Of a large file in the Hub's cache it is the name."""
    name = file.resolve().name
    if SHA_256.fullmatch(name):
        return name
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

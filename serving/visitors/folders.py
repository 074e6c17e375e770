"""Folders of this machine, of which strangers are not told."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/:,;()'\"]+/)*(?=[^\s/:,;()'\"])")
"""The folders of an absolute path; none of an address on the net, whose slashes follow a colon or a name."""


def without_folders(sentence: str, known: Sequence[Path] = ()) -> str:
    """A sentence with the names of files alone where it has their paths.

    known: folders that may have blanks in their names, at which a path seems to end otherwise.
    """
    for folder in (*known, Path(tempfile.gettempdir()), Path.home(), Path.cwd()):
        if folder != Path("/"):  # as of a container's user: there is nothing to leave out, and addresses have a //
            sentence = sentence.replace(f"{folder}/", "/")
    return FOLDERS.sub("", sentence)

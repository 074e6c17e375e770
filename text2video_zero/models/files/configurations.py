"""JSON files of models: read whatever is in them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from text2video_zero.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

KINDS = ("*config.json", "*.index.json", "*.index.*.json")
LARGEST_JSON = 16 * 2**20  # bytes; a tokenizer's vocabulary has one


def read_json(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds; raises UserError, naming the file, where it holds none."""
    content = None
    try:
        if file.is_file():  # a pipe would never answer
            with file.open(encoding="utf-8") as opened:
                content = json.loads(opened.read(LARGEST_JSON))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"The file {_named(file)} cannot be read as JSON: download the model again.") from error
    if not isinstance(content, dict):
        raise UserError(f"The file {_named(file)} holds no settings of a model: download the model again.")
    return content


def check_configurations(name: str, folder: Path) -> None:
    """Raises UserError where a configuration in a folder, or one below, is no object: readers take it for granted.

    So it is with the list of the files that weights are spread over, which must name files beside it.

    name: of the model, in messages. A single file is not looked at.
    """
    for file in sorted(found for place in ("", "*/") for kind in KINDS for found in folder.glob(f"{place}{kind}")):
        if not _is_of_use(file):
            raise UserError(
                f"The model {name!r} could not be read ({_named(file)} holds no JSON object of its kind): download it "
                "again."
            )


def _is_of_use(file: Path) -> bool:
    try:
        content = read_json(file)
    except UserError:
        return False
    return ".index." not in file.name or _names_files(content)


def _names_files(index: dict[str, Any]) -> bool:
    files, noted = index.get("weight_map"), index.get("metadata")
    return isinstance(noted, dict) and isinstance(files, dict) and bool(files) and all(map(_is_name, files.values()))


def _is_name(file: object) -> bool:
    """Whether this names a file beside the list, and none elsewhere."""
    return isinstance(file, str) and not re.search(r"[/\\]|^\.*$", file)


def _named(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"

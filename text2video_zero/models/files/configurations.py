"""JSON files of models: read whatever is in them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from text2video_zero.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

KINDS = ("*config.json", "*.index.json")
LARGEST_JSON = 16 * 2**20  # bytes; a tokenizer's vocabulary has one


def read_json(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds; raises UserError, naming the file, where it holds none."""
    try:
        with file.open(encoding="utf-8") as opened:
            content = json.loads(opened.read(LARGEST_JSON))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"The file {_named(file)} cannot be read as JSON: download the model again.") from error
    if not isinstance(content, dict):
        raise UserError(f"The file {_named(file)} holds no settings of a model: download the model again.")
    return content


def check_configurations(name: str, folder: Path) -> None:
    """Raises UserError where a configuration in a folder, or one below, is no object: readers take it for granted.

    So it is with the list of the files that weights are spread over, which must name files.

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
    return not file.name.endswith(".index.json") or _names_files(content.get("weight_map"))


def _names_files(weight_map: object) -> bool:
    return isinstance(weight_map, dict) and all(isinstance(file, str) for file in weight_map.values())


def _named(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"

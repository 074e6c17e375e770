"""The size that a model was trained at, as far as it can be told without loading it."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from text2video_zero.models.catalogue import mirrors_of
from text2video_zero.models.files.configurations import read_json
from text2video_zero.models.selection import family_of
from text2video_zero.requests.fields import LATENT_FACTOR, Size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from text2video_zero.models.checkpoints import Checkpoint
    from text2video_zero.models.hub import Hub

FAMILY_SIDES: Mapping[str, int] = MappingProxyType({"toyland": 128, "sd1": 512, "sd2": 768, "sdxl": 1024})


def native_size(checkpoint: Checkpoint, hub: Hub) -> Size:
    """The size of the model in its folder, if that is on this machine, else the one of its family, in pixels.

    hub: whose downloads are looked at; it is asked for the family of a model that is not among them.
    """
    for source, revision in _places(checkpoint):
        folder = Path(source).expanduser()
        found = folder if folder.exists() else hub.local_folder(source, revision)
        config = _unet_config(found) if found else None
        match config and config.get("sample_size"):
            case int(side) | [int(side)]:
                return Size(side * LATENT_FACTOR, side * LATENT_FACTOR)
            case [int(height), int(width)]:
                return Size(width * LATENT_FACTOR, height * LATENT_FACTOR)
            case _:
                continue
    side = FAMILY_SIDES[family_of(checkpoint, hub)]
    return Size(side, side)


def _places(checkpoint: Checkpoint) -> list[tuple[str, str | None]]:
    """Where the UNet may be, the first that is here counts."""
    own = [(checkpoint.unet, checkpoint.unet_revision)] if checkpoint.unet else []
    mirrors = [(mirror.source, mirror.revision) for mirror in mirrors_of(checkpoint)]
    return [*own, (checkpoint.source, checkpoint.revision), *mirrors]


def _unet_config(path: Path) -> dict[str, Any] | None:
    """The configuration of a UNet in a whole model's folder, alone in its own, or in one beside a single file."""
    folder = path.with_suffix("") if path.is_file() else path
    for config in (folder / "unet" / "config.json", folder / "config.json"):
        if config.is_file():
            return read_json(config)
    return None

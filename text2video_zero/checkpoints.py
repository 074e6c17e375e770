"""Checkpoints: what to load. The key of the model manager's cache, and the table of known models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

TOYLAND_FOLDER = Path(__file__).resolve().parent.parent / "assets" / "toyland"


@dataclass(frozen=True)
class Checkpoint:
    """What to load; equal checkpoints share one loaded pipeline.

    source: a local diffusers folder, a single .safetensors file, or a Hub id ("owner/name").
    revision: branch, tag or commit of a Hub id; None is its default branch.
    """

    source: str
    revision: str | None = None

    @property
    def name(self) -> str:
        """Short name for messages and metadata: never a full path of this machine."""
        path = Path(self.source)
        return path.stem if path.suffix == ".safetensors" or path.exists() else self.source


@dataclass(frozen=True)
class KnownModel:
    """A model that is offered by name.

    name: what the person types or picks.  note: one line about it.
    mirrors: further places with the same weights, tried in this order.
    defaults: request fields that suit this model better than the paper's values.
    """

    name: str
    checkpoint: Checkpoint
    note: str
    mirrors: tuple[Checkpoint, ...] = ()
    defaults: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


TOYLAND = KnownModel(
    "toyland",
    Checkpoint(str(TOYLAND_FOLDER)),
    "embedded picture-book model, works offline on any machine",
)
STABLE_DIFFUSION_1_5 = KnownModel(
    "sd-1.5",
    Checkpoint("stable-diffusion-v1-5/stable-diffusion-v1-5"),
    "Stable Diffusion 1.5, 512x512, wants a GPU with 4 GB or patience",
    mirrors=(Checkpoint("benjamin-paine/stable-diffusion-v1-5"),),
)
DREAMLIKE_PHOTOREAL_2 = KnownModel(
    "dreamlike-photoreal-2.0",
    Checkpoint("dreamlike-art/dreamlike-photoreal-2.0"),
    "photographic look on Stable Diffusion 1.5, 512x512 and up; the model of the original demo",
)

KNOWN_MODELS: Mapping[str, KnownModel] = MappingProxyType(
    {model.name: model for model in (TOYLAND, STABLE_DIFFUSION_1_5, DREAMLIKE_PHOTOREAL_2)}
)


def find_checkpoint(name: str) -> Checkpoint:
    """The checkpoint that a known name, a local path or a Hub id stands for; nothing is looked up or loaded."""
    known = KNOWN_MODELS.get(name.strip())
    return known.checkpoint if known else Checkpoint(name.strip())

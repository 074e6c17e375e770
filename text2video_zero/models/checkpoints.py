"""Checkpoints: what to load, and how it is named. A checkpoint is the key of the pipeline cache."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(?:/.+\.safetensors)?")  # a model, or a file of one
TEXT_TO_IMAGE, INSTRUCT_PIX2PIX = "text-to-image", "instruct-pix2pix"


@dataclass(frozen=True)
class Adapter:
    """A LoRA that is added to a model.

    source: a .safetensors file, a folder that holds one, a Hub id, or a file of one.
    weight: its strength, 1 is as trained.
    revision: branch, tag or commit of a Hub id; None is its default branch.
    """

    source: str
    weight: float = 1.0
    revision: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """What to load; equal checkpoints share one loaded pipeline, those of one base share its components.

    source: a local diffusers folder, a single .safetensors file, a Hub id ("owner/name"), or a file of one
        ("owner/name/file.safetensors").
    revision: branch, tag or commit of a Hub id; None is its default branch.
    kind: what its UNet takes: "text-to-image" (noise) or "instruct-pix2pix" (noise and a picture).
    controlnet: a folder, .safetensors file or Hub id of the ControlNet that goes with it.
    unet: a folder or Hub id of a UNet that replaces the base's, as full fine-tunings of the UNet alone have it.
    adapters: LoRAs, added up.
    """

    source: str
    revision: str | None = None
    kind: str = TEXT_TO_IMAGE
    controlnet: str | None = None
    controlnet_revision: str | None = None
    unet: str | None = None
    unet_revision: str | None = None
    adapters: tuple[Adapter, ...] = ()

    @property
    def base(self) -> Checkpoint:
        """The same checkpoint without its ControlNet: what pose, edge, depth and text share."""
        return replace(self, controlnet=None, controlnet_revision=None)

    @property
    def controlnet_key(self) -> tuple[str | None, str | None]:
        """What tells its ControlNet from others."""
        return self.controlnet, self.controlnet_revision


@dataclass(frozen=True)
class DetectorCheckpoint:
    """What to load to see poses or depth in a clip, or to tell how alike pictures and texts are.

    source: folder or Hub id of the network.  task: "depth", "pose" or "features".
    box_source: for poses, folder or Hub id of the network that finds the people first.
    """

    source: str
    task: str
    revision: str | None = None
    box_source: str | None = None
    box_revision: str | None = None


@dataclass(frozen=True)
class Annotator:
    """A detector of controlnet-aux, as the paper's authors used them. Its weights are pickles of plain tensors.

    name: "openpose" or "midas".  source: folder or Hub id.  files: those that it needs of it.
    """

    name: str
    source: str
    files: tuple[str, ...]

    def pick(self, offered: Iterable[str]) -> list[str]:
        """Its files among those that are offered."""
        return sorted(set(self.files) & set(offered))


def short_name(source: str) -> str:
    """A source as messages show it: a file's or folder's own name, a Hub id as it is."""
    path = Path(source)
    return path.stem if path.suffix == ".safetensors" or path.exists() else source


def at_revision(name: str) -> tuple[str, str | None]:
    """A Hub id, or a file of one, without its revision, and the revision; of a path there is none."""
    source, at, revision = name.rpartition("@")
    if not at or Path(name).expanduser().exists() or not HUB_ID.fullmatch(source):
        return name, None
    return source, revision

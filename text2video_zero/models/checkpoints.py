"""Checkpoints: what to load, and how it is named. A checkpoint is the key of the pipeline cache."""

from __future__ import annotations

import re
import reprlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from text2video_zero.errors import UserError
from text2video_zero.models.files.pickled import PICKLES

if TYPE_CHECKING:
    from collections.abc import Iterable

WEIGHT_SUFFIXES = (".safetensors", *PICKLES)  # of files with the same stem the first is meant by the stem alone
# A model, or a file of one
HUB_ID = re.compile(rf"[\w.-]+/[\w.-]+(?:/.+(?:{'|'.join(map(re.escape, WEIGHT_SUFFIXES))}))?")
LONGEST_NAME, LONGEST_PATH = 255, 1024  # bytes of a file's name and of its path, on every usual system
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

    source: a local diffusers folder, a single file (.safetensors, .ckpt), a Hub id ("owner/name"), or a file of one
        ("owner/name/file.safetensors").
    revision: branch, tag or commit of a Hub id; None is its default branch.
    kind: what its UNet takes: "text-to-image" (noise) or "instruct-pix2pix" (noise and a picture).
    controlnet: where the ControlNet is that goes with it: likewise a folder, a single file (.safetensors, .pth), a Hub
        id, or a file of one.
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
    def parts(self) -> tuple[tuple[str, str | None], ...]:
        """All that its base is read from, the model itself first: folders, files and Hub ids, and their revisions."""
        own = ((self.source, self.revision), (self.unet, self.unet_revision))
        added = ((adapter.source, adapter.revision) for adapter in self.adapters)
        return tuple((source, revision) for source, revision in (*own, *added) if source)

    @property
    def places(self) -> tuple[str, ...]:
        """The same without revisions."""
        return tuple(source for source, _ in self.parts)

    @property
    def controlnet_key(self) -> tuple[str | None, str | None]:
        """What tells its ControlNet from others."""
        return self.controlnet, self.controlnet_revision


TOYLAND_DEPTH = "toyland depth"


@dataclass(frozen=True)
class DetectorCheckpoint:
    """What to load to see poses or depth in a clip, or to tell how alike pictures and texts are.

    source: folder or Hub id of the network.  task: "depth", "pose" or "features", or
        TOYLAND_DEPTH for that of Toyland's own reader, which is none of transformers'.
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


@dataclass(frozen=True)
class FileOnHub:
    """One file of a model on the Hub.

    repository: the Hub id.  name: of the file, with its folders.
    """

    repository: str
    name: str

    def pick(self, offered: Iterable[str]) -> list[str]:
        """The file alone; raises UserError where it is not offered."""
        if self.name not in offered:
            raise UserError(f"The model {self.repository!r} has no file {self.name!r}: check its name.")
        return [self.name]


def file_on_hub(source: str) -> FileOnHub | None:
    """What "owner/name/file.safetensors" names; None for anything else, also where such a folder is on this machine."""
    owner, *rest = source.split("/")
    if not HUB_ID.fullmatch(source) or len(rest) < 2 or owner in {".", ".."} or Path(owner).is_dir():
        return None
    return FileOnHub(f"{owner}/{rest[0]}", "/".join(rest[1:]))


def path_of(source: str) -> Path | None:
    """The folder or file of this machine that a source names, None where it is one of the Hub.

    Raises UserError for a path at which nothing is.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    if file_on_hub(source) or not (path.suffix in WEIGHT_SUFFIXES or path.is_absolute() or source.startswith(".")):
        return None
    raise UserError(f"The model {source!r} does not exist: check the path.")


def checked_name(name: str) -> str:
    """The name of a model as it is; raises UserError for one that no file of this machine could have."""
    parts = [len(part.encode(errors="replace")) for part in re.split(r"[/\\]", name)]
    try:
        Path(name).expanduser()
        homeless = False
    except RuntimeError:  # of ~somebody who is not there
        homeless = True
    if homeless or "\0" in name or max(parts) > LONGEST_NAME or len(name) > LONGEST_PATH:
        raise UserError(
            f"The name {reprlib.repr(name)} is none that a file can have: give a known name, a path or a Hub id."
        )
    return name


def short_name(source: str) -> str:
    """A source as messages show it, and as it is found again: a file's or folder's own name, a Hub id as it is.

    A file keeps its suffix where another one lies beside it that goes by the same stem.
    Of a name in an older encoding, which no page can show, the letters that are no UTF-8 become question marks.
    """
    path = Path(source)
    if file_on_hub(source):
        name = source
    elif path.suffix == WEIGHT_SUFFIXES[0] or path.is_file():
        name = path.name if _is_second_of_its_stem(path) else path.stem
    else:
        name = path.name if path.is_dir() else source
    return name.encode(errors="replace").decode()


def _is_second_of_its_stem(path: Path) -> bool:
    before = WEIGHT_SUFFIXES[: WEIGHT_SUFFIXES.index(path.suffix)] if path.suffix in WEIGHT_SUFFIXES else ()
    return any(path.with_suffix(suffix).is_file() for suffix in before)


def at_revision(name: str) -> tuple[str, str | None]:
    """A Hub id, or a file of one, without its revision, and the revision; of a path there is none."""
    source, at, revision = name.rpartition("@")
    if not at or Path(name).expanduser().exists() or not HUB_ID.fullmatch(source):
        return name, None
    return source, revision

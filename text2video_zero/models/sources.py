"""Where models are: a folder, a file, or a Hub id that becomes a folder here. Nothing is loaded yet."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from text2video_zero.errors import UserError
from text2video_zero.events import result_of
from text2video_zero.models.catalogue import SAFETY_CHECKER, SAFETY_CHECKER_MIRROR, mirrors_of
from text2video_zero.models.checkpoints import HUB_ID, Annotator
from text2video_zero.models.hub.files import CHECKER_FOLDER, checker_files, needed_files, tokenizer_files
from text2video_zero.models.weights import check_whole

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from text2video_zero.events import Progress
    from text2video_zero.models.checkpoints import Adapter, Checkpoint, DetectorCheckpoint
    from text2video_zero.models.hub import Hub
    from text2video_zero.models.hub.files import Pick

TOKENIZER_SOURCE = "openai/clip-vit-large-patch14"


@dataclass(frozen=True)
class Sources:
    """Finds what is to be read on this machine, and brings what is not here.

    hub: where Hub ids are looked up.  half: whether weights in half precision are enough.
    found: what was looked up before, by source, revision and the choice of files.
    """

    hub: Hub
    half: bool = False
    found: dict[tuple[str, str | None, Pick | None], Path] = field(default_factory=dict)

    def folder(self, source: str, revision: str | None = None, pick: Pick | None = None) -> Path:
        """Where a folder, a file or a Hub id is on this machine, as `located` returns it, with nobody watching."""
        return result_of(self.located(source, revision, pick))

    def located(
        self, source: str, revision: str | None = None, pick: Pick | None = None
    ) -> Generator[Progress, None, Path]:
        """Where a folder, a file or a Hub id is on this machine, whole; downloaded if need be.

        The Hub is asked once in the life of this record whether there is something newer.
        """
        known = self.found.get((source, revision, pick))
        path = known if known and known.exists() else Path(source).expanduser()
        if path.exists():
            found = path
        elif file := file_on_hub(source):
            folder = yield from self.hub.fetch(file.repository, revision, file.pick)
            found = folder / file.name
        elif path.suffix == ".safetensors" or path.is_absolute() or source.startswith("."):
            raise UserError(f"The model {source!r} does not exist: check the path.")
        else:
            needed = pick or partial(needed_files, half=self.half)
            found = yield from self.hub.fetch(source, revision, needed)
        check_whole(found)
        self.found[source, revision, pick] = found
        return found

    def fetch(self, checkpoint: Checkpoint) -> Generator[Progress]:
        """Bring all that reading the checkpoint needs onto this machine."""
        path = yield from self.first_to_be_had(checkpoint)
        if path.is_file() and not has_configuration(path):
            yield from self.tokenizer_folder()
        if checkpoint.unet is not None:
            yield from self.located(checkpoint.unet, checkpoint.unet_revision)
        for adapter in checkpoint.adapters:
            yield from self.adapter(adapter)
        if checkpoint.controlnet is not None:
            yield from self.located(checkpoint.controlnet, checkpoint.controlnet_revision)

    def fetch_detector(self, detector: DetectorCheckpoint | Annotator) -> Generator[Progress]:
        """Bring all that reading the detector needs onto this machine."""
        if isinstance(detector, Annotator):
            yield from self.located(detector.source, pick=detector.pick)
            return
        yield from self.located(detector.source, detector.revision)
        if detector.box_source is not None:
            yield from self.located(detector.box_source, detector.box_revision)

    def first_to_be_had(self, checkpoint: Checkpoint) -> Generator[Progress, None, Path]:
        """The model's own place, or the first of its mirrors that answers."""
        try:
            return (yield from self.located(checkpoint.source, checkpoint.revision))
        except UserError:
            for mirror in mirrors_of(checkpoint):
                with suppress(UserError):
                    return (yield from self.located(mirror.source, mirror.revision))
            raise

    def adapter(self, adapter: Adapter) -> Generator[Progress, None, Path]:
        """The file of a LoRA on this machine; raises UserError where it is not clear which one is meant."""
        path = yield from self.located(adapter.source, adapter.revision)
        if path.is_file():
            return path
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            raise UserError(
                f"The LoRA {adapter.source!r} holds {len(files)} .safetensors files: name one of them, as in "
                f"{adapter.source}/file.safetensors."
            )
        return files[0]

    def tokenizer_folder(self) -> Generator[Progress, None, Path]:
        """Where CLIP's tokenizer is, which no single file contains."""
        return (yield from self.located(TOKENIZER_SOURCE, pick=tokenizer_files))

    def safety_folder(self) -> Generator[Progress, None, Path]:
        """Where the safety checker is on this machine; raises UserError when it cannot be had."""
        try:
            return (yield from self.located(SAFETY_CHECKER))
        except UserError as error:
            mirror = SAFETY_CHECKER_MIRROR
            with suppress(UserError):
                whole = yield from self.located(mirror.source, mirror.revision, checker_files)
                return whole / CHECKER_FOLDER
            reason = str(error)
            raise UserError(
                f"No video is shown here before the safety checker has looked at it, and it cannot be had: "
                f"{reason[:1].lower()}{reason[1:]}"
            ) from error


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


def has_configuration(path: Path) -> bool:
    """Whether a folder of the file's name beside it tells how the model is built."""
    return (path.with_suffix("") / "model_index.json").is_file()

"""Where models are: a folder, a file, or a Hub id that becomes a folder here. Nothing is loaded yet."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from text2video_zero.errors import UserError
from text2video_zero.events import Notice
from text2video_zero.generators import result_of
from text2video_zero.models.adapters import refuse_pickle
from text2video_zero.models.catalogue import AUTOENCODERS, SAFETY_CHECKER, SAFETY_CHECKER_MIRROR, known_name, mirrors_of
from text2video_zero.models.checkpoints import Annotator, file_on_hub, path_of, short_name
from text2video_zero.models.files.configurations import check_configurations
from text2video_zero.models.files.fingerprints import stamp_of
from text2video_zero.models.files.pickled import is_pickle
from text2video_zero.models.hub.files import (
    CHECKER_FOLDER,
    LORA,
    Needed,
    checker_files,
    pickled_parts,
    tokenizer_files,
    weight_files,
)
from text2video_zero.models.weights import check_whole, family_of_file, has_autoencoder, only_file_of, read_shapes

if TYPE_CHECKING:
    from collections.abc import Generator

    from text2video_zero.events import Progress
    from text2video_zero.models.checkpoints import Adapter, Checkpoint, DetectorCheckpoint
    from text2video_zero.models.files.fingerprints import Stamp
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
        self, source: str, revision: str | None = None, pick: Pick | None = None, what: str = "model"
    ) -> Generator[Progress, None, Path]:
        """Where a folder, a file or a Hub id is on this machine, whole; downloaded if need be.

        what: what is looked for, in words.
        The Hub is asked once in the life of this record whether there is something newer.
        """
        known = self.found.get((source, revision, pick))
        if path := known if known and known.exists() else path_of(source):
            found = path
        elif file := file_on_hub(source):
            folder = yield from self.hub.fetch(file.repository, revision, file.pick)
            found = folder / file.name
        else:
            needed = pick or Needed(source, what, self.half)
            found = yield from self.hub.fetch(source, revision, needed)
        check_whole(found)
        check_configurations(short_name(source), found)
        self.found[source, revision, pick] = found
        return found

    def fetch(self, checkpoint: Checkpoint) -> Generator[Progress | Notice]:
        """Bring all that reading the checkpoint needs onto this machine; tells of parts that are pickles."""
        for adapter in checkpoint.adapters:  # first: they are small, and one that is refused makes the rest vain
            yield from self.adapter(adapter)
        path = yield from self.first_to_be_had(checkpoint)
        if path.is_file():
            yield from self._beside(path)
        parts = [(checkpoint.source, path)]
        for source, revision in (
            (checkpoint.unet, checkpoint.unet_revision),
            (checkpoint.controlnet, checkpoint.controlnet_revision),
        ):
            if source is not None:
                parts.append((source, (yield from self.located(source, revision))))
        for source, place in parts:
            if place.is_file() and is_pickle(place):
                yield Notice(f"{place.name} is a pickle: it is read as plain tensors, no code of its own is run.")
            elif pickled := pickled_parts(place):
                yield Notice(
                    f"{known_name(source)} has its {' and '.join(pickled)} as pickles: they are read as plain tensors, "
                    "no code of theirs is run."
                )

    def _beside(self, path: Path) -> Generator[Progress]:
        """Bring what a whole model in one file needs beside it."""
        if not has_configuration(path):
            yield from self.tokenizer_folder()
        shapes = read_shapes(path)
        if not has_autoencoder(shapes):
            yield from self.autoencoder_folder(path, family_of_file(path, shapes))

    def stamp(self, checkpoint: Checkpoint) -> Stamp:
        """The stamps of the files of this machine that a checkpoint names; those of the Hub never change."""
        places = (*checkpoint.places, checkpoint.controlnet)
        return stamp_of(Path(place).expanduser() for place in places if place)

    def fetch_detector(self, detector: DetectorCheckpoint | Annotator) -> Generator[Progress]:
        """Bring all that reading the detector needs onto this machine."""
        if isinstance(detector, Annotator):
            yield from self.located(detector.source, pick=detector.pick)
            return
        yield from self.located(detector.source, detector.revision)
        if detector.box_source is not None:
            yield from self.located(detector.box_source, detector.box_revision)

    def first_to_be_had(self, checkpoint: Checkpoint) -> Generator[Progress, None, Path]:
        """The model's own place, or the first of its mirrors that answers; of a folder with a single file that file."""
        try:
            return only_file_of((yield from self.located(checkpoint.source, checkpoint.revision)))
        except UserError:
            for mirror in mirrors_of(checkpoint):
                with suppress(UserError):
                    return (yield from self.located(mirror.source, mirror.revision))
            raise

    def unet_files(self, checkpoint: Checkpoint, path: Path) -> list[Path]:
        """The files of the weights of a model's UNet.

        path: where the model lies, as `first_to_be_had` returns it.
        """
        if checkpoint.unet is not None:
            path = self.folder(checkpoint.unet, checkpoint.unet_revision)
        return [path] if path.is_file() else weight_files(path / "unet") or weight_files(path)

    def adapter(self, adapter: Adapter) -> Generator[Progress, None, Path]:
        """The file of a LoRA on this machine; raises UserError for a pickle, and where it is unclear which is meant."""
        refuse_pickle(adapter.source)
        path = yield from self.located(adapter.source, adapter.revision, what=LORA)
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

    def autoencoder_folder(self, path: Path, family: str) -> Generator[Progress, None, Path]:
        """Where the VAE of a single-file model is that holds none: in the folder beside it, else its family's own."""
        own = path.with_suffix("") / "vae"
        if any(own.glob("*.safetensors")):
            return own
        return (yield from self.located(AUTOENCODERS[family]))

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


def has_configuration(path: Path) -> bool:
    """Whether a folder of the file's name beside it tells how the model is built."""
    return (path.with_suffix("") / "model_index.json").is_file()

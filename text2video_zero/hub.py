"""The Hugging Face Hub: a model there becomes a folder here, downloaded once, resumed, and used offline.

Everything is read from folders afterwards, so the network is needed in this one place, and what it refuses is
said in one sentence here.
"""

from __future__ import annotations

import errno
import io
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, constants, get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from tqdm import tqdm

from text2video_zero.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from huggingface_hub.hf_api import ModelInfo

COMPONENT_FOLDERS = frozenset(
    ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler", "feature_extractor")
)
SAFETY_CHECKER = "safety_checker"
TOKENIZER_FILES = frozenset({"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"})
TEXT_SUFFIXES = (".json", ".txt", ".model")
# diffusers' and transformers' names of weights: a stem, perhaps a variant, perhaps the number of a piece
WEIGHTS = re.compile(r"(?:diffusion_pytorch_model|model)(?:\.(?P<variant>[a-z_]\w*))?(?:-\d+-of-\d+)?\.safetensors")
HALF = "fp16"
TIMEOUT = 15  # seconds, for the first answer of the Hub
GIB = 2**30


@dataclass(frozen=True)
class Hub:
    """One Hub and one cache.

    endpoint: its address; None is that of the environment (HF_ENDPOINT), else huggingface.co.
    cache: folder of downloads; None is that of the environment (HF_HUB_CACHE), else the home folder's.
    report: told while a download runs: source, bytes that are here, bytes in all.
    """

    endpoint: str | None = None
    cache: Path | None = None
    report: Callable[[str, int, int], None] = lambda source, here, of: None  # noqa: ARG005

    def folder(
        self, source: str, revision: str | None = None, pick: Callable[[Iterable[str]], list[str]] | None = None
    ) -> Path:
        """The local folder of a model, downloaded if it is not here or not up to date.

        pick: chooses those of the model's files that are needed, `needed_files` if left out; choosing none
            refuses the model.

        Without a network, and with HF_HUB_OFFLINE set, what was downloaded before is used. Raises UserError
        when the model is not there, not open to this person, offers no safetensors, or does not fit on the disk.
        """
        pick = pick or needed_files
        try:
            validate_repo_id(source)
        except HFValidationError as error:
            raise UserError(
                f"The model {source!r} is neither here nor a Hub id: check the path, or write owner/name."
            ) from error
        try:
            info = HfApi(endpoint=self.endpoint).model_info(
                source, revision=revision, files_metadata=True, timeout=TIMEOUT
            )
            return self._downloaded(source, revision, info, pick)
        except (OSError, HTTPError) as error:
            if not _is_out_of_reach(error):
                raise _refusal(source, revision, error) from error
            return self._cached(source, revision, pick, error)

    def is_here(self, source: str, revision: str | None = None) -> bool:
        """Whether the model could be used without a network."""
        try:
            return bool(self._cached(source, revision, needed_files, None))
        except UserError:
            return False

    def _downloaded(
        self, source: str, revision: str | None, info: ModelInfo, pick: Callable[[Iterable[str]], list[str]]
    ) -> Path:
        sizes = {entry.rfilename: entry.size or 0 for entry in info.siblings or ()}
        files = pick(sizes)
        if not files:
            raise UserError(
                f"The model {source!r} offers no weights as safetensors: choose another one, or convert it first."
            )
        _refuse_full_disk(source, sum(sizes[name] for name in files), self._cache_folder)
        folder = snapshot_download(
            source,
            revision=revision,
            endpoint=self.endpoint,
            cache_dir=self.cache,
            allow_patterns=files,
            tqdm_class=_byte_counter(lambda here, of: self.report(source, here, of)),
        )
        return Path(folder)

    @property
    def _cache_folder(self) -> Path:
        return self.cache or Path(constants.HF_HUB_CACHE)

    def _cached(
        self,
        source: str,
        revision: str | None,
        pick: Callable[[Iterable[str]], list[str]],
        reason: Exception | None,
    ) -> Path:
        """What was downloaded before; raises UserError when that is nothing, or not all of it."""
        try:
            files = pick(entry.path for entry in get_cached_repo_tree(source, revision=revision, cache_dir=self.cache))
        except (CachedRepoTreeNotFoundError, LocalEntryNotFoundError):
            files = None  # downloaded by another program, which kept no list: taken as it is
        try:
            folder = snapshot_download(
                source, revision=revision, cache_dir=self.cache, allow_patterns=files, local_files_only=True
            )
        except LocalEntryNotFoundError as error:
            raise UserError(
                f"The model {source!r} is not on this machine, and the Hub cannot be reached: connect to the "
                "network once, or put the model into the folder models/."
            ) from (reason or error)
        return Path(folder)


def needed_files(names: Iterable[str], *, half: bool = False, checker: bool = False) -> list[str]:
    """Those files of a model that are worth downloading: safetensors and texts, one precision, never pickles.

    half: take the half-precision files where the model offers them for everything.
    checker: take the safety checker too, more than a gigabyte.
    Without any safetensors there is nothing worth downloading.
    """
    names = sorted(names)
    folders = COMPONENT_FOLDERS | ({SAFETY_CHECKER} if checker else set())
    whole_model = "model_index.json" in names
    wanted = [name for name in names if _folder_of(name) in (folders | {""} if whole_model else {""})]
    texts = [name for name in wanted if name.endswith(TEXT_SUFFIXES)]
    weights = [name for name in wanted if WEIGHTS.fullmatch(name.rpartition("/")[2])]
    if whole_model:  # the same once more as one file may lie at the top
        weights = [name for name in weights if _folder_of(name)]
    if not weights:
        loras = [name for name in wanted if name.endswith(".safetensors") and not whole_model]  # of whatever name
        return texts + loras if loras else []
    by_variant = {
        variant: [name for name in weights if WEIGHTS.fullmatch(name.rpartition("/")[2])["variant"] == variant]
        for variant in (None, HALF)
    }
    complete = {_folder_of(name) for name in by_variant[HALF]} >= {_folder_of(name) for name in by_variant[None]}
    return texts + by_variant[HALF if by_variant[HALF] and (half or not by_variant[None]) and complete else None]


def tokenizer_files(names: Iterable[str]) -> list[str]:
    """Those files of a model that make a CLIP tokenizer."""
    return [name for name in names if name in TOKENIZER_FILES]


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0]


def _refuse_full_disk(source: str, size: int, cache: Path) -> None:
    existing = next(folder for folder in (cache, *cache.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    # What is here already counts twice: a file too many on a full disk is worse than a refusal near its edge.
    if size > free:
        raise UserError(
            f"The model {source!r} needs {size / GIB:.1f} GB, and the disk has {free / GIB:.1f} GB left: "
            "free some, or name another disk in HF_HUB_CACHE."
        )


def _is_out_of_reach(error: Exception) -> bool:
    """No network, none wanted, or a Hub that is down: not an answer about the model."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError | HTTPError)


def _refusal(source: str, revision: str | None, error: Exception) -> UserError:
    """What the Hub or the disk said, in one sentence."""
    match error:
        case GatedRepoError():
            return UserError(
                f"The model {source!r} is gated: accept its terms on huggingface.co, then log in with `hf auth login`."
            )
        case RevisionNotFoundError():
            return UserError(f"The model {source!r} has no revision {revision!r}: leave it out, or check its name.")
        case RepositoryNotFoundError():
            return UserError(
                f"The model {source!r} is not on the Hub, or is private: check its name, or log in by `hf auth login`."
            )
        case OSError(errno=errno.ENOSPC):
            return UserError(
                f"The disk was full before the model {source!r} was here: free some space, the download goes on."
            )
    return UserError(f"The Hub did not hand out the model {source!r} ({_first_line(error)}): try again later.")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _byte_counter(report: Callable[[int, int], None]) -> type[tqdm]:
    """A progress bar that is not drawn, and tells the bytes of all files together."""

    class ByteCounter(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:  # as tqdm itself takes them
            super().__init__(*arguments, **(options | {"file": io.StringIO()}))

        def update(self, n: float | None = 1) -> bool | None:
            drawn = super().update(n)
            if self.unit == "B" and self.total:
                report(int(self.n), int(self.total))
            return drawn

    return ByteCounter

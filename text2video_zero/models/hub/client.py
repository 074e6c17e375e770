"""The Hugging Face Hub: a model there becomes a folder here, downloaded once, resumed, and used offline.

Everything is read from folders afterwards, so the network is needed in this one place, and what it refuses is
said in one sentence here.
"""

from __future__ import annotations

import errno
import io
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import (
    HfApi,
    constants,
    get_cached_repo_tree,
    get_hf_file_metadata,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)
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
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import build_hf_headers, validate_repo_id
from tqdm.asyncio import tqdm_asyncio

from text2video_zero.errors import UserError
from text2video_zero.events import GB, Progress
from text2video_zero.generators import result_of
from text2video_zero.models.catalogue import known_name
from text2video_zero.models.checkpoints import file_on_hub
from text2video_zero.models.hub.download import downloaded
from text2video_zero.models.hub.files import TEXT_SUFFIXES, needed_files

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from huggingface_hub.hf_api import ModelInfo

    from text2video_zero.models.checkpoints import FileOnHub
    from text2video_zero.models.hub.files import Pick

    _Bar = tqdm_asyncio[Any]  # generic in its stubs alone
else:
    _Bar = tqdm_asyncio

TIMEOUT = 15  # seconds, for the first answer of the Hub
TELL_SECONDS = 0.25  # between two tellings of one download


@dataclass(frozen=True)
class Hub:
    """One Hub and one cache.

    endpoint: its address; None is that of the environment (HF_ENDPOINT), else huggingface.co.
    cache: folder of downloads; None is that of the environment (HF_HUB_CACHE), else the home folder's.
    """

    endpoint: str | None = None
    cache: Path | None = None

    def folder(self, source: str, revision: str | None = None, pick: Pick | None = None) -> Path:
        """The local folder of a model, as `fetch` returns it, with nobody watching."""
        return result_of(self.fetch(source, revision, pick))

    def fetch(
        self, source: str, revision: str | None = None, pick: Pick | None = None
    ) -> Generator[Progress, None, Path]:
        """The local folder of a model, downloaded if it is not here or not up to date, with progress in bytes.

        pick: chooses those of the model's files that are needed, `needed_files` if left out; choosing none
            refuses the model.

        Closing the generator stops the download soon; the next one goes on where it was. Without a network, and
        with HF_HUB_OFFLINE set, what was downloaded before is used. Raises UserError when the model is not
        there, not open to this person, offers no safetensors, or does not fit on the disk.
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
            return (yield from self._downloaded(source, revision, info, pick))
        except (OSError, HTTPError) as error:
            if not _is_out_of_reach(error):
                raise _explained(source, revision, error) from error
            return self._cached(source, revision, pick, error)

    def is_here(self, source: str, revision: str | None = None) -> bool:
        """Whether the model, or the file of one, could be used without a network."""
        if file := file_on_hub(source):
            return self.local_file(file, revision) is not None
        return self.local_folder(source, revision) is not None

    def local_file(self, file: FileOnHub, revision: str | None = None) -> Path | None:
        """A file that was downloaded before, without asking the network; None if it was not."""
        try:
            found = try_to_load_from_cache(file.repository, file.name, cache_dir=self.cache, revision=revision)
        except HFValidationError:
            return None
        return Path(found) if isinstance(found, str) else None

    def local_folder(self, source: str, revision: str | None = None) -> Path | None:
        """The folder of a model that was downloaded before, without asking the network; None if it was not."""
        try:
            return self._cached(source, revision, needed_files, None)
        except (UserError, HFValidationError):
            return None

    def _downloaded(
        self, source: str, revision: str | None, info: ModelInfo, pick: Pick
    ) -> Generator[Progress, None, Path]:
        sizes = {entry.rfilename: entry.size or 0 for entry in info.siblings or ()}
        files = pick(sizes)
        if not files:
            raise UserError(
                f"The model {source!r} offers no weights as safetensors: choose another one, or convert it first."
            )
        missing = {name: sizes[name] for name in files if not self._is_cached(source, name, info.sha)}
        _check_disk_space(source, sum(missing.values()), self._cache_folder)
        weights = [name for name in missing if not name.endswith(TEXT_SUFFIXES)]
        yield from self._weights(source, weights, sum(missing[name] for name in weights), info.sha)
        folder = snapshot_download(
            source,
            revision=revision,
            endpoint=self.endpoint,
            cache_dir=self.cache,
            allow_patterns=files,
            tqdm_class=_NoBar,
        )
        return Path(folder)

    def _weights(self, source: str, names: list[str], total: int, commit: str | None) -> Generator[Progress]:
        """Bring the large files into the cache, where the Hub's client then finds them."""
        repository = repo_folder_name(repo_id=source, repo_type="model")
        clock = _Clock(f"Downloading {known_name(source)}", total)
        before = 0
        for name in names:
            url = hf_hub_url(source, name, revision=commit, endpoint=self.endpoint)
            told = get_hf_file_metadata(url, timeout=TIMEOUT, endpoint=self.endpoint)
            if told.etag is None or told.size is None:
                continue  # a server that keeps its files' names or sizes to itself: left to the Hub's client
            blob = self._cache_folder / repository / "blobs" / told.etag
            lock = self._cache_folder / ".locks" / repository / f"{told.etag}.lock"
            here = 0
            for here in downloaded(url, build_hf_headers(), told.size, blob, lock):
                yield from clock.told(before + here)
            before += here

    def _is_cached(self, source: str, name: str, commit: str | None) -> bool:
        return isinstance(try_to_load_from_cache(source, name, cache_dir=self.cache, revision=commit), str)

    @property
    def _cache_folder(self) -> Path:
        return self.cache or Path(constants.HF_HUB_CACHE)

    def _cached(
        self,
        source: str,
        revision: str | None,
        pick: Pick,
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


def _check_disk_space(source: str, size: int, cache: Path) -> None:
    existing = next(folder for folder in (cache, *cache.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    # Half a file that is here counts twice: a byte too many on a full disk is worse than a refusal near its edge.
    if size > free:
        raise UserError(
            f"The model {source!r} needs {size / GB:.1f} GB, and the disk has {free / GB:.1f} GB left: "
            "free some, or name another disk in HF_HUB_CACHE."
        )


def _is_out_of_reach(error: Exception) -> bool:
    """No network, none wanted, or a Hub that is down: not an answer about the model."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError | HTTPError)


def _explained(source: str, revision: str | None, error: Exception) -> UserError:
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
        case _:
            return UserError(f"The Hub did not hand out the model {source!r} ({_first_line(error)}): try again later.")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass
class _Clock:
    """Tells how far a download is, as often as a person looks.

    stage: what is told.  total: bytes in all.
    """

    stage: str
    total: int
    began: float = field(default_factory=time.monotonic)
    first: int | None = None  # bytes that were here at the first look
    last: float = -TELL_SECONDS

    def told(self, here: int) -> Iterator[Progress]:
        now = time.monotonic()
        self.first = here if self.first is None else self.first
        if now - self.last < TELL_SECONDS and here < self.total:
            return
        self.last = now
        brought = here - self.first
        left = (now - self.began) / brought * (self.total - here) if brought else None
        yield Progress(self.stage, min(here, self.total), self.total, left, "bytes")


class _NoBar(_Bar):
    """The progress bar of the Hub's client, for files that are too small to be told of: not drawn."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # as tqdm itself takes them
        super().__init__(*arguments, **(options | {"file": io.StringIO()}))

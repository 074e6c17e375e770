"""What a model on the Hub is, told by a few kilobytes of it before anything is chosen or downloaded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, constants, get_session, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, HTTPError, SafetensorsParsingError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from text2video_zero.errors import UserError
from text2video_zero.models.checkpoints import FileOnHub
from text2video_zero.models.hub.files import needed_files
from text2video_zero.models.weights import family_at, family_of_file, family_of_unet

if TYPE_CHECKING:
    from text2video_zero.models.hub.client import Hub

TIMEOUT = 5  # seconds; somebody waits at a form
UNET_CONFIG = "unet/config.json"


def family_on_hub(hub: Hub, source: str, revision: str | None, file: str | None = None) -> str | None:
    """Tell "sd1", "sd2" or "sdxl" of a model on the Hub; None where it cannot be told, or the Hub not be reached.

    file: of a single-file model, whose header is read; without it the configuration of the UNet is, or the header of
        the only file of a model without layout. A pickle has no header: it tells once it was downloaded.
    """
    try:
        here = hub.local_file(FileOnHub(source, file), revision) if file else hub.local_folder(source, revision)
        if here and (family := family_at(here)):
            return family
        if file is None:
            try:
                return family_of_unet(_unet_config(hub, source, revision))
            except EntryNotFoundError:
                file = _only_file(hub, source, revision)
        return _family_by_header(hub, source, revision, file) if file else None
    # Whatever is wrong with the model is told when it is fetched, which goes the same way.
    except (OSError, HTTPError, ValueError, AttributeError, UserError, SafetensorsParsingError):
        return None


@lru_cache(maxsize=64)
def _unet_config(hub: Hub, source: str, revision: str | None) -> dict[str, Any]:
    if constants.HF_HUB_OFFLINE:
        raise OSError("no network is wanted")
    url = hf_hub_url(source, UNET_CONFIG, revision=revision, endpoint=hub.endpoint)
    response = get_session().get(url, headers=build_hf_headers(), timeout=TIMEOUT, follow_redirects=True)
    hf_raise_for_status(response)
    return response.json()


@lru_cache(maxsize=64)
def _only_file(hub: Hub, source: str, revision: str | None) -> str | None:
    """The one file of weights of a model without layout."""
    told = HfApi(endpoint=hub.endpoint).model_info(source, revision=revision, timeout=TIMEOUT)
    names = needed_files(sibling.rfilename for sibling in told.siblings or ())
    files = [name for name in names if name.endswith(".safetensors")]
    return files[0] if len(files) == 1 else None


@lru_cache(maxsize=64)
def _family_by_header(hub: Hub, source: str, revision: str | None, file: str) -> str:
    api = HfApi(endpoint=hub.endpoint)
    told = api.parse_safetensors_file_metadata(source, file, revision=revision)
    shapes = {name: tuple(tensor.shape) for name, tensor in told.tensors.items()}
    return family_of_file(Path(file), shapes)

"""What a model on the Hub is, told by a few kilobytes of it before anything is chosen or downloaded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, constants, get_session, hf_hub_url
from huggingface_hub.errors import HTTPError, SafetensorsParsingError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from text2video_zero.errors import UserError
from text2video_zero.models.files.configurations import read_json
from text2video_zero.models.weights import family_of_file, family_of_unet

if TYPE_CHECKING:
    from text2video_zero.models.hub.client import Hub

TIMEOUT = 5  # seconds; somebody waits at a form
UNET_CONFIG = "unet/config.json"


def family_on_hub(hub: Hub, source: str, revision: str | None, file: str | None = None) -> str | None:
    """Tell "sd1", "sd2" or "sdxl" of a model on the Hub; None where it cannot be told, or the Hub not be reached.

    file: of a single-file model, whose header is read; without it the configuration of the UNet is.
    """
    try:
        if file is not None:
            return _family_by_header(hub, source, revision, file)
        folder = hub.local_folder(source, revision)
        if folder and (folder / UNET_CONFIG).is_file():
            return family_of_unet(read_json(folder / UNET_CONFIG))
        return family_of_unet(_unet_config(hub, source, revision))
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
def _family_by_header(hub: Hub, source: str, revision: str | None, file: str) -> str:
    api = HfApi(endpoint=hub.endpoint)
    told = api.parse_safetensors_file_metadata(source, file, revision=revision)
    shapes = {name: tuple(tensor.shape) for name, tensor in told.tensors.items()}
    return family_of_file(Path(file), shapes)

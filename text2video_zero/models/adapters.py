"""LoRAs as a person names them: a file, a name in models/ or a Hub id, and perhaps a weight behind a colon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from text2video_zero.errors import UserError
from text2video_zero.models.catalogue import MODELS_FOLDER
from text2video_zero.models.checkpoints import Adapter, at_revision, checked_name, short_name
from text2video_zero.models.files.pickled import is_pickle
from text2video_zero.models.weights import is_lora_file

if TYPE_CHECKING:
    from collections.abc import Iterable

GREATEST_WEIGHT = 10.0


def read_adapters(texts: Iterable[str], models_folder: Path = MODELS_FOLDER) -> tuple[Adapter, ...]:
    """The LoRAs of some texts, blank ones left out; raises UserError for a weight that is none."""
    return tuple(read_adapter(text, models_folder) for text in texts if text.strip())


def read_adapter(text: str, models_folder: Path = MODELS_FOLDER) -> Adapter:
    """The LoRA that a text names: "style.safetensors", "owner/name:0.8" or "owner/name@revision:0.8".

    models_folder: where names without a folder are looked up. Raises UserError for a weight that is none, and for a
        file that is a pickle.
    """
    source, colon, weight = text.strip().rpartition(":")
    if not colon or "/" in weight or "\\" in weight:  # the colon of a drive, as in C:\loras\style.safetensors
        source, weight = text.strip(), "1"
    try:
        strength = float(weight)
    except ValueError:
        strength = float("nan")
    if not abs(strength) <= GREATEST_WEIGHT:
        raise UserError(
            f"The weight {weight!r} of the LoRA {source!r} is no number from -{GREATEST_WEIGHT:g} to "
            f"{GREATEST_WEIGHT:g}: write for example {source}:0.8."
        )
    offered = local_loras(models_folder)
    local = offered.get(source)
    if local is None and not Path(checked_name(source)).exists():
        local = offered.get(source.removesuffix(".safetensors"))  # by the file's own name, as people see it
    if local is not None:
        return Adapter(str(local), strength)
    source, revision = at_revision(source)
    refuse_pickle(source)
    return Adapter(source, strength, revision)


def refuse_pickle(source: str) -> None:
    """Raises UserError for a LoRA that goes by the name of a pickle."""
    if is_pickle(Path(source)):
        raise UserError(
            f"The LoRA {Path(source).name!r} is a pickle: get it as .safetensors, or convert it where you trust it."
        )


def written(adapter: Adapter) -> str:
    """What `read_adapter` reads, without any folder of this machine."""
    revision = f"@{adapter.revision}" if adapter.revision else ""
    return f"{short_name(adapter.source)}{revision}:{adapter.weight:g}"


def local_loras(folder: Path = MODELS_FOLDER) -> dict[str, Path]:
    """LoRA files that lie in a folder, by name; none if it is missing."""
    if not folder.is_dir():
        return {}
    found = [path for path in sorted(folder.glob("*.safetensors")) if path.is_file() and is_lora_file(path)]
    return {short_name(str(path)): path for path in found}

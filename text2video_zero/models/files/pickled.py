"""Whole models and ControlNets that are pickles (.ckpt and kin): read as plain tensors, so that no code in them is run.

What trainers leave in a .ckpt beside the weights (callbacks, counters) becomes objects that do nothing; whatever else a
pickle asks for, torch refuses.
"""

from __future__ import annotations

import re
import threading
import zipfile
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from text2video_zero.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    import torch

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
LARGEST_PICKLE = 8 * 2**20  # bytes without the tensors, which lie beside it; Stable Diffusion XL's has 0.5 MB
# Classes of trainers, of their settings (omegaconf names the types of its values) and of numpy's numbers: they tell of
# the training, and nothing of the weights
LEFT_BEHIND = re.compile(
    r"(?:pytorch_lightning|lightning|lightning_fabric|omegaconf)\..*|numpy\._?core\.multiarray\.scalar|numpy\.dtype|"
    r"builtins\.(?:bool|bytes|dict|float|int|list|str|tuple)|typing\.Any|collections\.defaultdict|argparse\.Namespace|"
    r"pathlib\.(?:Posix|Windows)Path"
)
# What torch may make of a pickle is one list of the whole program
READING = threading.RLock()
UNREADABLE = (
    OSError,
    RuntimeError,  # torch's of an archive that is damaged
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    MemoryError,
    AssertionError,  # torch's of a record that does not belong there
    RecursionError,
    zipfile.BadZipFile,
    UnpicklingError,
)


class LeftBehind:
    """Takes the place of whatever a trainer left in a checkpoint, and is nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def is_pickle(path: Path) -> bool:
    """Whether a file goes by the name of a pickle."""
    return path.suffix.lower() in PICKLES


def pickled_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a pickle, by name; its weights are not read. Raises UserError where that fails."""
    return {name: tuple(tensor.shape) for name, tensor in _tensors(path, "meta").items()}


def pickled_tensors(path: Path, wanted: Callable[[str], bool]) -> dict[str, torch.Tensor]:
    """Those tensors of a pickle whose names are wanted; raises UserError where it cannot be read."""
    return {name: tensor for name, tensor in _tensors(path, "cpu").items() if wanted(name)}


@contextmanager
def plainly_read(path: Path) -> Generator[None]:
    """While it is open, torch reads this pickle with what trainers left in it, as objects that do nothing.

    Raises UserError where the file asks for anything else. One thread at a time; nothing changes for a file that is
    no pickle.
    """
    if not is_pickle(path):
        yield
        return
    import torch  # looking for models needs none

    with READING, torch.serialization.safe_globals([(LeftBehind, name) for name in _left_behind(path)]):
        yield


def _left_behind(path: Path) -> set[str]:
    """Names of the classes that a pickle holds and that tell of the training; raises UserError where it is unreadable.

    Only torch's archives are read: tensors beside one small pickle, nothing packed, so that nothing swells.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        swollen = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if swollen or max(entry.file_size for entry in entries if entry.filename.endswith(".pkl")) > LARGEST_PICKLE:
            raise ValueError("it would swell")
        classes = set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except UNREADABLE as error:
        raise UserError(
            f"The model file {path.name!r} is damaged, or no archive of torch's: download it again, or as .safetensors."
        ) from error
    known = {name for name in classes if LEFT_BEHIND.fullmatch(name)}
    if others := sorted(classes - known):
        raise UserError(
            f"The model file {path.name!r} is a pickle of more than tensors ({others[0][:80]}), which could run code: "
            "get it as .safetensors, or convert it where you trust it."
        )
    return known


def _tensors(path: Path, device: str) -> dict[str, torch.Tensor]:
    """The tensors of a pickle, on "meta" without their numbers."""
    import torch

    with plainly_read(path):
        try:
            content: Any = torch.load(path, map_location=device, weights_only=True, mmap=device != "meta")
            while isinstance(content, dict) and "state_dict" in content:
                content = content["state_dict"]
            return {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
        except UNREADABLE as error:
            raise UserError(
                f"The model file {path.name!r} cannot be read as plain tensors: get it as .safetensors."
            ) from error

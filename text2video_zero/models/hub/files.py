"""Which of a model's files on the Hub are worth bringing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from text2video_zero.errors import UserError
from text2video_zero.models.files.pickled import PICKLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    Pick = Callable[[Iterable[str]], list[str]]

COMPONENT_FOLDERS = frozenset(
    ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler", "feature_extractor")
)
CHECKER_FOLDER = "safety_checker"
TOKENIZER_FILES = frozenset({"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"})
TEXT_SUFFIXES = (".json", ".txt", ".model")
# diffusers' and transformers' names of weights: a stem, perhaps a variant, perhaps the number of a piece
WEIGHTS = re.compile(r"(?:diffusion_pytorch_model|model)(?:\.(?P<variant>[a-z_]\w*))?(?:-\d+-of-\d+)?\.safetensors")
PICKLED = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)(?:\.(?P<variant>[a-z_]\w*))?(?:-\d+-of-\d+)?\.bin"
)
HALF = "fp16"
LORA = "LoRA"  # what is looked for, where it is one


@dataclass(frozen=True)
class Needed:
    """`needed_files` of one source, where it is clear which files are meant.

    source: the Hub id.  what: what is looked for, in words ("model").  half: as `needed_files` takes it.
    """

    source: str
    what: str
    half: bool

    def __call__(self, names: Iterable[str]) -> list[str]:
        """The files to download; raises UserError where there are none, or several of which one is meant."""
        names = list(names)
        files = needed_files(names, half=self.half)
        if not files:
            raise UserError(
                f"The {self.what} {self.source!r} offers no weights as safetensors: choose another one, or "
                f"{self._remedy(names)}."
            )
        single = [name for name in files if name.endswith(".safetensors") and not WEIGHTS.fullmatch(_name_of(name))]
        if len(single) > 1:
            raise UserError(
                f"The {self.what} {self.source!r} holds {len(single)} .safetensors files: name one of them, as in "
                f"{self.source}/{single[0]}."
            )
        return files

    def _remedy(self, names: list[str]) -> str:
        """Whole models and ControlNets are read as pickles too, where the file is named; LoRAs are not."""
        pickles = (name for suffix in PICKLES for name in sorted(names) if name.endswith(suffix))
        pickle = None if self.what == LORA else next(pickles, None)
        return f"name one of its files, as in {self.source}/{pickle}" if pickle else "convert it first"


def needed_files(names: Iterable[str], *, half: bool = False) -> list[str]:
    """Those files of a model that are worth downloading: weights and texts, in one precision.

    half: take the half-precision files where the model offers them for everything.
    Pickles are taken for those parts alone that have no safetensors.
    """
    names = sorted(names)
    whole_model = "model_index.json" in names
    wanted = [name for name in names if _folder_of(name) in (COMPONENT_FOLDERS | {""} if whole_model else {""})]
    texts = [name for name in wanted if name.endswith(TEXT_SUFFIXES)]
    # The same once more as one file may lie at the top of a whole model.
    candidates = [name for name in wanted if _folder_of(name) or not whole_model]
    safe = {_folder_of(name) for name in candidates if WEIGHTS.fullmatch(_name_of(name))}
    pickled = _in_one_precision([name for name in candidates if _folder_of(name) not in safe], PICKLED, half=False)
    # Beside pickles, which mostly are in full precision, all of it is: readers take one precision for a model.
    weights = _in_one_precision(candidates, WEIGHTS, half=half and not pickled) + pickled
    if not weights:
        weights = [name for name in wanted if name.endswith(".safetensors") and not whole_model]  # of whatever name
    return texts + weights if weights else []


def _in_one_precision(names: list[str], pattern: re.Pattern[str], *, half: bool) -> list[str]:
    """Weights whose names a pattern knows, all of them in half precision or none."""
    variants = {name: match["variant"] for name in names if (match := pattern.fullmatch(_name_of(name)))}
    full, halved = ([name for name, variant in variants.items() if variant == wanted] for wanted in (None, HALF))
    complete = {_folder_of(name) for name in halved} >= {_folder_of(name) for name in full}
    return halved if halved and (half or not full) and complete else full


def weight_files(folder: Path) -> list[Path]:
    """The files of weights in the folder of one part, as they are read: in full precision if there are such."""
    names = [path.name for path in sorted(folder.glob("*"))]
    chosen = _in_one_precision(names, WEIGHTS, half=False) or _in_one_precision(names, PICKLED, half=False)
    return [folder / name for name in chosen]


def safetensors_alone(folder: Path) -> bool | None:
    """What diffusers' readers take for "use_safetensors": True, or None where some part is a pickle alone."""
    return None if pickled_parts(folder) else True


def pickled_parts(folder: Path) -> list[str]:
    """Names of the parts of a whole model, or "weights" of a part alone, that are pickles and nothing else."""
    places = {"weights": folder} | {name: folder / name for name in sorted(COMPONENT_FOLDERS)}
    return [
        name
        for name, place in places.items()
        if any(PICKLED.fullmatch(file.name) for file in place.glob("*.bin")) and not any(place.glob("*.safetensors"))
    ]


def tokenizer_files(names: Iterable[str]) -> list[str]:
    """Those files of a model that make a CLIP tokenizer."""
    return [name for name in names if name in TOKENIZER_FILES]


def checker_files(names: Iterable[str]) -> list[str]:
    """Those files of a whole model that make its safety checker, in full precision."""
    return [name for name in names if re.fullmatch(rf"{CHECKER_FOLDER}/(?:config\.json|model\.safetensors)", name)]


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0]


def _name_of(name: str) -> str:
    return name.rpartition("/")[2]

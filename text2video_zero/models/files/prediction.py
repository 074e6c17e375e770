"""What the model in a single file was trained to predict, and down to which noise: wherever that may be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from text2video_zero.errors import UserError
from text2video_zero.models.files.tensors import tensors_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from text2video_zero.models.weights import Header

LARGEST_YAML = 2**20  # bytes
NO = frozenset({"0", "false", "no", "none", "null"})
# The last bias of Stable Diffusion 2's attention on the way up. It spreads wider where v was learned (ComfyUI tells
# the two apart by it).
TELLTALE = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
TELLTALE_SPREAD = 0.09
# What trainers call it in a file's metadata (modelspec, kohya's sd-scripts), or a tensor of no values (NoobAI)
VELOCITY_MARKS = ("v_pred", "ss_v_parameterization")
ZERO_SNR_MARKS = ("ztsnr", "ss_zero_terminal_snr", "zero_terminal_snr")
# Names in modelspec and in the yaml of the original code -> diffusers' own
PREDICTIONS = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
    "x0": "sample",
    "sample": "sample",
}

# The original code's names of the noise levels -> diffusers' own
LEVELS = {"timesteps": "num_train_timesteps", "linear_start": "beta_start", "linear_end": "beta_end"}


def scheduler_changes(path: Path, header: Header, family: str) -> dict[str, Any]:
    """What a scheduler's configuration has to say of the model in a file, as far as it is told anywhere.

    It is read in a .yaml beside the file, then in its header; for Stable Diffusion 2.x, of which both kinds are
    common, by the weights themselves. Raises UserError where the .yaml cannot be read.
    """
    told = {**_told_by_header(header), **_told_by_yaml(path)}
    if family == "sd2" and "prediction_type" not in told:
        told["prediction_type"] = _told_by_weights(path, header)
    if told.get("rescale_betas_zero_snr"):
        # Lin et al. 2023: without signal at the last timestep, a run has to begin there.
        told.setdefault("timestep_spacing", "trailing")
    return told


def _told_by_header(header: Header) -> dict[str, Any]:
    told: dict[str, Any] = {}
    prediction = PREDICTIONS.get(header.metadata.get("modelspec.prediction_type", "").strip().lower())
    if prediction:
        told["prediction_type"] = prediction
    if any(_is_marked(header, mark) for mark in VELOCITY_MARKS):
        told["prediction_type"] = "v_prediction"
    if any(_is_marked(header, mark) for mark in ZERO_SNR_MARKS):
        told["rescale_betas_zero_snr"] = True
    return told


def _is_marked(header: Header, mark: str) -> bool:
    # A tensor of that name says it by being there.
    return mark in header.shapes or header.metadata.get(mark, "no").strip().lower() not in NO


def _told_by_yaml(path: Path) -> dict[str, Any]:
    """What the configuration of the original code says, which lies beside the file under its name."""
    file = next((found for suffix in (".yaml", ".yml") if (found := path.with_suffix(suffix)).is_file()), None)
    if file is None:
        return {}
    params = _params_of(file)
    told: dict[str, Any] = {}
    prediction = PREDICTIONS.get(_word(params.get("parameterization")))
    if prediction:
        told["prediction_type"] = prediction
    if any(_word(params.get(mark)) not in NO for mark in ZERO_SNR_MARKS):
        told["rescale_betas_zero_snr"] = True
    levels = {ours: params.get(theirs) for theirs, ours in LEVELS.items()}
    return told | {name: value for name, value in levels.items() if isinstance(value, int | float)}


def _word(value: object) -> str:
    """A value as a word; of lists, which may refer to one another a billion times, nothing is written out."""
    return str(value).strip().lower() if isinstance(value, str | bool | int | float) else "no"


def _params_of(file: Path) -> Mapping[str, Any]:
    try:
        with file.open(encoding="utf-8") as opened:
            content = yaml.safe_load(opened.read(LARGEST_YAML))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(
            f"The file {file.name!r} beside the model cannot be read ({type(error).__name__}): mend or remove it."
        ) from error
    for name in ("model", "params"):
        content = content.get(name) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def _told_by_weights(path: Path, header: Header) -> str:
    if TELLTALE not in header.shapes:
        return "v_prediction"  # of a model that is built otherwise: most of these were
    spread = tensors_of(path, TELLTALE.__eq__)[TELLTALE].float().std().item()
    return "v_prediction" if spread > TELLTALE_SPREAD else "epsilon"

"""The only place that loads weights: loads pipelines, keeps them, and lends them out."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError

from text2video_zero.errors import UserError
from text2video_zero.pipeline import Pipeline
from text2video_zero.preview import LatentRGB
from text2video_zero.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from text2video_zero.checkpoints import Checkpoint


class ModelManager:
    """Loads a checkpoint once and lends it to one run after the other.

    device: "cuda", "cuda:1", "mps" or "cpu"; None takes the best there is. Raises UserError for one that this
        machine does not have.
    """

    def __init__(self, device: str | None = None) -> None:
        self.device = _checked_device(device) if device else torch.device(_best_device())
        self.dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        self._loaded: dict[Checkpoint, Pipeline] = {}
        self._lock = threading.Lock()

    def describe_device(self) -> str:
        """The device as a person would name it."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return {"mps": "Apple GPU", "cpu": "CPU"}.get(self.device.type, str(self.device))

    def is_loaded(self, checkpoint: Checkpoint) -> bool:
        """Whether lending the checkpoint would read nothing from disk."""
        return checkpoint in self._loaded

    @contextmanager
    def lend(self, checkpoint: Checkpoint) -> Iterator[Pipeline]:
        """The loaded checkpoint, for one run.

        Raises UserError when it cannot be loaded; the manager is then as it was. Leaving checks that the run
        has taken its attention processors away again.
        """
        with self._lock:
            pipeline = self._loaded.get(checkpoint) or self._load(checkpoint)
        processors = dict(pipeline.components.unet.attn_processors)
        yield pipeline
        left_behind = {
            name for name, found in pipeline.components.unet.attn_processors.items() if found is not processors[name]
        }
        if left_behind:
            raise RuntimeError(f"a run left {len(left_behind)} patched attention layers behind")

    def _load(self, checkpoint: Checkpoint) -> Pipeline:
        components = _load_components(checkpoint, self.dtype)
        components.set_progress_bar_config(disable=True)
        latent_rgb = LatentRGB.fit(components.vae)
        components.to(self.device)
        pipeline = Pipeline(checkpoint, components, latent_rgb, Vocabulary.read(Path(checkpoint.source)))
        # One model at a time fits where two may not; whoever still uses the earlier one keeps it alive.
        self._loaded = {checkpoint: pipeline}
        return pipeline


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _checked_device(name: str) -> torch.device:
    """The device of that name, tried out on one number, since nothing else tells for certain that it works."""
    try:
        device = torch.device(name)
        torch.zeros(1).to(device).cpu()
    # Each kind of device fails in its own way: RuntimeError, AssertionError, NotImplementedError, ...
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = f"leave it out, or give {_best_device()!r}"
        raise UserError(f"The device {name!r} cannot be used here ({reason}): {remedy}.") from error
    return device


def _load_components(checkpoint: Checkpoint, dtype: torch.dtype) -> StableDiffusionPipeline:
    """Read the weights; every reason why that fails becomes one sentence."""
    path = Path(checkpoint.source)
    _refuse_other_kinds(path)
    try:
        if path.suffix == ".safetensors":
            return StableDiffusionPipeline.from_single_file(str(path), dtype=dtype, safety_checker=None)
        return StableDiffusionPipeline.from_pretrained(
            checkpoint.source,
            revision=checkpoint.revision,
            dtype=dtype,
            use_safetensors=True,
            safety_checker=None,
            requires_safety_checker=False,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"The model {checkpoint.source!r} could not be loaded ({reason}): give a known name, a folder in "
            "diffusers layout, a .safetensors file or a Hub id, and check that it is complete."
        ) from error


def _refuse_other_kinds(path: Path) -> None:
    """Raises UserError for local models that are of no use here, before anything is read."""
    if path.suffix == ".safetensors" and not path.is_file():
        raise UserError(f"The model file {str(path)!r} does not exist: check the path.")
    if not path.is_dir():
        return
    index = path / "model_index.json"
    if not index.is_file():
        raise UserError(f"The folder {str(path)!r} holds no model_index.json: give a folder in diffusers layout.")
    kind = json.loads(index.read_text(encoding="utf-8")).get("_class_name", "unknown kind")
    if kind != "StableDiffusionPipeline":
        raise UserError(f"The folder {str(path)!r} holds a {kind}: choose a Stable Diffusion 1.x or 2.x model.")

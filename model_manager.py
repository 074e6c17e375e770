"""The only place that loads weights: loads pipelines and detectors, keeps them, and lends them out."""

from __future__ import annotations

import tempfile
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from diffusers import ControlNetModel, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTokenizer

from text2video_zero.checkpoints import Annotator, find_detector, mirrors_of
from text2video_zero.devices import chosen_device, device_name
from text2video_zero.errors import UserError
from text2video_zero.events import result_of
from text2video_zero.hub import Hub, needed_files, tokenizer_files
from text2video_zero.layouts import write_layout
from text2video_zero.map_cache import MapCache
from text2video_zero.memory import weight_budget
from text2video_zero.pipeline import Detector, Network, Pipeline
from text2video_zero.preview import LatentRGB
from text2video_zero.refusals import (
    errors_in_one_sentence,
    refuse_other_adapter,
    refuse_other_family,
    refuse_other_kind_of_unet,
)
from text2video_zero.self_check import self_check
from text2video_zero.shelf import Loan, Shelf
from text2video_zero.vocabulary import Vocabulary
from text2video_zero.weights import UNET_INPUT, check_whole, family_of_file, read_shapes, variant_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from controlnet_aux import MidasDetector, OpenposeDetector
    from diffusers import DiffusionPipeline
    from transformers import PreTrainedModel

    from text2video_zero.checkpoints import Adapter, Checkpoint, DetectorCheckpoint
    from text2video_zero.events import Progress
    from text2video_zero.hub import Pick

    _Components = StableDiffusionPipeline | StableDiffusionXLPipeline

PIPELINE_CLASSES = {
    "StableDiffusionPipeline": StableDiffusionPipeline,
    "StableDiffusionControlNetPipeline": StableDiffusionPipeline,
    "StableDiffusionInstructPix2PixPipeline": StableDiffusionPipeline,
    "StableDiffusionXLPipeline": StableDiffusionXLPipeline,
}
TOKENIZER_SOURCE = "openai/clip-vit-large-patch14"


class ModelManager:
    """Loads each checkpoint once, shares what two of them have in common, and lends them to one run after another.

    device: "cuda", "cuda:1", "mps" or "cpu"; None takes the best there is. Raises UserError for one that this
        machine does not have.
    device_budget, cpu_budget: bytes that weights may fill on the device, and that those may fill which wait in
        the CPU's memory; see `Shelf` for what happens beyond.
    hub: where Hub ids are looked up.

    Two runs at once on pipelines that share a UNet would disturb each other's patches: whoever runs jobs runs
    one at a time on a manager.
    """

    def __init__(
        self,
        device: str | None = None,
        *,
        device_budget: int | None = None,
        cpu_budget: int | None = None,
        hub: Hub | None = None,
    ) -> None:
        self.device = chosen_device(device)
        self.dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        self.shelf = Shelf(
            self.device,
            weight_budget(self.device) if device_budget is None else device_budget,
            weight_budget(torch.device("cpu")) if cpu_budget is None else cpu_budget,
        )
        # Clips are their owner's business: what was drawn from them goes when the program ends.
        self._map_folder = tempfile.TemporaryDirectory(prefix="text2video-zero-maps-")
        self.map_cache = MapCache(Path(self._map_folder.name))
        self._reader = _Reader(hub or Hub(), self.dtype)
        self._loading = threading.Lock()  # held for as long as a load takes, so that each key is loaded once

    def describe_device(self) -> str:
        """The device as a person would name it."""
        return device_name(self.device)

    def is_loaded(self, checkpoint: Checkpoint) -> bool:
        """Whether lending the checkpoint would read nothing from disk."""
        return checkpoint in self.shelf

    def self_check(self) -> list[str]:
        """What there is to work with, a line each: device, memory, versions, and the models that need no network."""
        return self_check(self.device, self.dtype, self.shelf.device_budget, self._reader.hub)

    def fetch(self, checkpoint: Checkpoint) -> Iterator[Progress]:
        """Download what lending the checkpoint needs and what is not here, with progress in bytes.

        Closing the iterator stops the download soon; the next one goes on where it was. Raises UserError when
        something cannot be had; the manager is then as it was.
        """
        if not self.is_loaded(checkpoint):
            yield from self._reader.fetch(checkpoint)

    @contextmanager
    def lend(self, checkpoint: Checkpoint) -> Iterator[Pipeline]:
        """The loaded checkpoint, for one run.

        Raises UserError when it cannot be loaded; the manager is then as it was. Leaving checks that the run
        has taken its attention processors away again.
        """
        loan = self._borrowed(checkpoint)
        patchable = [module for module in loan.modules if hasattr(module, "attn_processors")]
        processors = [dict(module.attn_processors) for module in patchable]
        try:
            yield loan.pipeline
        finally:
            self.shelf.give_back(loan)
        left_behind = sum(
            found is not before[name]
            for module, before in zip(patchable, processors, strict=True)
            for name, found in module.attn_processors.items()
        )
        if left_behind:
            raise RuntimeError(f"a run left {left_behind} patched attention layers behind")

    def fetch_detector(self, detector: str | DetectorCheckpoint | Annotator) -> Iterator[Progress]:
        """Download what lending the detector needs and what is not here, as `fetch` does for a checkpoint."""
        yield from self._reader.fetch_detector(find_detector(detector) if isinstance(detector, str) else detector)

    @contextmanager
    def lend_detector(
        self, detector: str | DetectorCheckpoint | Annotator
    ) -> Iterator[Detector | OpenposeDetector | MidasDetector]:
        """A detector of poses or depth, released when the context ends; for an Annotator controlnet-aux's own.

        detector: a known name ("depth", "depth-dpt-hybrid", "pose", "openpose", "midas") or what to load.
        Raises UserError when it cannot be loaded.
        """
        checkpoint = find_detector(detector) if isinstance(detector, str) else detector
        if isinstance(checkpoint, Annotator):
            with self._loading:
                annotator = self._reader.annotator(checkpoint).to(self.device)
            yield annotator
            return
        with self._loading:
            networks = self._reader.detector(checkpoint)
            for network in networks:
                network.model.to(self.device)
        try:
            yield Detector(checkpoint, self.device, *networks)
        finally:
            for network in networks:
                network.model.to("meta")  # whoever still holds the record holds no weights
            self.shelf.free_unused()

    def _borrowed(self, checkpoint: Checkpoint) -> Loan:
        """The loan of a checkpoint, counted as in use, with all its weights on the device."""
        loan = self.shelf.take(checkpoint)
        if loan is not None:
            return loan
        with self._loading:
            loan = self.shelf.take(checkpoint)  # somebody else may have loaded it meanwhile
            if loan is None:
                loan = self.shelf.waiting(checkpoint) or Loan(self._load(checkpoint))
                self.shelf.put(checkpoint, loan)
            return loan

    def _load(self, checkpoint: Checkpoint) -> Pipeline:
        """The pipeline, in the CPU's memory but for what it shares with loaded ones."""
        base = self.shelf.base(checkpoint) or self._load_base(checkpoint.base)
        if checkpoint.controlnet is None:
            return replace(base, checkpoint=checkpoint, controlnet=None)
        controlnet = self.shelf.controlnet(checkpoint) or self._reader.controlnet(*checkpoint.controlnet_key)
        refuse_other_family(checkpoint, controlnet, base.components.unet)
        return replace(base, checkpoint=checkpoint, controlnet=controlnet)

    def _load_base(self, checkpoint: Checkpoint) -> Pipeline:
        components, path = self._reader.base(checkpoint, self.shelf.parts(checkpoint))
        components.set_progress_bar_config(disable=True)
        relative = self.shelf.with_vae(components.vae)
        latent_rgb = relative.latent_rgb if relative else LatentRGB.fit(components.vae)
        vocabulary = Vocabulary.read(path)
        return Pipeline(
            checkpoint, components, latent_rgb, self.fetch_detector, self.lend_detector, self.map_cache, vocabulary
        )


@dataclass(frozen=True)
class _Reader:
    """Reads weights into the CPU's memory: from folders, single files and the Hub, always safetensors.

    dtype: of the networks that sample; detectors are float32.
    found: folders by source, revision and choice of files, of what was looked up before.
    """

    hub: Hub
    dtype: torch.dtype
    found: dict[tuple[str, str | None, Pick | None], Path] = field(default_factory=dict)

    def folder(self, source: str, revision: str | None = None, pick: Pick | None = None) -> Path:
        """Where a folder, a file or a Hub id is on this machine, as `located` returns it, with nobody watching."""
        return result_of(self.located(source, revision, pick))

    def located(
        self, source: str, revision: str | None = None, pick: Pick | None = None
    ) -> Generator[Progress, None, Path]:
        """Where a folder, a file or a Hub id is on this machine, whole; downloaded if need be.

        The Hub is asked once in the life of the reader whether there is something newer.
        """
        key = source, revision, pick
        path = self.found.get(key) or Path(source).expanduser()
        if path.exists():
            found = path
        elif path.suffix == ".safetensors" or path.is_absolute() or source.startswith("."):
            raise UserError(f"The model {source!r} does not exist: check the path.")
        else:
            pick = pick or partial(needed_files, half=self.dtype == torch.float16)
            found = yield from self.hub.fetch(source, revision, pick)
        check_whole(found)
        self.found[key] = found
        return found

    def fetch(self, checkpoint: Checkpoint) -> Iterator[Progress]:
        """Bring all that reading the checkpoint needs onto this machine."""
        path = yield from self.first_to_be_had(checkpoint)
        if path.is_file() and not _has_layout(path):
            yield from self.located(TOKENIZER_SOURCE, pick=tokenizer_files)
        if checkpoint.unet is not None:
            yield from self.located(checkpoint.unet, checkpoint.unet_revision)
        for adapter in checkpoint.adapters:
            yield from self.adapter(adapter)
        if checkpoint.controlnet is not None:
            yield from self.located(*checkpoint.controlnet_key)

    def fetch_detector(self, detector: DetectorCheckpoint | Annotator) -> Iterator[Progress]:
        """Bring all that reading the detector needs onto this machine."""
        if isinstance(detector, Annotator):
            yield from self.located(detector.source, pick=detector.pick)
            return
        yield from self.located(detector.source, detector.revision)
        if detector.box_source is not None:
            yield from self.located(detector.box_source, detector.box_revision)

    def base(self, checkpoint: Checkpoint, at_hand: dict[str, object]) -> tuple[_Components, Path]:
        """A whole model, but for the components at hand, which it takes as they are; and where it lies."""
        path = result_of(self.first_to_be_had(checkpoint))
        parts = dict(at_hand)
        if checkpoint.unet is not None and "unet" not in parts:
            parts["unet"] = self.unet(checkpoint.unet, checkpoint.unet_revision)
        with errors_in_one_sentence(checkpoint.source):
            read = self._single_file if path.is_file() else self._whole_folder
            components = read(path, parts)
        refuse_other_kind_of_unet(checkpoint, components.unet)
        if components.vae.config.force_upcast and isinstance(components, StableDiffusionXLPipeline):
            components.vae.to(torch.float32)  # it overflows in half precision, on every picture
        for adapter in checkpoint.adapters:
            self._add_adapter(adapter, components)
        return components, path

    def first_to_be_had(self, checkpoint: Checkpoint) -> Generator[Progress, None, Path]:
        """The model's own place, or the first of its mirrors that answers."""
        try:
            return (yield from self.located(checkpoint.source, checkpoint.revision))
        except UserError:
            for mirror in mirrors_of(checkpoint):
                with suppress(UserError):
                    return (yield from self.located(mirror.source, mirror.revision))
            raise

    def _whole_folder(self, path: Path, parts: dict[str, object]) -> _Components:
        if not (path / "model_index.json").is_file():
            raise UserError(f"The folder {path.name!r} holds no model_index.json: give a folder in diffusers layout.")
        kind = StableDiffusionPipeline.load_config(path)["_class_name"]
        pipeline_class = PIPELINE_CLASSES.get(kind)
        if pipeline_class is None:
            raise UserError(f"The folder {path.name!r} holds a {kind}: choose a Stable Diffusion 1.x, 2.x or XL model.")
        return pipeline_class.from_pretrained(
            path,
            dtype=self.dtype,
            use_safetensors=True,
            variant=variant_of(path / "unet"),
            **_without_checker(pipeline_class),
            **parts,
        )

    def _single_file(self, path: Path, parts: dict[str, object]) -> _Components:
        """A whole model in one file; a folder of the file's name beside it may hold its configuration."""
        shapes = read_shapes(path)
        family = family_of_file(path, shapes)
        pipeline_class = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
        with TemporaryDirectory() as temporary:
            layout = path.with_suffix("")
            if not _has_layout(path):
                layout = Path(temporary)
                write_layout(layout, family, shapes[UNET_INPUT][1])
                parts = self._tokenizers(family) | parts
            return pipeline_class.from_single_file(
                str(path),
                config=str(layout),
                dtype=self.dtype,
                local_files_only=True,
                **_without_checker(pipeline_class),
                **parts,
            )

    def _tokenizers(self, family: str) -> dict[str, object]:
        """CLIP's tokenizer, which no single file contains; both of Stable Diffusion XL's have the same words."""
        folder = self.folder(TOKENIZER_SOURCE, pick=tokenizer_files)
        tokenizers: dict[str, object] = {"tokenizer": CLIPTokenizer.from_pretrained(folder)}
        if family == "sdxl":
            # Laion's text encoder was trained on texts that end in zeros and not in end marks.
            tokenizers["tokenizer_2"] = CLIPTokenizer.from_pretrained(folder, pad_token="!")  # noqa: S106, a token
        return tokenizers

    def adapter(self, adapter: Adapter) -> Generator[Progress, None, Path]:
        """The file of a LoRA on this machine; raises UserError where it is not clear which one is meant."""
        path = yield from self.located(adapter.source, adapter.revision, adapter.pick if adapter.file else None)
        return _lora_file(path, adapter.file)

    def _add_adapter(self, adapter: Adapter, components: _Components) -> None:
        """Add a LoRA to the weights themselves, so that sampling knows nothing of it."""
        file = result_of(self.adapter(adapter))
        refuse_other_adapter(adapter.source, file, read_shapes(file), components.unet)
        with errors_in_one_sentence(adapter.source):
            components.load_lora_weights(file.parent, weight_name=file.name, adapter_name="lora")
            components.set_adapters("lora", adapter.weight)
            components.fuse_lora(adapter_names=["lora"])
            components.unload_lora_weights()

    def unet(self, source: str, revision: str | None) -> UNet2DConditionModel:
        """A UNet that lies alone in a folder, or in the "unet" folder of a whole model."""
        path = self.folder(source, revision)
        path = path if (path / "config.json").is_file() else path / "unet"
        with errors_in_one_sentence(source):
            return UNet2DConditionModel.from_pretrained(
                path, dtype=self.dtype, use_safetensors=True, variant=variant_of(path)
            )

    def controlnet(self, source: str, revision: str | None) -> ControlNetModel:
        """A ControlNet in its folder."""
        path = self.folder(source, revision)
        with errors_in_one_sentence(source):
            return ControlNetModel.from_pretrained(
                path, dtype=self.dtype, use_safetensors=True, variant=variant_of(path)
            )

    def detector(self, checkpoint: DetectorCheckpoint) -> list[Network]:
        """The detector's networks, its own first."""
        # Imported here because transformers takes seconds over them, and most runs need no detector.
        from transformers import AutoModelForDepthEstimation, RTDetrForObjectDetection, VitPoseForPoseEstimation

        if checkpoint.task == "depth":
            return [self._network(AutoModelForDepthEstimation, checkpoint.source, checkpoint.revision)]
        return [
            self._network(VitPoseForPoseEstimation, checkpoint.source, checkpoint.revision),
            self._network(RTDetrForObjectDetection, checkpoint.box_source, checkpoint.box_revision),
        ]

    def annotator(self, annotator: Annotator) -> OpenposeDetector | MidasDetector:
        """A detector of controlnet-aux."""
        # Imported here because this loads a dozen detectors that nobody asks for.
        from controlnet_aux import MidasDetector, OpenposeDetector

        path = self.folder(annotator.source, pick=annotator.pick)
        missing = [name for name in annotator.files if not (path / name).is_file()]
        if missing:
            raise UserError(f"The folder {path.name!r} lacks {' and '.join(missing)}: download it again.")
        annotator_class = {"openpose": OpenposeDetector, "midas": MidasDetector}[annotator.name]
        with errors_in_one_sentence(annotator.source):
            # torch refuses to run code that a pickle may hold: plain tensors are all that it reads.
            return annotator_class.from_pretrained(str(path))

    def _network(self, model_class: type[PreTrainedModel], source: str, revision: str | None) -> Network:
        from transformers import AutoImageProcessor

        path = self.folder(source, revision)
        with errors_in_one_sentence(source):
            processor = AutoImageProcessor.from_pretrained(path)
            model = model_class.from_pretrained(path, use_safetensors=True, dtype=torch.float32)
        return Network(model.eval(), processor)


def _has_layout(path: Path) -> bool:
    """Whether a folder of the file's name beside it tells how the model is built."""
    return (path.with_suffix("") / "model_index.json").is_file()


def _without_checker(pipeline_class: type[DiffusionPipeline]) -> dict[str, object]:
    """The safety checker is no part of sampling, and Stable Diffusion XL's pipeline has no place for it."""
    if pipeline_class is StableDiffusionXLPipeline:
        return {"add_watermarker": False}
    return {"safety_checker": None, "requires_safety_checker": False}


def _lora_file(path: Path, name: str | None) -> Path:
    if path.is_file():
        return path
    if name is not None:
        return path / name  # reading it tells if it is missing
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        raise UserError(f"The folder {path.name!r} holds {len(files)} .safetensors files: name the LoRA's own file.")
    return files[0]

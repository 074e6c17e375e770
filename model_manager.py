"""The only place that loads weights: loads pipelines and detectors, keeps them, and lends them out."""

from __future__ import annotations

import gc
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers import ControlNetModel, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors import SafetensorError

from text2video_zero.checkpoints import (
    FAMILY_NAMES,
    INSTRUCT_PIX2PIX,
    TEXT_TO_IMAGE,
    family_of_unet,
    find_detector,
    short_name,
)
from text2video_zero.errors import UserError
from text2video_zero.memory import weight_budget, weight_bytes
from text2video_zero.pipeline import Detector, Network, Pipeline
from text2video_zero.preview import LatentRGB
from text2video_zero.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel

    from text2video_zero.checkpoints import Checkpoint, DetectorCheckpoint

PIPELINE_CLASSES = {
    "StableDiffusionPipeline": StableDiffusionPipeline,
    "StableDiffusionControlNetPipeline": StableDiffusionPipeline,
    "StableDiffusionInstructPix2PixPipeline": StableDiffusionPipeline,
    "StableDiffusionXLPipeline": StableDiffusionXLPipeline,
}
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


@dataclass
class _Loan:
    """A loaded pipeline, and how many runs use it."""

    pipeline: Pipeline
    runs: int = 0

    @property
    def modules(self) -> list[torch.nn.Module]:
        """Its networks; pipelines of one base have some of them in common."""
        parts = (*self.pipeline.components.components.values(), self.pipeline.controlnet)
        return [part for part in parts if isinstance(part, torch.nn.Module)]


class ModelManager:
    """Loads each checkpoint once, shares what two of them have in common, and lends them to one run after another.

    device: "cuda", "cuda:1", "mps" or "cpu"; None takes the best there is. Raises UserError for one that this
        machine does not have.
    device_budget: bytes that weights may fill on the device. When a new model would exceed them, those that
        nobody uses leave, the least recently used first: from a GPU to the CPU's memory, from there for good.
    cpu_budget: the same for weights that wait in the CPU's memory; of no meaning where the device is the CPU.

    Two runs at once on pipelines that share a UNet would disturb each other's patches: whoever runs jobs runs
    one at a time on a manager.
    """

    def __init__(
        self, device: str | None = None, *, device_budget: int | None = None, cpu_budget: int | None = None
    ) -> None:
        self.device = _checked_device(device) if device else torch.device(_best_device())
        self.dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        self.device_budget = weight_budget(self.device) if device_budget is None else device_budget
        self.cpu_budget = weight_budget(torch.device("cpu")) if cpu_budget is None else cpu_budget
        self._loans: dict[Checkpoint, _Loan] = {}  # the least recently used first
        self._books = threading.Lock()  # held for moments: guards _loans
        self._loading = threading.Lock()  # held for as long as a load takes, so that each key is loaded once

    def describe_device(self) -> str:
        """The device as a person would name it."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return {"mps": "Apple GPU", "cpu": "CPU"}.get(self.device.type, str(self.device))

    def is_loaded(self, checkpoint: Checkpoint) -> bool:
        """Whether lending the checkpoint would read nothing from disk."""
        return checkpoint in self._loans

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
            with self._books:
                loan.runs -= 1
        left_behind = sum(
            found is not before[name]
            for module, before in zip(patchable, processors, strict=True)
            for name, found in module.attn_processors.items()
        )
        if left_behind:
            raise RuntimeError(f"a run left {left_behind} patched attention layers behind")

    @contextmanager
    def lend_detector(self, detector: str | DetectorCheckpoint) -> Iterator[Detector]:
        """A detector of poses or depth, released when the context ends.

        detector: a known name ("depth", "depth-dpt-hybrid", "pose") or what to load. Raises UserError when it
        cannot be loaded.
        """
        checkpoint = find_detector(detector) if isinstance(detector, str) else detector
        with self._loading:
            networks = _load_detector(checkpoint, self.device)
        try:
            yield Detector(checkpoint, self.device, *networks)
        finally:
            for network in networks:
                network.model.to("meta")  # whoever still holds the record holds no weights
            self._free_unused()

    def _borrowed(self, checkpoint: Checkpoint) -> _Loan:
        """The loan of a checkpoint, counted as in use, with all its weights on the device."""
        loan = self._ready_loan(checkpoint)
        if loan is not None:
            return loan
        with self._loading:
            loan = self._ready_loan(checkpoint)  # somebody else may have loaded it meanwhile
            if loan is not None:
                return loan
            loan = self._loans.get(checkpoint) or _Loan(self._load(checkpoint))
            self._bring_to_device(loan)
            with self._books:
                self._loans.pop(checkpoint, None)
                self._loans[checkpoint] = loan
                loan.runs += 1
            return loan

    def _ready_loan(self, checkpoint: Checkpoint) -> _Loan | None:
        with self._books:
            loan = self._loans.get(checkpoint)
            if loan is None or not all(self._is_on_device(module) for module in loan.modules):
                return None
            self._loans[checkpoint] = self._loans.pop(checkpoint)  # now the most recently used
            loan.runs += 1
            return loan

    def _is_on_device(self, module: torch.nn.Module) -> bool:
        return next(module.parameters()).device.type == self.device.type

    def _bring_to_device(self, wanted: _Loan) -> None:
        """Make room by the rules of the budgets, then move what is not there yet."""
        self._make_room(wanted, self.device_budget)
        missing = [module for module in wanted.modules if not self._is_on_device(module)]
        try:
            for module in missing:
                module.to(self.device)
        except torch.OutOfMemoryError:
            # The budget knows nothing of other programs on the same GPU: try once more with nothing else there.
            self._make_room(wanted, 0)
            try:
                for module in missing:
                    module.to(self.device)
            except torch.OutOfMemoryError as error:
                for module in missing:
                    module.to("cpu")
                raise UserError(
                    f"The model {wanted.pipeline.checkpoint.name!r} does not fit into the memory of "
                    f"{self.describe_device()}: close other programs that use it, or choose --device cpu."
                ) from error

    def _make_room(self, wanted: _Loan, budget: int) -> None:
        """Send unused pipelines away, the least recently used first, until the wanted one fits."""
        with self._books:
            for checkpoint, loan in list(self._loans.items()):
                if self._bytes_with(wanted, on_device=True) <= budget:
                    break
                if loan.runs or loan is wanted:
                    continue
                if self.device.type == "cpu":
                    del self._loans[checkpoint]
                else:
                    for module in self._only_used_by(loan, wanted):
                        module.to("cpu")
            for checkpoint, loan in list(self._loans.items()):
                if self.device.type == "cpu" or self._bytes_with(wanted, on_device=False) <= self.cpu_budget:
                    break
                if not loan.runs and loan is not wanted:
                    del self._loans[checkpoint]
        self._free_unused()

    def _bytes_with(self, wanted: _Loan, *, on_device: bool) -> int:
        """Bytes on the device with the wanted pipeline there, or bytes in the CPU's memory without it."""
        coming = {id(module) for module in wanted.modules}
        modules = [module for loan in self._loans.values() for module in loan.modules]
        kept = [m for m in modules if id(m) not in coming and self._is_on_device(m) == on_device]
        return weight_bytes([*kept, *wanted.modules] if on_device else kept)

    def _only_used_by(self, loan: _Loan, wanted: _Loan) -> list[torch.nn.Module]:
        """Networks that neither the wanted pipeline nor any that is in use or more recently used shares."""
        order = list(self._loans.values())
        later = order[order.index(loan) + 1 :]
        others = [wanted, *later, *(other for other in order if other.runs)]
        needed = {id(module) for other in others for module in other.modules}
        return [module for module in loan.modules if id(module) not in needed]

    def _free_unused(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _load(self, checkpoint: Checkpoint) -> Pipeline:
        """The pipeline, in the CPU's memory but for what it shares with loaded ones."""
        loaded = [loan.pipeline for loan in self._loans.values()]
        base = next((other for other in loaded if other.checkpoint.base == checkpoint.base), None)
        if base is None:
            base = self._load_base(checkpoint.base, _parts_at_hand(checkpoint, loaded))
        controlnet = None
        if checkpoint.controlnet is not None:
            key = _controlnet_key(checkpoint)
            at_hand = (other.controlnet for other in loaded if _controlnet_key(other.checkpoint) == key)
            controlnet = next(at_hand, None) or _load_controlnet(checkpoint, self.dtype)
            _refuse_other_family(checkpoint, controlnet, base.components.unet)
        return replace(base, checkpoint=checkpoint, controlnet=controlnet)

    def _load_base(self, checkpoint: Checkpoint, at_hand: dict[str, object]) -> Pipeline:
        components = _load_components(checkpoint, at_hand, self.dtype)
        components.set_progress_bar_config(disable=True)
        _refuse_other_kind_of_unet(checkpoint, components.unet)
        same_vae = (loan.pipeline for loan in self._loans.values() if loan.pipeline.components.vae is components.vae)
        known = next(same_vae, None)
        latent_rgb = known.latent_rgb if known else LatentRGB.fit(components.vae)
        vocabulary = Vocabulary.read(Path(checkpoint.source))
        return Pipeline(checkpoint, components, latent_rgb, self.lend_detector, vocabulary)


def _controlnet_key(checkpoint: Checkpoint) -> tuple[str | None, str | None]:
    return checkpoint.controlnet, checkpoint.controlnet_revision


def _parts_at_hand(checkpoint: Checkpoint, loaded: list[Pipeline]) -> dict[str, object]:
    """Components of loaded pipelines that reading the checkpoint would only bring a second time."""
    parts: dict[str, object] = {}
    for other in loaded:
        known = other.checkpoint
        if (known.source, known.revision) != (checkpoint.source, checkpoint.revision):
            continue
        tuned: set[str] = set()
        if known.adapters != checkpoint.adapters:
            tuned |= {"unet", *TEXT_ENCODERS}
        if (known.unet, known.unet_revision) != (checkpoint.unet, checkpoint.unet_revision):
            tuned.add("unet")
        components = other.components.components
        parts |= {name: part for name, part in components.items() if part is not None and name not in tuned}
    return parts


def _load_components(
    checkpoint: Checkpoint, at_hand: dict[str, object], dtype: torch.dtype
) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    """Read the weights that are not at hand."""
    path = Path(checkpoint.source)
    _refuse_other_kinds(path)
    parts = dict(at_hand)
    if checkpoint.unet is not None and "unet" not in parts:
        parts["unet"] = _load_unet(checkpoint.unet, checkpoint.unet_revision, dtype)
    with _errors_in_one_sentence(checkpoint.source):
        if path.suffix == ".safetensors":
            return StableDiffusionPipeline.from_single_file(str(path), dtype=dtype, safety_checker=None, **parts)
        kind = StableDiffusionPipeline.load_config(checkpoint.source, revision=checkpoint.revision)["_class_name"]
        pipeline_class = PIPELINE_CLASSES.get(kind)
        if pipeline_class is None:
            raise UserError(
                f"The model {checkpoint.name!r} is a {kind}: choose a Stable Diffusion 1.x, 2.x or XL model."
            )
        without_checker = {"safety_checker": None, "requires_safety_checker": False}
        return pipeline_class.from_pretrained(
            checkpoint.source,
            revision=checkpoint.revision,
            dtype=dtype,
            use_safetensors=True,
            **(without_checker if pipeline_class is StableDiffusionPipeline else {}),
            **parts,
        )


def _load_unet(source: str, revision: str | None, dtype: torch.dtype) -> UNet2DConditionModel:
    """A UNet that lies alone in a folder, or in the "unet" folder of a whole model."""
    alone = (Path(source) / "config.json").is_file()
    with _errors_in_one_sentence(source):
        return UNet2DConditionModel.from_pretrained(
            source, subfolder=None if alone else "unet", revision=revision, dtype=dtype, use_safetensors=True
        )


def _load_controlnet(checkpoint: Checkpoint, dtype: torch.dtype) -> ControlNetModel:
    source = checkpoint.controlnet
    with _errors_in_one_sentence(source):
        return ControlNetModel.from_pretrained(
            source, revision=checkpoint.controlnet_revision, dtype=dtype, use_safetensors=True
        )


def _load_detector(checkpoint: DetectorCheckpoint, device: torch.device) -> list[Network]:
    """The detector's networks, its own first."""
    # Imported here because transformers takes seconds over them, and most runs need no detector.
    from transformers import AutoModelForDepthEstimation, RTDetrForObjectDetection, VitPoseForPoseEstimation

    if checkpoint.task == "depth":
        return [_load_network(AutoModelForDepthEstimation, checkpoint.source, checkpoint.revision, device)]
    return [
        _load_network(VitPoseForPoseEstimation, checkpoint.source, checkpoint.revision, device),
        _load_network(RTDetrForObjectDetection, checkpoint.box_source, checkpoint.box_revision, device),
    ]


def _load_network(
    model_class: type[PreTrainedModel], source: str, revision: str | None, device: torch.device
) -> Network:
    from transformers import AutoImageProcessor

    with _errors_in_one_sentence(source):
        processor = AutoImageProcessor.from_pretrained(source, revision=revision)
        model = model_class.from_pretrained(source, revision=revision, use_safetensors=True, dtype=torch.float32)
    return Network(model.eval().to(device), processor)


@contextmanager
def _errors_in_one_sentence(source: str) -> Iterator[None]:
    """Every reason why reading weights fails becomes a UserError."""
    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"The model {source!r} could not be loaded ({reason}): give a known name, a folder in "
            "diffusers layout, a .safetensors file or a Hub id, and check that it is complete."
        ) from error


def _refuse_other_kinds(path: Path) -> None:
    """Raises UserError for local models that are of no use here, before anything is read."""
    if path.suffix == ".safetensors" and not path.is_file():
        raise UserError(f"The model file {str(path)!r} does not exist: check the path.")
    if path.is_dir() and not (path / "model_index.json").is_file():
        raise UserError(f"The folder {str(path)!r} holds no model_index.json: give a folder in diffusers layout.")


def _refuse_other_kind_of_unet(checkpoint: Checkpoint, unet: UNet2DConditionModel) -> None:
    """Raises UserError where the UNet takes other inputs than the task gives it."""
    kinds = {4: TEXT_TO_IMAGE, 8: INSTRUCT_PIX2PIX, 9: "inpainting"}
    kind = kinds.get(unet.config.in_channels, "other inputs")
    if kind != checkpoint.kind:
        raise UserError(f"The model {checkpoint.name!r} is made for {kind}: choose one for {checkpoint.kind} here.")


def _refuse_other_family(checkpoint: Checkpoint, controlnet: ControlNetModel, unet: UNet2DConditionModel) -> None:
    """Raises UserError where the ControlNet was made for a UNet of another shape."""
    if any(controlnet.config[name] != unet.config[name] for name in ("cross_attention_dim", "block_out_channels")):
        ours, theirs = (FAMILY_NAMES[family_of_unet(model.config)] for model in (unet, controlnet))
        raise UserError(
            f"The ControlNet {short_name(checkpoint.controlnet)!r} ({theirs}) does not fit the model "
            f"{checkpoint.name!r} ({ours}): choose a ControlNet of that model's own kind."
        )


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

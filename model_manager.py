"""The only place that loads weights: loads pipelines and detectors, keeps them, and lends them out."""

from __future__ import annotations

import gc
import platform
import tempfile
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from diffusers import ControlNetModel, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors import SafetensorError
from transformers import CLIPTokenizer

from text2video_zero.checkpoints import (
    CONTROLNETS,
    DREAMBOOTH_STYLES,
    FAMILY_NAMES,
    INSTRUCT_PIX2PIX,
    KNOWN_DETECTORS,
    KNOWN_MODELS,
    MODELS_FOLDER,
    TEXT_TO_IMAGE,
    Annotator,
    family_of_unet,
    find_detector,
    local_models,
    mirrors_of,
    short_name,
)
from text2video_zero.errors import UserError
from text2video_zero.hub import GIB, Hub, needed_files, tokenizer_files
from text2video_zero.layouts import write_layout
from text2video_zero.map_cache import MapCache
from text2video_zero.memory import Holding, memory_of, to_send_away, weight_budget, weight_bytes
from text2video_zero.pipeline import Detector, Network, Pipeline
from text2video_zero.preview import LatentRGB
from text2video_zero.vocabulary import Vocabulary
from text2video_zero.weights import (
    UNET_INPUT,
    check_whole,
    family_of_file,
    is_lora,
    lora_text_width,
    read_shapes,
    variant_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from controlnet_aux import MidasDetector, OpenposeDetector
    from diffusers import DiffusionPipeline
    from transformers import PreTrainedModel

    from text2video_zero.checkpoints import Adapter, Checkpoint, DetectorCheckpoint

    _Components = StableDiffusionPipeline | StableDiffusionXLPipeline

PIPELINE_CLASSES = {
    "StableDiffusionPipeline": StableDiffusionPipeline,
    "StableDiffusionControlNetPipeline": StableDiffusionPipeline,
    "StableDiffusionInstructPix2PixPipeline": StableDiffusionPipeline,
    "StableDiffusionXLPipeline": StableDiffusionXLPipeline,
}
CHECKED_PACKAGES = ("torch", "diffusers", "transformers", "peft", "gradio")
TOKENIZER_SOURCE = "openai/clip-vit-large-patch14"
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

    def holding(self, counts: Callable[[torch.nn.Module], bool] = lambda _: True) -> Holding:
        """The networks that count, with their sizes."""
        parts = {id(module): weight_bytes([module]) for module in self.modules if counts(module)}
        return Holding(parts, in_use=self.runs > 0)


class ModelManager:
    """Loads each checkpoint once, shares what two of them have in common, and lends them to one run after another.

    device: "cuda", "cuda:1", "mps" or "cpu"; None takes the best there is. Raises UserError for one that this
        machine does not have.
    device_budget: bytes that weights may fill on the device. When a new model would exceed them, those that
        nobody uses leave, the least recently used first: from a GPU to the CPU's memory, from there for good.
    cpu_budget: the same for weights that wait in the CPU's memory; of no meaning where the device is the CPU.
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
        self.device = _checked_device(device) if device else torch.device(_best_device())
        self.dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        self.device_budget = weight_budget(self.device) if device_budget is None else device_budget
        self.cpu_budget = weight_budget(torch.device("cpu")) if cpu_budget is None else cpu_budget
        # Clips are their owner's business: what was drawn from them goes when the program ends.
        self._map_folder = tempfile.TemporaryDirectory(prefix="text2video-zero-maps-")
        self.map_cache = MapCache(Path(self._map_folder.name))
        self._reader = _Reader(hub or Hub(), self.dtype)
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

    def self_check(self) -> list[str]:
        """What there is to work with, a line each: device, memory, versions, and the models that need no network."""
        free, total = (amount / GIB for amount in memory_of(self.device))
        versions = (f"{package} {version(package)}" for package in CHECKED_PACKAGES)
        known = {model.name: model.checkpoint.source for model in (*KNOWN_MODELS.values(), *DREAMBOOTH_STYLES.values())}
        parts = {
            **{
                f"ControlNet {source}": source
                for controls in CONTROLNETS.values()
                for source, *_ in controls.values()
                if not Path(source).is_absolute()
            },
            **{f"detector {name}": detector.source for name, detector in KNOWN_DETECTORS.items()},
        }
        return [
            f"Device: {self.describe_device()} ({self.device}), {str(self.dtype).removeprefix('torch.')}",
            f"Memory: {free:.1f} of {total:.1f} GB free, up to {self.device_budget / GIB:.1f} GB for models",
            f"Versions: Python {platform.python_version()}, {', '.join(versions)}",
            *(f"Model {name}: {self._whereabouts(source)}" for name, source in known.items()),
            *(f"Model {name}: here, in {MODELS_FOLDER.name}/" for name in local_models()),
            *(f"{name[0].upper()}{name[1:]}: {self._whereabouts(source)}" for name, source in parts.items()),
        ]

    def _whereabouts(self, source: str) -> str:
        if Path(source).is_absolute():
            return "here" if Path(source).is_dir() else "missing"
        return "here" if self._reader.hub.is_here(source) else "would be downloaded"

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
            others = {checkpoint: loan for checkpoint, loan in self._loans.items() if loan is not wanted}
            holdings = [loan.holding(self._is_on_device) for loan in others.values()]
            leaving = to_send_away(holdings, wanted.holding(), budget)
            if self.device.type == "cpu":
                self._drop(others, leaving)
            else:
                staying = [loan for number, loan in enumerate(others.values()) if number not in leaving]
                needed = {id(module) for loan in (wanted, *staying) for module in loan.modules}
                for number in leaving:
                    for module in list(others.values())[number].modules:
                        if id(module) not in needed:
                            module.to("cpu")
                waiting = [loan.holding(lambda module: not self._is_on_device(module)) for loan in others.values()]
                self._drop(others, to_send_away(waiting, Holding({}), self.cpu_budget))
        self._free_unused()

    def _drop(self, loans: dict[Checkpoint, _Loan], numbers: list[int]) -> None:
        for number in numbers:
            del self._loans[list(loans)[number]]

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
            controlnet = next(at_hand, None) or self._reader.controlnet(*key)
            _refuse_other_family(checkpoint, controlnet, base.components.unet)
        return replace(base, checkpoint=checkpoint, controlnet=controlnet)

    def _load_base(self, checkpoint: Checkpoint, at_hand: dict[str, object]) -> Pipeline:
        components, path = self._reader.base(checkpoint, at_hand)
        components.set_progress_bar_config(disable=True)
        same_vae = (loan.pipeline for loan in self._loans.values() if loan.pipeline.components.vae is components.vae)
        known = next(same_vae, None)
        latent_rgb = known.latent_rgb if known else LatentRGB.fit(components.vae)
        vocabulary = Vocabulary.read(path)
        return Pipeline(checkpoint, components, latent_rgb, self.lend_detector, self.map_cache, vocabulary)


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
        if known.adapters or checkpoint.adapters:  # adapters are added to the weights themselves
            tuned |= {"unet", *TEXT_ENCODERS}
        if (known.unet, known.unet_revision) != (checkpoint.unet, checkpoint.unet_revision):
            tuned.add("unet")
        components = other.components.components
        parts |= {name: part for name, part in components.items() if part is not None and name not in tuned}
    return parts


@dataclass(frozen=True)
class _Reader:
    """Reads weights into the CPU's memory: from folders, single files and the Hub, always safetensors.

    dtype: of the networks that sample; detectors are float32.
    """

    hub: Hub
    dtype: torch.dtype

    def folder(self, source: str, revision: str | None) -> Path:
        """Where a folder, a file or a Hub id is on this machine, whole; downloaded if need be."""
        path = Path(source).expanduser()
        if path.exists():
            found = path
        elif path.suffix == ".safetensors" or path.is_absolute() or source.startswith("."):
            raise UserError(f"The model {source!r} does not exist: check the path.")
        else:
            found = self.hub.folder(source, revision, partial(needed_files, half=self.dtype == torch.float16))
        check_whole(found)
        return found

    def base(self, checkpoint: Checkpoint, at_hand: dict[str, object]) -> tuple[_Components, Path]:
        """A whole model, but for the components at hand, which it takes as they are; and where it lies."""
        path = self._first_to_be_had(checkpoint)
        parts = dict(at_hand)
        if checkpoint.unet is not None and "unet" not in parts:
            parts["unet"] = self.unet(checkpoint.unet, checkpoint.unet_revision)
        with _errors_in_one_sentence(checkpoint.source):
            read = self._single_file if path.is_file() else self._whole_folder
            components = read(path, parts)
        _refuse_other_kind_of_unet(checkpoint, components.unet)
        if components.vae.config.force_upcast and isinstance(components, StableDiffusionXLPipeline):
            components.vae.to(torch.float32)  # it overflows in half precision, on every picture
        for adapter in checkpoint.adapters:
            self._add_adapter(adapter, components)
        return components, path

    def _first_to_be_had(self, checkpoint: Checkpoint) -> Path:
        """The model's own place, or the first of its mirrors that answers."""
        try:
            return self.folder(checkpoint.source, checkpoint.revision)
        except UserError:
            for mirror in mirrors_of(checkpoint):
                with suppress(UserError):
                    return self.folder(mirror.source, mirror.revision)
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
            if not (layout / "model_index.json").is_file():
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
        folder = self.hub.folder(TOKENIZER_SOURCE, pick=tokenizer_files)
        tokenizers: dict[str, object] = {"tokenizer": CLIPTokenizer.from_pretrained(folder)}
        if family == "sdxl":
            # Laion's text encoder was trained on texts that end in zeros and not in end marks.
            tokenizers["tokenizer_2"] = CLIPTokenizer.from_pretrained(folder, pad_token="!")  # noqa: S106, a token
        return tokenizers

    def _add_adapter(self, adapter: Adapter, components: _Components) -> None:
        """Add a LoRA to the weights themselves, so that sampling knows nothing of it."""
        file = _lora_file(self.folder(adapter.source, adapter.revision))
        name = short_name(adapter.source)
        shapes = read_shapes(file)
        if not is_lora(shapes):
            raise UserError(f"The file {file.name!r} is no LoRA: give a whole model as the model, not as an adapter.")
        theirs, ours = lora_text_width(shapes), components.unet.config.cross_attention_dim
        if theirs not in {None, ours}:
            raise UserError(
                f"The LoRA {name!r} was made for another base (text width {theirs}, the model's is {ours}): "
                "choose one that was trained on the model's own family."
            )
        with _errors_in_one_sentence(adapter.source):
            components.load_lora_weights(file.parent, weight_name=file.name, adapter_name="lora")
            components.set_adapters("lora", adapter.weight)
            components.fuse_lora(adapter_names=["lora"])
            components.unload_lora_weights()

    def unet(self, source: str, revision: str | None) -> UNet2DConditionModel:
        """A UNet that lies alone in a folder, or in the "unet" folder of a whole model."""
        path = self.folder(source, revision)
        path = path if (path / "config.json").is_file() else path / "unet"
        with _errors_in_one_sentence(source):
            return UNet2DConditionModel.from_pretrained(
                path, dtype=self.dtype, use_safetensors=True, variant=variant_of(path)
            )

    def controlnet(self, source: str, revision: str | None) -> ControlNetModel:
        """A ControlNet in its folder."""
        path = self.folder(source, revision)
        with _errors_in_one_sentence(source):
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

        path = Path(annotator.source)
        if not path.is_dir():
            path = self.hub.folder(annotator.source, pick=lambda offered: sorted(set(annotator.files) & set(offered)))
        missing = [name for name in annotator.files if not (path / name).is_file()]
        if missing:
            raise UserError(f"The folder {path.name!r} lacks {' and '.join(missing)}: download it again.")
        annotator_class = {"openpose": OpenposeDetector, "midas": MidasDetector}[annotator.name]
        with _errors_in_one_sentence(annotator.source):
            # torch refuses to run code that a pickle may hold: plain tensors are all that it reads.
            return annotator_class.from_pretrained(str(path))

    def _network(self, model_class: type[PreTrainedModel], source: str, revision: str | None) -> Network:
        from transformers import AutoImageProcessor

        path = self.folder(source, revision)
        with _errors_in_one_sentence(source):
            processor = AutoImageProcessor.from_pretrained(path)
            model = model_class.from_pretrained(path, use_safetensors=True, dtype=torch.float32)
        return Network(model.eval(), processor)


def _without_checker(pipeline_class: type[DiffusionPipeline]) -> dict[str, object]:
    """The safety checker is no part of sampling, and Stable Diffusion XL's pipeline has no place for it."""
    if pipeline_class is StableDiffusionXLPipeline:
        return {"add_watermarker": False}
    return {"safety_checker": None, "requires_safety_checker": False}


def _lora_file(path: Path) -> Path:
    if path.is_file():
        return path
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        raise UserError(f"The folder {path.name!r} holds {len(files)} .safetensors files: name the LoRA's own file.")
    return files[0]


@contextmanager
def _errors_in_one_sentence(source: str) -> Iterator[None]:
    """Every reason why reading weights fails becomes a UserError."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"The model {short_name(source)!r} could not be read ({reason.rstrip('.')}): check that it is complete "
            "and of the kind that is asked for."
        ) from error


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

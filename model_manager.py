"""The only place that loads weights: loads pipelines and detectors, keeps them, and lends them out."""

from __future__ import annotations

import weakref
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    ControlNetModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTokenizer

from text2video_zero.control.map_cache import MapCache
from text2video_zero.control.toyland_reader import ReaderProcessor, ToylandReader
from text2video_zero.device.compilation import check_compiler, compile_blocks
from text2video_zero.device.copies import room_for_copy, tunable_copy
from text2video_zero.device.devices import chosen_device, chosen_type, device_name, memory_format
from text2video_zero.device.memory import weight_budget
from text2video_zero.device.offload import CPU
from text2video_zero.device.pipeline_cache import PipelineCache
from text2video_zero.device.self_check import self_check
from text2video_zero.errors import UserError
from text2video_zero.generators import result_of
from text2video_zero.media.files import folder_of_this_program
from text2video_zero.models.additions.lora import add_lora
from text2video_zero.models.catalogue import PREVIEW_DECODERS, SAFETY_CHECKER, find_detector, is_harmless
from text2video_zero.models.checkpoints import TOYLAND_DEPTH, Annotator
from text2video_zero.models.compatibility import (
    check_configuration,
    check_controlnet,
    check_kind,
    errors_in_one_sentence,
    pipeline_class_of,
)
from text2video_zero.models.files.fingerprints import short_hash
from text2video_zero.models.files.older_names import has_older_names, text_encoder_of
from text2video_zero.models.files.pickled import plainly_read
from text2video_zero.models.files.single_file import controlnet_configuration, opened
from text2video_zero.models.hub import Hub
from text2video_zero.models.hub.files import safetensors_alone
from text2video_zero.models.native_size import native_size
from text2video_zero.models.pipeline import Detector, Network, Pipeline, no_patch_left_behind
from text2video_zero.models.selection import family_of
from text2video_zero.models.sources import Sources
from text2video_zero.models.vocabulary import Vocabulary
from text2video_zero.models.weights import check_whole, has_autoencoder, variant_of
from text2video_zero.sampling.preview import LatentRGB, TinyDecoder
from text2video_zero.sampling.safety import SafetyChecker

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from controlnet_aux import MidasDetector, OpenposeDetector
    from diffusers import DiffusionPipeline

    from text2video_zero.events import Notice, Progress
    from text2video_zero.models.checkpoints import Checkpoint, DetectorCheckpoint
    from text2video_zero.models.files.single_file import SingleFile
    from text2video_zero.requests import Size
    from text2video_zero.sampling.preview import PreviewDecoder

    _Components = StableDiffusionPipeline | StableDiffusionXLPipeline


class ModelManager:
    """Loads each checkpoint once, shares what two of them have in common, and lends them to one run after another.

    device: "cuda", "cuda:1", "mps" or "cpu"; None takes the best there is. Raises UserError for one that this
        machine does not have.
    dtype: "float16", "bfloat16" or "float32"; None takes what suits the device.
    compiled: whether UNets and ControlNets are compiled, see COMPILATION_COST. Raises UserError where they cannot be.
    device_budget, cpu_budget: bytes that weights may fill on the device, and that those may fill which wait in
        the CPU's memory; see `PipelineCache` for what happens beyond.
    hub: where Hub ids are looked up.
    check_safety: whether a safety checker looks at what models draw, but for those that are known to be harmless.

    Two runs at once on pipelines that share a UNet would disturb each other's patches: one at a time on a manager.
    """

    def __init__(
        self,
        device: str | None = None,
        *,
        dtype: str | None = None,
        compiled: bool = False,
        device_budget: int | None = None,
        cpu_budget: int | None = None,
        hub: Hub | None = None,
        check_safety: bool = False,
    ) -> None:
        self.device = chosen_device(device)
        self.dtype = chosen_type(dtype, self.device)
        self.compiled = compiled
        if compiled:
            check_compiler()
        self._sources = Sources(hub or Hub(), half=self.dtype != torch.float32)
        self.cache = PipelineCache(
            self.device,
            weight_budget(self.device) if device_budget is None else device_budget,
            weight_budget(CPU) if cpu_budget is None else cpu_budget,
            self._sources.stamp,
        )
        # Clips are their owner's business: what was drawn from them goes when the program ends.
        map_folder, remove_maps = folder_of_this_program("text2video-zero-maps-")
        weakref.finalize(self, remove_maps)
        self.map_cache = MapCache(map_folder)
        self._check_safety = check_safety
        self._reader = _Reader(self._sources, self.dtype, memory_format(self.device), compiled)

    def describe_device(self) -> str:
        """The device as a person would name it."""
        return device_name(self.device)

    def is_loaded(self, checkpoint: Checkpoint) -> bool:
        """Whether lending the checkpoint would read nothing from disk."""
        return checkpoint in self.cache

    def self_check(self) -> list[str]:
        """What there is to work with, a line each: device, memory, versions, and the models that need no network."""
        return self_check(self.device, self.dtype, self.cache.device_budget, self._sources.hub)

    def native_size(self, checkpoint: Checkpoint) -> Size:
        """The size that the checkpoint was trained at, as far as it can be told without loading or downloading it."""
        return native_size(checkpoint, self._sources.hub)

    def fetch(self, checkpoint: Checkpoint) -> Generator[Progress | Notice]:
        """Download what lending the checkpoint needs and what is not here, with progress in bytes.

        Closing the iterator stops the download soon; the next one goes on where it was. Raises UserError when
        something cannot be had; the manager is then as it was.
        """
        if not self.is_loaded(checkpoint):
            if self._is_checked(checkpoint):  # first, because without it the rest would be in vain
                yield from self._sources.safety_folder()
            yield from self._sources.fetch(checkpoint)

    @contextmanager
    def lend(self, checkpoint: Checkpoint) -> Generator[Pipeline]:
        """The loaded checkpoint, for one run.

        Raises UserError when it cannot be loaded; the manager is then as it was. Leaving checks that the run
        has taken its attention processors away again.
        """
        with self.cache.in_use(checkpoint, self._load) as pipeline, no_patch_left_behind(pipeline.networks):
            yield pipeline

    def fetch_detector(self, detector: str | DetectorCheckpoint | Annotator) -> Generator[Progress]:
        """Download what lending the detector needs and what is not here, as `fetch` does for a checkpoint."""
        yield from self._sources.fetch_detector(find_detector(detector) if isinstance(detector, str) else detector)

    @contextmanager
    def lend_detector(
        self, detector: str | DetectorCheckpoint | Annotator
    ) -> Generator[Detector | OpenposeDetector | MidasDetector]:
        """A detector of poses or depth, released when the context ends; for an Annotator controlnet-aux's own.

        detector: a known name ("depth", "depth-dpt-hybrid", "pose", "openpose", "midas") or what to load.
        Raises UserError when it cannot be loaded.
        """
        checkpoint = find_detector(detector) if isinstance(detector, str) else detector
        with self.cache.loading:
            if isinstance(checkpoint, Annotator):
                lent = self._reader.annotator(checkpoint)
                parts: list[Any] = [lent]
            else:
                networks = self._reader.detector(checkpoint)
                lent, parts = Detector(checkpoint, self.device, *networks), [network.model for network in networks]
            for part in parts:
                part.to(self.device)
        try:
            yield lent
        finally:
            for part in parts:
                part.to("meta")  # whoever still holds what was lent holds no weights
            self.cache.free_unused()

    @torch.inference_mode(mode=False)  # what is kept must serve whoever asks next, in whichever mode
    def _load(self, checkpoint: Checkpoint) -> Pipeline:
        """The pipeline, in the CPU's memory but for what it shares with loaded ones."""
        base = self.cache.base(checkpoint) or self._load_base(checkpoint.base)
        if checkpoint.controlnet is None:
            return replace(base, checkpoint=checkpoint, controlnet=None)
        controlnet = self.cache.controlnet(checkpoint) or self._reader.controlnet(
            checkpoint.controlnet, checkpoint.controlnet_revision
        )
        check_controlnet(checkpoint.controlnet, controlnet, checkpoint, base.components.unet)
        return replace(base, checkpoint=checkpoint, controlnet=controlnet)

    def _load_base(self, checkpoint: Checkpoint) -> Pipeline:
        """A pipeline without ControlNet. One with LoRAs is made of a copy of the plain one, which stays for others."""
        checked = self._is_checked(checkpoint)
        checker = (self.cache.safety_checker() or self._reader.safety_checker()) if checked else None
        plain = self.cache.untouched(checkpoint)
        if plain is None or (checkpoint.adapters and not room_for_copy(plain.components)):
            plain = self._load_plain(checkpoint)
        components = plain.components
        if checkpoint.adapters and room_for_copy(components):
            self._reader.prepare(components.unet)
            self.cache.keep(replace(plain, safety_checker=checker if self._is_checked(plain.checkpoint) else None))
            components = tunable_copy(components)
        for adapter in checkpoint.adapters:
            add_lora(components, adapter, result_of(self._sources.adapter(adapter)))
        self._reader.prepare(components.unet)
        return replace(plain, checkpoint=checkpoint, components=components, safety_checker=checker)

    def _load_plain(self, checkpoint: Checkpoint) -> Pipeline:
        """The pipeline without LoRAs; it shares with others nothing that the checkpoint's would change."""
        components, path = self._reader.base(checkpoint, self.cache.parts(checkpoint))
        components.set_progress_bar_config(disable=True)
        relative = self.cache.with_vae(components.vae)
        preview_decoder = relative.preview_decoder if relative else self._preview_decoder(checkpoint, components)
        weights = short_hash(self._sources.unet_files(checkpoint, path))
        plain, words = replace(checkpoint, adapters=()), Vocabulary.read(path)
        return Pipeline(plain, components, preview_decoder, self.device, words, weights=weights)

    def _is_checked(self, checkpoint: Checkpoint) -> bool:
        return self._check_safety and not is_harmless(checkpoint)

    def _preview_decoder(self, checkpoint: Checkpoint, components: _Components) -> PreviewDecoder:
        linear = LatentRGB.fit(components.vae)
        if self._is_checked(checkpoint):  # nobody looks at previews: they are to show no more than colours
            return linear
        if tiny := self._reader.tiny_autoencoder(family_of(checkpoint, self._sources.hub)):
            torch.nn.Module.to(tiny, self.device)
        return TinyDecoder(tiny, linear) if tiny else linear


@dataclass(frozen=True)
class _Reader:
    """Reads weights into the CPU's memory: from folders and single files, pickles among them as plain tensors alone.

    sources: finds them on this machine.  dtype: of the networks that sample; detectors are float32.
    order: of the weights of networks with convolutions.  compiled: whether those that sample are.
    """

    sources: Sources
    dtype: torch.dtype
    order: torch.memory_format
    compiled: bool

    def base(self, checkpoint: Checkpoint, at_hand: dict[str, object]) -> tuple[_Components, Path]:
        """A whole model, but for the components at hand, which it takes as they are; and where it lies."""
        path = result_of(self.sources.first_to_be_had(checkpoint))
        parts = dict(at_hand)
        if checkpoint.unet and "unet" not in parts:
            parts["unet"] = self.unet(checkpoint.unet, checkpoint.unet_revision)
        check_configuration(checkpoint.source, path)
        with errors_in_one_sentence(checkpoint.source):
            components = (self._single_file if path.is_file() else self._whole_folder)(path, parts)
        check_kind(checkpoint, components.unet)
        if components.vae.config["force_upcast"] and isinstance(components, StableDiffusionXLPipeline):
            components.vae.to(torch.float32)  # it overflows in half precision, on every picture
        cast("Any", components.vae).to(memory_format=self.order)  # torch's stubs of `to` do not know this option
        return components, path

    def prepare(self, network: UNet2DConditionModel | ControlNetModel) -> None:
        """Put a network that samples into the order that is quick, and compile it if that is wanted."""
        cast("Any", network).to(memory_format=self.order)
        if self.compiled:
            compile_blocks(network)

    def _whole_folder(self, path: Path, parts: dict[str, object]) -> _Components:
        pipeline_class = pipeline_class_of(path)
        options = self._as_it_lies(path) | {"variant": variant_of(path / "unet")}
        return pipeline_class.from_pretrained(path, **options, **_without_checker(pipeline_class), **parts)

    def _single_file(self, path: Path, parts: dict[str, object]) -> _Components:
        """A whole model in one file; a folder of the file's name beside it may hold its configuration."""
        with opened(path) as file, plainly_read(path):
            pipeline_class = StableDiffusionXLPipeline if file.family == "sdxl" else StableDiffusionPipeline
            components = pipeline_class.from_single_file(
                str(path),
                config=str(file.configuration),
                dtype=self.dtype,
                local_files_only=True,
                **_without_checker(pipeline_class),
                **(self._left_out(file) | parts),
            )
            components.scheduler = file.corrected(components.scheduler)
            return components

    def _left_out(self, file: SingleFile) -> dict[str, object]:
        """Parts that a single file lacks, or has under names that its readers do not know any more."""
        parts = {} if file.has_own else self._tokenizers(file.family)
        if not has_autoencoder(file.shapes):
            vae = result_of(self.sources.autoencoder_folder(file.path, file.family))
            parts["vae"] = AutoencoderKL.from_pretrained(vae, dtype=self.dtype, use_safetensors=True)
        if has_older_names(file.shapes):
            parts["text_encoder"] = text_encoder_of(file.path, file.configuration, self.dtype)
        return parts

    def _tokenizers(self, family: str) -> dict[str, object]:
        """CLIP's tokenizer, which no single file contains; both of Stable Diffusion XL's have the same words."""
        folder = result_of(self.sources.tokenizer_folder())
        tokenizers: dict[str, object] = {"tokenizer": CLIPTokenizer.from_pretrained(folder)}
        if family != "sd1":  # Laion's text encoders were trained on texts that end in zeros, not in end marks
            name = "tokenizer_2" if family == "sdxl" else "tokenizer"
            tokenizers[name] = CLIPTokenizer.from_pretrained(folder, pad_token="!")  # noqa: S106, a token
        return tokenizers

    def unet(self, source: str, revision: str | None) -> UNet2DConditionModel:
        """A UNet that lies alone in a folder, or in the "unet" folder of a whole model."""
        path = self.sources.folder(source, revision)
        path = path if (path / "config.json").is_file() else path / "unet"
        with errors_in_one_sentence(source):
            return UNet2DConditionModel.from_pretrained(path, **self._as_it_lies(path))

    def controlnet(self, source: str, revision: str | None) -> ControlNetModel:
        """A ControlNet in its folder, or in one file; a folder of that name may hold the file's configuration."""
        path = self.sources.folder(source, revision)
        with errors_in_one_sentence(source):
            if path.is_file():
                with controlnet_configuration(path) as config, plainly_read(path):
                    controlnet = ControlNetModel.from_single_file(
                        str(path), config=str(config), dtype=self.dtype, local_files_only=True
                    )
            else:
                controlnet = ControlNetModel.from_pretrained(path, **self._as_it_lies(path))
        self.prepare(controlnet)
        return controlnet

    def _as_it_lies(self, part: Path) -> dict[str, Any]:
        """What diffusers must be told to read a folder: the type of numbers, which files, and of which precision."""
        return {"dtype": self.dtype, "use_safetensors": safetensors_alone(part), "variant": variant_of(part)}

    def safety_checker(self) -> SafetyChecker:
        """Stable Diffusion's safety checker, whose pictures are prepared as CLIP's are."""
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
        from transformers import CLIPImageProcessor

        path = result_of(self.sources.safety_folder())
        with errors_in_one_sentence(SAFETY_CHECKER):
            network = StableDiffusionSafetyChecker.from_pretrained(path, use_safetensors=True, dtype=self.dtype)
            has_own = (path / "preprocessor_config.json").is_file()
            processor = CLIPImageProcessor.from_pretrained(path) if has_own else CLIPImageProcessor()
        return SafetyChecker(network.eval(), processor)

    def tiny_autoencoder(self, family: str) -> AutoencoderTiny | None:
        """What decodes previews, if it is whole and on this machine: it is never downloaded for that."""
        path = self.sources.hub.local_folder(PREVIEW_DECODERS[family]) if family in PREVIEW_DECODERS else None
        if path is None:
            return None
        with suppress(UserError), errors_in_one_sentence(PREVIEW_DECODERS[family]):
            check_whole(path)
            return AutoencoderTiny.from_pretrained(path, dtype=self.dtype, use_safetensors=True)
        return None

    def detector(self, checkpoint: DetectorCheckpoint) -> list[Network]:
        """The detector's networks, its own first."""
        import transformers  # here, because it takes seconds over them, and most runs need no detector

        if checkpoint.task == TOYLAND_DEPTH:
            return [Network(ToylandReader.from_pretrained(self.sources.folder(checkpoint.source)), ReaderProcessor())]
        single = {"depth": transformers.AutoModelForDepthEstimation, "features": transformers.AutoModel}
        if checkpoint.task in single or checkpoint.box_source is None:
            return [self._network(single[checkpoint.task], checkpoint.source, checkpoint.revision)]
        return [
            self._network(transformers.VitPoseForPoseEstimation, checkpoint.source, checkpoint.revision),
            self._network(transformers.RTDetrForObjectDetection, checkpoint.box_source, checkpoint.box_revision),
        ]

    def annotator(self, annotator: Annotator) -> OpenposeDetector | MidasDetector:
        """A detector of controlnet-aux."""
        # Imported here because this loads a dozen detectors that nobody asks for.
        from controlnet_aux import MidasDetector, OpenposeDetector

        path = self.sources.folder(annotator.source, pick=annotator.pick)
        if missing := [name for name in annotator.files if not (path / name).is_file()]:
            raise UserError(f"The folder {path.name!r} lacks {' and '.join(missing)}: download it again.")
        annotator_class = {"openpose": OpenposeDetector, "midas": MidasDetector}[annotator.name]
        with errors_in_one_sentence(annotator.source):
            # torch refuses to run code that a pickle may hold: plain tensors are all that it reads.
            return annotator_class.from_pretrained(str(path))

    def _network(self, model_class: type[Any], source: str, revision: str | None) -> Network:
        from transformers import AutoImageProcessor, AutoModel, AutoProcessor

        path = self.sources.folder(source, revision)
        with errors_in_one_sentence(source):  # CLIP's reads texts too
            processor = (AutoProcessor if model_class is AutoModel else AutoImageProcessor).from_pretrained(path)
            model = model_class.from_pretrained(path, use_safetensors=True, dtype=torch.float32)
        return Network(model.eval(), processor)


def _without_checker(pipeline_class: type[DiffusionPipeline]) -> dict[str, object]:
    """The safety checker is no part of sampling, and Stable Diffusion XL's pipeline has no place for it."""
    if pipeline_class is StableDiffusionXLPipeline:
        return {"add_watermarker": False}
    return {"safety_checker": None, "requires_safety_checker": False}

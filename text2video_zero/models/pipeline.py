"""Pipeline and Detector: what is loaded, ready to be used."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.attention import AttentionMixin

from text2video_zero.errors import UserError
from text2video_zero.models.additions.textual_inversion import Inversions
from text2video_zero.models.catalogue import name_of
from text2video_zero.models.weights import family_of_unet
from text2video_zero.requests.fields import Size

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from diffusers import ControlNetModel, StableDiffusionPipeline, StableDiffusionXLPipeline

    from text2video_zero.models.checkpoints import Checkpoint, DetectorCheckpoint
    from text2video_zero.models.vocabulary import Vocabulary
    from text2video_zero.sampling.preview import PreviewDecoder
    from text2video_zero.sampling.safety import SafetyChecker


@dataclass(frozen=True)
class Pipeline:
    """The components of a Stable Diffusion model with what the engine knows beside them.

    checkpoint: what was loaded.
    components: diffusers' own pipeline, used as the container of unet, vae, text encoder, tokenizer and
        scheduler; its `__call__` is never run.
    preview_decoder: shows latents while a clip is being made.
    vocabulary: the words that the model was trained on, None where nobody wrote them down.
    controlnet: what turns control maps into hints for the UNet, None for tasks without.
    device: where the networks work. Their weights may wait in the CPU's memory.
    safety_checker: looks at the finished frames, None where nobody asked for it or the model needs none.
    inversions: where prompts find the textual inversions that they name.
    weights: the beginning of the SHA-256 of the UNet's file, as `short_hash` tells it.
    """

    checkpoint: Checkpoint
    components: StableDiffusionPipeline | StableDiffusionXLPipeline
    preview_decoder: PreviewDecoder
    device: torch.device
    vocabulary: Vocabulary | None = None
    controlnet: ControlNetModel | None = None
    safety_checker: SafetyChecker | None = None
    inversions: Inversions = field(default_factory=Inversions)
    weights: str = ""

    @property
    def needed_controlnet(self) -> ControlNetModel:
        """The ControlNet; raises UserError where there is none."""
        if self.controlnet is None:
            raise UserError(f"The model {name_of(self.checkpoint)!r} comes without a ControlNet: choose another model.")
        return self.controlnet

    @property
    def networks(self) -> tuple[torch.nn.Module, ...]:
        """All networks, those that pipelines of one base have in common among them."""
        checker = self.safety_checker
        parts = (*self.components.components.values(), self.controlnet, checker and checker.network)
        return tuple(part for part in parts if isinstance(part, torch.nn.Module))

    @property
    def family(self) -> str:
        """By the UNet: "sd1", "sd2" or "sdxl". Toyland is built like Stable Diffusion 1.x."""
        return family_of_unet(self.components.unet.config)

    @property
    def native_size(self) -> Size:
        """The size that the model was trained at, in pixels."""
        side = self.components.unet.config["sample_size"]
        height, width = (side, side) if isinstance(side, int) else side
        return Size(width * self.latent_factor, height * self.latent_factor)

    @property
    def latent_factor(self) -> int:
        """Pixels per latent cell and side, 8 for Stable Diffusion."""
        return self.components.vae_scale_factor


@contextmanager
def no_patch_left_behind(networks: Iterable[torch.nn.Module]) -> Generator[None]:
    """On leaving, each attention layer of the networks must have the processor that it had; RuntimeError if not."""
    patchable = [network for network in networks if isinstance(network, AttentionMixin)]
    processors = [dict(network.attn_processors) for network in patchable]
    yield
    left_behind = sum(
        found is not before[name]
        for network, before in zip(patchable, processors, strict=True)
        for name, found in network.attn_processors.items()
    )
    if left_behind:
        raise RuntimeError(f"a run left {left_behind} patched attention layers behind")


@dataclass(frozen=True)
class Network:
    """A network, on its device and in evaluation mode, with what prepares pictures for it.

    model: one of transformers, or Toyland's reader.
    processor: its image processor; each class has methods of its own for what the network says.
    """

    model: Any
    processor: Any


@dataclass(frozen=True)
class Detector:
    """What sees poses or depth in pictures.

    checkpoint: what was loaded.  device: where its networks are; float32 whatever the device.
    network: the depth or pose network itself.
    box_finder: for poses, the network that finds the people first; None for depth.
    """

    checkpoint: DetectorCheckpoint
    device: torch.device
    network: Network
    box_finder: Network | None = None

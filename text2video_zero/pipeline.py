"""Pipeline: what is loaded, ready to be sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from text2video_zero.requests.fields import Size

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from text2video_zero.checkpoints import Checkpoint
    from text2video_zero.preview import LatentRGB
    from text2video_zero.vocabulary import Vocabulary


@dataclass(frozen=True)
class Pipeline:
    """The components of a Stable Diffusion model with what the engine knows beside them.

    checkpoint: what was loaded.
    components: diffusers' own pipeline, used as the container of unet, vae, text encoder, tokenizer and
        scheduler; its `__call__` is never run.
    latent_rgb: linear map from latents to colours, for previews.
    vocabulary: the words that the model was trained on, None where nobody wrote them down.
    """

    checkpoint: Checkpoint
    components: StableDiffusionPipeline
    latent_rgb: LatentRGB
    vocabulary: Vocabulary | None = None

    @property
    def native_size(self) -> Size:
        """The size that the model was trained at, in pixels."""
        side = self.components.unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return Size(width * self.latent_factor, height * self.latent_factor)

    @property
    def latent_factor(self) -> int:
        """Pixels per latent cell and side, 8 for Stable Diffusion."""
        return self.components.vae_scale_factor

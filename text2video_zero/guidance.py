"""Noise prediction: the one function, (latents, t) -> noise, at which sampler and model meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

# latents (frames, c, h, w) float32 and a timestep -> predicted noise of the same shape, float32
NoisePredictor = Callable[[torch.Tensor, float], torch.Tensor]


@dataclass(frozen=True)
class TextGuidance:
    """Classifier-free guidance: ε = ε(∅) + s·(ε(text) - ε(∅)).

    embeddings: (branches, tokens, channels); two branches, negative prompt first, or the prompt alone.
    """

    unet: UNet2DConditionModel
    embeddings: torch.Tensor
    scale: float

    def __call__(self, latents: torch.Tensor, timestep: float) -> torch.Tensor:
        branches, frames = len(self.embeddings), len(latents)
        noise = self.unet(
            latents.to(self.unet.dtype).repeat(branches, 1, 1, 1),
            timestep,
            encoder_hidden_states=self.embeddings.repeat_interleave(frames, dim=0),
        ).sample.float()
        if branches == 1:
            return noise
        unconditional, conditional = noise.chunk(2)
        return unconditional + self.scale * (conditional - unconditional)


def text_guidance(
    components: StableDiffusionPipeline, prompt: str, negative_prompt: str, scale: float
) -> TextGuidance:
    """Encode the prompts once for the whole clip; a scale of 1 needs no negative branch."""
    guided = scale > 1
    positive, negative = components.encode_prompt(
        prompt=prompt,
        negative_prompt=negative_prompt if guided else None,
        device=components.unet.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=guided,
    )
    embeddings = torch.cat([negative, positive]) if guided else positive
    return TextGuidance(components.unet, embeddings.to(components.unet.dtype), scale)

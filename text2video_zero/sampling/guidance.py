"""Noise prediction: the one function, (latents, t) -> noise, at which sampler and model meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from text2video_zero.attention.branches import Branches
from text2video_zero.requests.key_frames import Between

if TYPE_CHECKING:
    from diffusers import ControlNetModel, UNet2DConditionModel

    from text2video_zero.media.frames import Frames
    from text2video_zero.requests import VideoRequest
    from text2video_zero.sampling.schedule import Schedule

# Latents (f, c, h, w) float32 of some frames, a timestep, and which frames of the clip they are
# -> predicted noise of the same shape, float32.
NoisePredictor = Callable[[torch.Tensor, float, slice], torch.Tensor]


INSTRUCT_BRANCHES = 3  # neither picture nor words, the picture alone, both


def negative_branch(negative_prompt: str, scale: float) -> str | None:
    """The negative prompt where guidance of this scale looks at it: at a scale of 1 it cancels out."""
    return negative_prompt if scale > 1 else None


def branches_of(request: VideoRequest, count: int, *schedules: Schedule, begin: int = 0) -> Branches:
    """The guidance branches of a run, so many of them for the share of each schedule's steps that is asked for.

    begin: number of the step that a run begins with which leaves out those before it.
    """
    guided = (schedule.timesteps_within(0, request.guidance_end, begin) for schedule in schedules)
    return Branches(count, frozenset[float]().union(*guided))


def _dtype(unet: UNet2DConditionModel) -> torch.dtype:
    """The type that a UNet takes latents in; its own property would look at all weights, each time."""
    return unet.conv_in.weight.dtype


def guided(noise: torch.Tensor, branches: int, scale: float) -> torch.Tensor:
    """Classifier-free guidance ε = ε(∅) + s·(ε(text) - ε(∅)) of noise (branches·f, c, h, w)."""
    if branches == 1:
        return noise
    unconditional, conditional = noise.chunk(2)
    return unconditional + scale * (conditional - unconditional)


@dataclass(frozen=True)
class Control:
    """What a ControlNet adds to a UNet.

    maps: (f, height, width, 3) uint8 for all frames of the clip; those of a chunk are read at a time.
    strength: factor on what is added.  active: timesteps at which the ControlNet has a say.
    """

    controlnet: ControlNetModel
    maps: Frames
    strength: float
    active: frozenset[float]

    def hints(
        self, shown: torch.Tensor, timestep: float, texts: torch.Tensor, frames: Sequence[int]
    ) -> dict[str, torch.Tensor]:
        """What the UNet is to be called with for some frames (branches·m, c, h, w), branch-major.

        Nothing where the ControlNet has no say, which is the same as adding nothing, and saves its time.
        """
        if timestep not in self.active:
            return {}
        maps = np.stack([self.maps[frame] for frame in frames])
        maps = torch.from_numpy(maps).permute(0, 3, 1, 2).float() / 255
        down, middle = self.controlnet(
            shown,
            timestep,
            encoder_hidden_states=texts,
            controlnet_cond=maps.to(shown).repeat(len(shown) // len(maps), 1, 1, 1),
            conditioning_scale=self.strength,
            return_dict=False,
        )
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


@dataclass(frozen=True)
class TextGuidance:
    """A UNet with text, and shaped by a ControlNet where there is one.

    embeddings: as `encoded_prompts` of prompts/encoding.py returns them, for all branches.
    """

    unet: UNet2DConditionModel
    embeddings: torch.Tensor
    scale: float
    branches: Branches
    control: Control | None = None

    def __call__(self, latents: torch.Tensor, timestep: float, frames: slice) -> torch.Tensor:
        """Predict the noise of the given frames of the clip."""
        return self._predicted(latents, timestep, range(frames.start, frames.start + len(latents)))

    def of(self, frames: Sequence[int]) -> NoisePredictor:
        """What predicts the noise of a clip that has these frames of this one side by side."""
        return lambda latents, timestep, rows: self._predicted(latents, timestep, frames[rows])

    def _predicted(self, latents: torch.Tensor, timestep: float, frames: Sequence[int]) -> torch.Tensor:
        branches = self.branches.at(timestep)
        shown = latents.to(_dtype(self.unet)).repeat(branches, 1, 1, 1)
        texts = self.texts(frames).to(shown)
        hints = self.control.hints(shown, timestep, texts, frames) if self.control else {}
        noise = self.unet(shown, timestep, encoder_hidden_states=texts, **hints).sample.float()
        return guided(noise, branches, self.scale)

    def texts(self, frames: Sequence[int]) -> torch.Tensor:
        """What each of m frames is to show, (branches·m, tokens, channels), branch-major: the same."""
        return self.branches.in_batch(self.embeddings).repeat_interleave(len(frames), dim=0)


@dataclass(frozen=True)
class StoryboardGuidance(TextGuidance):
    """A UNet with texts that turn into one another from key frame to key frame, or each of which holds until the next.

    embeddings: those of key frame 0, the prompt.
    later: frames in rising order, from 1 on, with the embeddings of each.
    cut: whether they hold.
    """

    later: Sequence[tuple[int, torch.Tensor]] = ()
    cut: bool = False

    def texts(self, frames: Sequence[int]) -> torch.Tensor:
        """What each of m frames is to show, (branches·m, tokens, channels), branch-major."""
        keys = (0, *(frame for frame, _ in self.later))
        embeddings = torch.stack([self.embeddings, *(embeddings for _, embeddings in self.later)])
        places = [Between.of(frame, keys) for frame in frames]
        shown = [torch.lerp(embeddings[p.before], embeddings[p.after], 0 if self.cut else p.share) for p in places]
        return self.branches.in_batch(torch.stack(shown, dim=1)).flatten(0, 1)  # (b, m, t, c)


@dataclass(frozen=True)
class InstructGuidance:
    """The UNet of InstructPix2Pix with its three-way guidance (Brooks et al. 2022, equation 3).

    ε = ε(∅,∅) + s_I·(ε(I,∅) - ε(∅,∅)) + s_T·(ε(I,T) - ε(I,∅)).
    embeddings: (2, tokens, channels), negative prompt first.
    image_latents: (f, c, h, w) of the clip's frames, unscaled, as the model was trained.
    """

    unet: UNet2DConditionModel
    embeddings: torch.Tensor
    text_scale: float
    image_scale: float
    branches: Branches
    image_latents: torch.Tensor

    def __call__(self, latents: torch.Tensor, timestep: float, frames: slice) -> torch.Tensor:
        """Predict the noise of the given frames of the clip."""
        branches = self.branches.at(timestep)
        image = self.image_latents[frames].to(latents)
        images = self.branches.in_batch(torch.stack([torch.zeros_like(image), image, image])).flatten(0, 1)
        shown = torch.cat([latents.repeat(branches, 1, 1, 1), images], dim=1)
        negative, positive = self.embeddings
        embeddings = self.branches.in_batch(torch.stack([negative, negative, positive]))
        embeddings = embeddings.repeat_interleave(len(latents), dim=0)
        shown, embeddings = shown.to(_dtype(self.unet)), embeddings.to(_dtype(self.unet))
        noise = self.unet(shown, timestep, encoder_hidden_states=embeddings).sample.float()
        if branches == 1:
            return noise
        neither, image_alone, both = noise.chunk(3)
        return neither + self.image_scale * (image_alone - neither) + self.text_scale * (both - image_alone)

"""Text to video: motion dynamics in the latents, cross-frame attention, background smoothing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from text2video_zero.foreground import CrossAttentionDetector, SalientObjectDetector
from text2video_zero.guidance import TextGuidance, encoded_prompts, negative_branch
from text2video_zero.motion import CameraPath, CameraPose, forward_noise, warp
from text2video_zero.narration import Narrator
from text2video_zero.patches import attention_of
from text2video_zero.sampling import Sampled, denoise, frame_noise, latent_shape
from text2video_zero.schedule import Schedule
from text2video_zero.smoothing import smoothed_latents

if TYPE_CHECKING:
    from collections.abc import Generator

    from text2video_zero.attention import FrameMemory
    from text2video_zero.events import Event
    from text2video_zero.foreground import ForegroundDetector
    from text2video_zero.pipeline import Pipeline
    from text2video_zero.requests import TextToVideoRequest


def sample_text_to_video(request: TextToVideoRequest, pipeline: Pipeline) -> Generator[Event, None, Sampled]:
    """Latents of a text-to-video request, with its seed and size made concrete."""
    request = dataclasses.replace(request.with_concrete_seed(), size=request.size or pipeline.native_size)
    components = pipeline.components
    negative_prompt = negative_branch(request.negative_prompt, request.guidance_scale)
    embeddings = encoded_prompts(components, request.prompt, negative_prompt)
    guidance = TextGuidance(components.unet, embeddings, request.guidance_scale)
    schedule = Schedule.of(request.sampler, request.steps, components.scheduler)
    with attention_of(request, components.unet) as memory:
        run = ClipRun(request, pipeline, schedule, guidance, memory)
        if not request.smooth_background:
            return Sampled((yield from run.denoised(*(yield from run.start()))), request)
        # Before the first step, so that a word or a library that is missing is told at once.
        detector = _foreground_detector(request, pipeline, branches=len(embeddings))
        start, index = yield from run.start()
        with detector.observing():
            first_pass = yield from run.denoised(start, index)
        masks = detector.masks(first_pass)
        start = smoothed_latents(start, masks, run.poses(), request.smoothing_strength, request.resampling)
        return Sampled((yield from run.denoised(start, index, stage="Smoothing the background")), request)


def _foreground_detector(request: TextToVideoRequest, pipeline: Pipeline, branches: int) -> ForegroundDetector:
    if request.foreground_detector == "salient object":
        return SalientObjectDetector(pipeline.components.vae)
    return CrossAttentionDetector(pipeline, request.prompt, request.foreground_words, request.frames, branches)


@dataclass
class ClipRun:
    """The denoising runs that make one text-to-video clip."""

    request: TextToVideoRequest
    pipeline: Pipeline
    schedule: Schedule
    guidance: TextGuidance
    memory: FrameMemory | None

    def __post_init__(self) -> None:
        request = self.request
        self.index_from = self.index_to = 0
        if request.motion:
            self.index_from, self.index_to = self.schedule.motion_steps(request.motion_from, request.motion_to)
        passes = 2 if request.smooth_background else 1
        evaluations = self.index_from + passes * request.frames * (request.steps - self.index_to)
        self.narrator = Narrator(self.pipeline.latent_rgb, evaluations, request.frames, request.steps)

    def poses(self) -> list[CameraPose]:
        """The camera's pose at each frame; without motion it stands still."""
        request = self.request
        speeds = (request.pan_x, request.pan_y, request.zoom, request.rotation) if request.motion else (0, 0, 0, 0)
        path = CameraPath(*speeds, request.reach)
        return [path.pose(frame) for frame in range(request.frames)]

    def start(self) -> Generator[Event, None, tuple[torch.Tensor, int]]:
        """Latents (f, c, h, w) from which all frames are denoised together, and the number of their step.

        With motion (paper, algorithm 1): frame 1 goes alone to T and on to T', is copied and moved there, and
        the copies go forward to T with fresh noise each. Without, each frame starts from its own noise.
        """
        request, alphas = self.request, self.schedule.alphas
        shape = latent_shape(request.size, self.pipeline)
        device = self.pipeline.components.unet.device
        noises = [frame_noise(request.seed, frame, shape, device) for frame in range(request.frames)]
        if not request.motion:
            return torch.stack(noises), 0
        at_to = yield from self._denoised(noises[0][None], range(self.index_to), "First frame")
        at_from = yield from self._denoised(at_to, range(self.index_to, self.index_from), "First frame")
        moved = [
            forward_noise(
                warp(at_from[0], pose, request.resampling), noise, alphas[self.index_from], alphas[self.index_to]
            )
            for pose, noise in zip(self.poses()[1:], noises[1:], strict=True)
        ]
        return torch.stack([at_to[0], *moved]), self.index_to

    def denoised(
        self, latents: torch.Tensor, index: int, stage: str = "Denoising"
    ) -> Generator[Event, None, torch.Tensor]:
        """All frames together, from step number `index` to the end."""
        return (yield from self._denoised(latents, range(index, self.request.steps), stage))

    def _denoised(self, latents: torch.Tensor, steps: range, stage: str) -> Generator[Event, None, torch.Tensor]:
        loop = denoise(latents, self.schedule, steps, self.guidance, self.memory, self.request.chunk_size)
        return (yield from self.narrator.told(loop, stage))

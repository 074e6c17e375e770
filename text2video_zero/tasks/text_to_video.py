"""Text to video: motion dynamics in the latents, cross-frame attention, background smoothing."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from text2video_zero.attention.patches import attention_of
from text2video_zero.device.memory_plan import placement_for
from text2video_zero.foreground.attention_maps import CrossAttentionDetector
from text2video_zero.foreground.salient_object import SalientObjectDetector
from text2video_zero.prompts.encoding import encoded_prompts
from text2video_zero.sampling.denoising import Sampled, denoise
from text2video_zero.sampling.guidance import TextGuidance, negative_branch
from text2video_zero.sampling.motion import Anchor, CameraPath
from text2video_zero.sampling.motion_plan import MotionPlan
from text2video_zero.sampling.noise import NoisePath, NoiseScene, frame_noise, latent_shape, shared_step_noise
from text2video_zero.sampling.smoothing import smoothed_latents
from text2video_zero.sampling.solvers import schedule_of, scheduler_told
from text2video_zero.tasks.progress import ProgressReporter

if TYPE_CHECKING:
    from collections.abc import Generator

    from text2video_zero.attention.cross_frame import FrameMemory
    from text2video_zero.device.offload import Placement
    from text2video_zero.events import Event
    from text2video_zero.models.pipeline import Pipeline
    from text2video_zero.requests import TextToVideoRequest
    from text2video_zero.requests.camera import CameraPose
    from text2video_zero.sampling.denoising import ChunkContext, ChunkDone
    from text2video_zero.sampling.schedule import Schedule


def sample_text_to_video(request: TextToVideoRequest, pipeline: Pipeline) -> Generator[Event, None, Sampled]:
    """Latents of a text-to-video request, with its seed and size made concrete."""
    request = dataclasses.replace(request.with_concrete_seed(), size=request.size or pipeline.native_size)
    components = pipeline.components
    negative_prompt = negative_branch(request.negative_prompt, request.guidance_scale)
    embeddings = encoded_prompts(components, request.prompt, negative_prompt, pipeline.inversions)
    guidance = TextGuidance(components.unet, embeddings, request.guidance_scale)
    plan = motion_plan(request, pipeline)
    placement = yield from placement_for(request, request.concrete_size, pipeline)
    with placement, attention_of(request, components.unet) as memory:
        run = ClipRun(request, pipeline, plan, guidance, memory, placement)
        joint = plan.joint, range(plan.begin, len(plan.joint.timesteps))
        if not request.smooth_background:
            return Sampled((yield from run.denoised((yield from run.start()), *joint)), request)
        # Before the first step, so that a word or a network that is missing is told at once.
        detector = _foreground_detector(request, pipeline, branches=len(embeddings))
        start = yield from run.start()
        with detector.observing() as around_chunk:
            first_pass = yield from run.denoised(start, *joint, around_chunk=around_chunk)
        masks = detector.masks(first_pass)
        start = smoothed_latents(start, masks, run.poses(), request.smoothing_strength, request.resampling)
        return Sampled((yield from run.denoised(start, *joint, stage="Smoothing the background")), request)


def motion_plan(request: TextToVideoRequest, pipeline: Pipeline) -> MotionPlan:
    """The steps of a request: those of the first frame alone, if there is motion, and those of all frames."""
    scheduler = scheduler_told(pipeline.components.scheduler, request.prediction)
    if not request.motion:
        return MotionPlan.without_motion(schedule_of(request.sampler, request.steps, scheduler))
    return MotionPlan.of(request.sampler, request.steps, scheduler, request.motion_from, request.motion_to)


def _foreground_detector(
    request: TextToVideoRequest, pipeline: Pipeline, branches: int
) -> CrossAttentionDetector | SalientObjectDetector:
    if request.foreground_detector == "salient object":
        return SalientObjectDetector(pipeline.components.vae)
    return CrossAttentionDetector(pipeline, request.prompt, request.foreground_words, request.frames, branches)


@dataclass
class ClipRun:
    """The denoising runs that make one text-to-video clip."""

    request: TextToVideoRequest
    pipeline: Pipeline
    plan: MotionPlan
    guidance: TextGuidance
    memory: FrameMemory | None
    placement: Placement
    clean: torch.Tensor = field(init=False)  # the latest estimate of x_0, (f, c, h, w)

    def __post_init__(self) -> None:
        request, plan = self.request, self.plan
        passes = 2 if request.smooth_background else 1
        evaluations = plan.at_from + passes * request.frames * (len(plan.joint.timesteps) - plan.begin)
        self.progress = ProgressReporter(self.pipeline.preview_decoder, evaluations, request.frames, request.steps)

    def poses(self) -> list[CameraPose]:
        """The camera's pose at each frame; without motion it stands still."""
        request = self.request
        speeds = (request.pan_x, request.pan_y, request.zoom, request.rotation) if request.motion else (0, 0, 0, 0)
        path = CameraPath(*speeds, request.reach, self._period)
        return [path.pose(frame) for frame in range(request.frames)]

    @property
    def _period(self) -> int | None:
        return self.request.frames if self.request.loop else None

    def start(self) -> Generator[Event, None, torch.Tensor]:
        """Latents (f, c, h, w) from which all frames are denoised together.

        With motion (paper, algorithm 1): frame 1 goes alone to T and on to T', is copied and moved there, and
        the copies go forward to T with noise of their own. Without, each frame starts from its own noise.
        """
        request, plan = self.request, self.plan
        opening = plan.opening
        shape = latent_shape(request.concrete_size, self.pipeline)
        path = NoisePath(request.seed, shape, request.motion_smoothness, self._period)
        first = frame_noise(request.seed, 0, shape, self.pipeline.device)
        if not request.motion:
            return torch.stack([path.leaving(first, frame) for frame in range(request.frames)])
        at_to = yield from self.denoised(first[None], opening, range(plan.at_to), "First frame")
        at_from = yield from self.denoised(at_to, opening, range(plan.at_to, plan.at_from), "First frame")
        anchor = Anchor(
            at_to=at_to[0],
            at_from=at_from[0],
            clean=self.clean[0],
            alpha_to=opening.alphas[plan.at_to],
            alpha_from=opening.alphas[plan.at_from],
        )
        scene = NoiseScene(request.seed, shape)
        moved = [
            anchor.moved(frame, pose, path, scene, request.resampling)
            for frame, pose in enumerate(self.poses()[1:], start=1)
        ]
        return torch.stack([at_to[0], *moved])

    def denoised(
        self,
        latents: torch.Tensor,
        schedule: Schedule,
        steps: range,
        stage: str = "Denoising",
        around_chunk: ChunkContext = nullcontext,
    ) -> Generator[Event, None, torch.Tensor]:
        """Latents (f, c, h, w) some steps of a schedule further on."""
        step_noise = shared_step_noise(self.request, self.pipeline, schedule)
        loop = denoise(latents, schedule, steps, self.guidance, self.memory, self.placement, step_noise, around_chunk)
        return (yield from self.progress.reported(self._remembering_clean(loop), stage))

    def _remembering_clean(
        self, loop: Generator[ChunkDone, None, torch.Tensor]
    ) -> Generator[ChunkDone, None, torch.Tensor]:
        """A loop as it is; its latest estimate of x_0 stays."""
        while True:
            try:
                chunk = next(loop)
            except StopIteration as finished:
                return finished.value
            if chunk.clean is not None:
                self.clean = chunk.clean
            yield chunk

"""Text to video: motion dynamics in the latents, cross-frame attention, background smoothing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from text2video_zero.attention.deep_cache import deep_cache
from text2video_zero.attention.patches import attention_of
from text2video_zero.device.memory_plan import placement_for
from text2video_zero.events import Notice
from text2video_zero.foreground.attention_maps import CrossAttentionDetector
from text2video_zero.foreground.salient_object import SalientObjectDetector
from text2video_zero.generators import mapped
from text2video_zero.prompts.encoding import encoded_alike
from text2video_zero.requests.camera import BEGINNING, read_camera_keys
from text2video_zero.requests.text_to_video import STEADY, read_storyboard
from text2video_zero.sampling.denoising import Sampled, denoise, nothing_around
from text2video_zero.sampling.guidance import StoryboardGuidance, TextGuidance, branches_of, negative_branch
from text2video_zero.sampling.motion.anchor import Anchor
from text2video_zero.sampling.motion.camera import CameraPath, KeyedPath, ShakenPath
from text2video_zero.sampling.motion.noise import NoisePath, NoiseScene
from text2video_zero.sampling.motion.plan import MotionPlan
from text2video_zero.sampling.motion.split import SplitPose
from text2video_zero.sampling.noise import RESTART, frame_noise, latent_shape, shared_step_noise
from text2video_zero.sampling.sdxl import added_conditions
from text2video_zero.sampling.share import WHOLE
from text2video_zero.sampling.smoothing import around_foreground, smoothed_latents
from text2video_zero.sampling.solvers import schedule_of, scheduler_told
from text2video_zero.tasks.moving_subject import kept_in_view, moving_control, own_cells
from text2video_zero.tasks.progress import ProgressReporter
from text2video_zero.tasks.start_picture import noised, start_latents

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from text2video_zero.attention.branches import Branches
    from text2video_zero.attention.cross_frame import FrameMemory
    from text2video_zero.attention.deep_cache import DeepCache
    from text2video_zero.device.offload import Placement
    from text2video_zero.events import Event
    from text2video_zero.models.pipeline import Pipeline
    from text2video_zero.requests import TextToVideoRequest
    from text2video_zero.requests.camera import CameraPose
    from text2video_zero.sampling.denoising import ChunkContext, ChunkDone
    from text2video_zero.sampling.kept_steps import KeptSteps
    from text2video_zero.sampling.schedule import Schedule
    from text2video_zero.sampling.share import Share
    from text2video_zero.sampling.solvers import StepNoise


def sample_text_to_video(
    request: TextToVideoRequest, pipeline: Pipeline, kept: KeptSteps, share: Share = WHOLE
) -> Generator[Event, None, Sampled]:
    """Latents of a text-to-video request, with its seed and size made concrete.

    kept: where the steps are kept, and from where the run goes on if some were. share: the frames that are wanted.
    """
    request, picture = yield from start_latents(request.with_concrete_seed(), pipeline)
    request = dataclasses.replace(request, size=request.size or pipeline.native_size)
    plan = motion_plan(request, pipeline)
    guidance = text_guidance(request, pipeline, plan)
    networks = (guidance.unet, *([guidance.control.controlnet] if guidance.control else ()))
    branches, negative_prompt = guidance.branches, negative_branch(request.negative_prompt, request.guidance_scale)
    if request.movements:
        yield Notice(f"Movement: the subject is made to {', then to '.join(m.does for m in request.movements)}.")
    placement = yield from placement_for(request, request.concrete_size, pipeline)
    with (
        added_conditions(pipeline, request.prompt, negative_prompt, branches),
        placement,
        attention_of(request, branches, *networks) as memory,
        deep_cache(request.cache_interval, branches, *networks) as deep,
    ):
        run = ClipRun(request, pipeline, plan, guidance, memory, placement, kept, picture, share, deep)
        joint = plan.joint, range(plan.begin, len(plan.joint.timesteps))
        if not request.smooth_background:
            latents = yield from run.denoised((yield from run.start()), *joint, share=share)
            return run.finished(latents, share)
        # Before the first step, so that a word or a network that is missing is told at once.
        detector = _foreground_detector(request, pipeline, branches)
        start = yield from run.start()
        with detector.observing() as around_chunk, kept.with_memory_of(detector):
            first_pass = yield from run.denoised(start, *joint, around_chunk=around_chunk)
        masks = detector.masks(first_pass)
        latents = yield from run.denoised(run.smoothed(start, masks), *joint, stage="Smoothing the background")
        return run.finished(latents)


def text_guidance(request: TextToVideoRequest, pipeline: Pipeline, plan: MotionPlan) -> TextGuidance:
    """What the prompt, or a storyboard, makes of the UNet, and a movement. XL's summary of the text stays the prompt's.

    Raises UserError where the subject is to move and the pipeline has no ControlNet.
    """
    components, scale = pipeline.components, request.guidance_scale
    negative_prompt = negative_branch(request.negative_prompt, scale)
    story = read_storyboard(request.storyboard)
    prompts = [request.prompt, *(prompt for _, prompt in story)]
    first, *others = encoded_alike(components, prompts, negative_prompt, pipeline.inversions)
    begin = plan.begin if request.start_picture else 0  # without one, the first frame has gone all steps before T
    branches = branches_of(request, len(first), plan.opening, plan.joint, begin=begin)
    control = moving_control(request, pipeline, camera_views(request, pipeline), plan) if request.movements else None
    if not story:
        return TextGuidance(components.unet, first, scale, branches, control)
    later = [(frame, embeddings) for (frame, _), embeddings in zip(story, others, strict=True)]
    return StoryboardGuidance(components.unet, first, scale, branches, control, later, cut=request.shot_anchors)


def motion_plan(request: TextToVideoRequest, pipeline: Pipeline) -> MotionPlan:
    """The steps of a request: those of the first frame alone, if there is motion, and those of all frames.

    With a start picture T is the share of the timesteps that it is drawn anew from, and T' as far below as it was.
    Where the subject moves, T' is T: what its poses differ in is no noise, and the background keeps still.
    """
    scheduler = scheduler_told(pipeline.components.scheduler, request.prediction)
    if request.start_picture:
        motion_to = request.start_strength * scheduler.config.num_train_timesteps
        motion_from = motion_to - (request.motion_to - request.motion_from)
        return MotionPlan.of(request.sampler, request.steps, scheduler, motion_from, motion_to)
    if not request.motion:
        return MotionPlan.without_motion(schedule_of(request.sampler, request.steps, scheduler))
    plan = MotionPlan.of(request.sampler, request.steps, scheduler, request.motion_from, request.together_from)
    return plan.copying if request.movements else plan


def camera_poses(request: TextToVideoRequest) -> list[CameraPose]:
    """The camera's pose at each frame, against the first one of its shot; without motion it stands still.

    What the camera does hangs on the seed only where it shakes; the request's must be concrete then.
    """
    if not request.motion:
        return [BEGINNING] * request.frames
    period = _period(request)
    if keys := read_camera_keys(request.camera_keys):
        path = KeyedPath(keys, request.camera_eased, period)
    else:
        path = CameraPath(request.pan_x, request.pan_y, request.zoom, request.rotation, request.reach, period)
    shaken = ShakenPath(path, request.shake, request.seed, period)
    return [shaken.pose(frame) for shot in request.shots for frame in range(len(shot))]


def camera_views(request: TextToVideoRequest, pipeline: Pipeline) -> list[SplitPose]:
    """Where the camera is at each frame: what of it the latents are moved by, and what is left for the picture."""
    poses = camera_poses(request)
    if request.resampling != STEADY:
        return [SplitPose(pose) for pose in poses]
    _, height, width = latent_shape(request.concrete_size, pipeline)
    return [SplitPose.of(pose, height, width, request.cell_step) for pose in poses]


def _period(request: TextToVideoRequest) -> int | None:
    """Of a loop, in frames; where there are cuts no frame leads into the first."""
    return request.frames if request.loops else None


def _foreground_detector(
    request: TextToVideoRequest, pipeline: Pipeline, branches: Branches
) -> CrossAttentionDetector | SalientObjectDetector:
    if request.foreground_detector == "salient object":
        return SalientObjectDetector(pipeline.components.vae)
    return CrossAttentionDetector(pipeline, request.prompt, request.foreground_words, request.frames, branches)


@dataclass
class ClipRun:
    """The denoising runs that make one text-to-video clip.

    picture: x_0 (c, h, w) of a start picture, None without one. share: the frames that are wanted.
    """

    request: TextToVideoRequest
    pipeline: Pipeline
    plan: MotionPlan
    guidance: TextGuidance
    memory: FrameMemory | None
    placement: Placement
    kept: KeptSteps
    picture: torch.Tensor | None = None
    share: Share = WHOLE
    deep: DeepCache | None = None
    clean: torch.Tensor = field(init=False)  # the latest estimate of x_0, (f, c, h, w)

    def __post_init__(self) -> None:
        request, plan = self.request, self.plan
        passes = 2 if request.smooth_background else 1
        alone = 0 if self.picture is not None else plan.at_from * len(request.shots)
        evaluations = alone + passes * request.frames * (len(plan.joint.timesteps) - plan.begin)
        preview = self.pipeline.preview_decoder
        self.progress = ProgressReporter(preview, evaluations, request.frames, request.steps, self.share)

    def start(self) -> Generator[Event, None, torch.Tensor]:
        """Latents (f, c, h, w) from which all frames are denoised together.

        With motion (paper, algorithm 1): frame 1 goes alone to T and on to T', is copied and moved there, and
        the copies go forward to T with noise of their own; with a restart frame 1 does so, too, whose errors the
        second way contracts (Xu et al. 2023, "Restart Sampling"). Without motion, each frame starts from its own noise.
        Each shot is what it would be as a clip by itself. Subjects that go along with the camera are not moved.
        """
        request, plan = self.request, self.plan
        shape = latent_shape(request.concrete_size, self.pipeline)
        path = NoisePath(request.seed, shape, request.motion_smoothness, _period(request))
        first = frame_noise(request.seed, 0, shape, self.pipeline.device)
        if not request.motion:
            noise = torch.stack([path.leaving(first, frame) for shot in request.shots for frame in range(len(shot))])
            return noise if self.picture is None else noised(self.picture, noise, plan.opening.alphas[plan.at_to])
        anchors = yield from self._anchors(first)
        scene, start = NoiseScene(request.seed, shape), list[torch.Tensor]()
        for anchor, shot in zip(anchors, request.shots, strict=True):
            views = enumerate(self.views[shot.start + 1 : shot.stop], start=1)
            moved = [anchor.moved(frame, view.cells, path, scene, self.resampling) for frame, view in views]
            start += [anchor.at_to, *moved]
        latents = torch.stack(start)
        return kept_in_view(latents, request, self.pipeline, self.views) if request.movements else latents

    def _anchors(self, first: torch.Tensor) -> Generator[Event, None, list[Anchor]]:
        """The anchor of each shot, from the first frame's noise (c, h, w).

        A picture has no way to go: where the first frame would have come to, the picture is, with that noise.
        """
        request, plan = self.request, self.plan
        alpha_to, alpha_from = (plan.opening.alphas[step] for step in (plan.at_to, plan.at_from))
        shots = len(request.shots)
        if self.picture is None:
            at_to = yield from self._denoised_alone(first.expand(shots, *first.shape), range(plan.at_to))
            at_from = yield from self._denoised_alone(at_to, range(plan.at_to, plan.at_from))
            clean = self.clean if plan.at_from else torch.zeros_like(at_to)
        else:
            at_to, at_from = (
                noised(self.picture, first, alpha).expand(shots, *first.shape) for alpha in (alpha_to, alpha_from)
            )
            clean = self.picture.expand(shots, *first.shape)
        anchors = [Anchor(*of_shot, alpha_to, alpha_from) for of_shot in zip(at_to, at_from, clean, strict=True)]
        if request.restart:
            noise = frame_noise(request.seed, RESTART, first.shape, self.pipeline.device)
            anchors = [anchor.restarted(noise) for anchor in anchors]
        return anchors

    def finished(self, latents: torch.Tensor, share: Share = WHOLE) -> Sampled:
        """What has come of latents (f, c, h, w), those of a share and of the anchors that it needs."""
        frames, rows = share.frames(self.request.frames), share.rows(self.request.frames)
        starts = [shot.start for shot in self.request.shots]
        cuts = [start - frames.start for start in starts if start in frames]
        begun = max((start for start in starts if start <= frames.start), default=0)
        first = None if begun in frames else latents[begun]
        return Sampled(latents[rows], self.request, views=self.views[rows], cuts=cuts, first=first)

    def smoothed(self, start: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Start latents (f, c, h, w) whose background is steady; masks: (f, h, w), 1 = foreground."""
        return self._shot_by_shot(smoothed_latents, start, masks, self.request.smoothing_strength)

    def _around_the_subject(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (f, c, h, w) in which all around a subject that moves is its shot's first frame's."""
        masks = own_cells(self.request, self.pipeline, self.views, *latents.shape[-2:])
        return self._shot_by_shot(around_foreground, latents, masks, 1.0)

    def _shot_by_shot(
        self, smooth: Callable[..., torch.Tensor], latents: torch.Tensor, masks: torch.Tensor, strength: float
    ) -> torch.Tensor:
        poses = [view.cells for view in self.views]
        shots = (slice(shot.start, shot.stop) for shot in self.request.shots)
        return torch.cat([smooth(latents[shot], masks[shot], poses[shot], strength, self.resampling) for shot in shots])

    @property
    def resampling(self) -> str:
        """How the latents are moved: a steady camera moves them by whole cells, on which all ways agree, bit for bit.

        The nearest cell is then thirty times as soon found as the others.
        """
        return "nearest" if self.request.resampling == STEADY else self.request.resampling

    @cached_property
    def views(self) -> list[SplitPose]:
        """Where the camera is at each frame."""
        return camera_views(self.request, self.pipeline)

    def _step_noise(self, schedule: Schedule) -> StepNoise:
        """What a sampler of few steps adds to all frames; a steady camera's shift takes that noise along.

        Noise that stays on the screen would draw anew, at each step, what the scene has carried away from under it.
        """
        shared = shared_step_noise(self.request, self.pipeline, schedule)
        poses = [view.cells for view in self.views]
        if self.request.resampling != STEADY or all(pose == BEGINNING for pose in poses):
            return shared

        def seen(index: int) -> torch.Tensor:
            noise = shared(index)
            scene = NoiseScene(self.request.seed, noise.shape, draw=int(schedule.timesteps[index + 1]))
            return torch.stack([scene.seen(noise, pose) if pose != BEGINNING else noise for pose in poses])

        return seen

    def denoised(
        self,
        latents: torch.Tensor,
        schedule: Schedule,
        steps: range,
        stage: str = "Denoising",
        around_chunk: ChunkContext = nothing_around,
        share: Share = WHOLE,
    ) -> Generator[Event, None, torch.Tensor]:
        """Latents (f, c, h, w) of all frames some steps of a schedule further on.

        Where the subject moves, what is around it is the first frame's down to T of the request.
        """
        for part in self._segments(schedule, steps):
            if part.start > steps.start:
                latents = self._around_the_subject(latents)
            loop = denoise(
                latents,
                schedule,
                part,
                self.guidance,
                self.memory,
                self.placement,
                self._step_noise(schedule),
                around_chunk,
                [shot.start for shot in self.request.shots],
                self.kept,
                share,
                self.deep,
            )
            latents = yield from self.progress.reported(mapped(loop, self._remembered), stage)
        return latents

    def _segments(self, schedule: Schedule, steps: range) -> list[range]:
        """The steps of all frames, cut at T of the request where the subject moves and poses are open longer."""
        request = self.request
        if not (self.guidance.control and request.motion and request.motion_to < request.together_from):
            return [steps]
        at_to = min(max(schedule.snapped(request.motion_to), steps.start), steps.stop)
        return [part for part in (range(steps.start, at_to), range(at_to, steps.stop)) if part]

    def _denoised_alone(self, latents: torch.Tensor, steps: range) -> Generator[Event, None, torch.Tensor]:
        """Latents (s, c, h, w) of the first frame of each shot some steps of the opening further on."""
        opening, shots = self.plan.opening, len(latents)
        loop = denoise(
            latents,
            opening,
            steps,
            self.guidance.of([shot.start for shot in self.request.shots]),
            self.memory,
            self.placement,
            shared_step_noise(self.request, self.pipeline, opening),
            anchors=range(shots),
            kept=self.kept,
            deep=self.deep,
        )
        return (yield from self.progress.reported(mapped(loop, self._remembered), "First frame"))

    def _remembered(self, chunk: ChunkDone) -> ChunkDone:
        """The chunk as it is; its estimate of x_0, where it has one, stays."""
        if chunk.clean is not None:
            self.clean = chunk.clean
        return chunk

"""Clips shaped by ControlNet: pose, edges or depth of another clip, with any prompt (paper, section 3.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from text2video_zero.attention.deep_cache import deep_cache
from text2video_zero.attention.patches import attention_of
from text2video_zero.control.control_source import control_maps
from text2video_zero.device.memory_plan import placement_for
from text2video_zero.errors import FieldError
from text2video_zero.events import ControlMaps, Event
from text2video_zero.prompts.encoding import encoded_prompts
from text2video_zero.sampling.denoising import Sampled, denoise
from text2video_zero.sampling.guidance import Control, TextGuidance, branches_of, negative_branch
from text2video_zero.sampling.sdxl import added_conditions
from text2video_zero.sampling.share import WHOLE
from text2video_zero.sampling.solvers import schedule_of, scheduler_told
from text2video_zero.tasks.clip_input import carried_noise, clip_noise, concrete, read, sound_of
from text2video_zero.tasks.progress import ProgressReporter
from text2video_zero.tasks.start_picture import noised, start_latents

if TYPE_CHECKING:
    from collections.abc import Generator

    from text2video_zero.control.control_source import Detectors
    from text2video_zero.media.clips import Clip
    from text2video_zero.media.frames import Frames
    from text2video_zero.models.pipeline import Pipeline
    from text2video_zero.requests.controlled import ControlledRequest
    from text2video_zero.requests.fields import Size
    from text2video_zero.sampling.kept_steps import KeptSteps
    from text2video_zero.sampling.schedule import Schedule
    from text2video_zero.sampling.share import Share


@torch.inference_mode()
def detect(request: ControlledRequest, detectors: Detectors, native_size: Size) -> Generator[Event, None, None]:
    """Make the control maps of a request and nothing else, without its model; the last event is ControlMaps.

    native_size: of the model, in pixels. A run of the same clip and settings at the same size finds the maps in
    the cache. Raises UserError when the clip cannot be read or a detector cannot be had.
    """
    clip = yield from read(request, native_size)
    yield from _detected(concrete(request, clip), clip, detectors)


def sample_controlled(
    request: ControlledRequest,
    pipeline: Pipeline,
    detectors: Detectors | None,
    kept: KeptSteps,
    share: Share = WHOLE,
) -> Generator[Event, None, Sampled]:
    """Latents of a pose, edge, depth or DreamBooth request, with its seed, size and length made concrete.

    kept: where the steps are kept, and from where the run goes on if some were. share: the frames that are wanted.
    Raises UserError when the clip cannot be read or the pipeline has no ControlNet.
    """
    controlnet = pipeline.needed_controlnet
    clip = yield from read(request, pipeline.native_size)
    request, picture = yield from start_latents(concrete(request, clip), pipeline)
    maps = yield from _detected(request, clip, detectors)
    components = pipeline.components
    schedule = schedule_of(request.sampler, request.steps, scheduler_told(components.scheduler, request.prediction))
    negative_prompt = negative_branch(request.negative_prompt, request.guidance_scale)
    embeddings = encoded_prompts(components, request.full_prompt, negative_prompt, pipeline.inversions)
    carried = carried_noise(request, clip, pipeline)
    start, begin = clip_noise(request, pipeline, carried), 0
    if picture is not None:
        begin = schedule.snapped(request.start_strength * components.scheduler.config.num_train_timesteps)
        start = noised(picture, start, schedule.alphas[begin])
    guidance = _guidance(request, pipeline, embeddings, schedule, begin, maps)
    evaluations = request.frames * (request.steps - begin)
    progress = ProgressReporter(pipeline.preview_decoder, evaluations, request.frames, request.steps, share)
    placement = yield from placement_for(request, request.concrete_size, pipeline)
    with (
        added_conditions(pipeline, request.full_prompt, negative_prompt, guidance.branches),
        placement,
        attention_of(request, guidance.branches, components.unet, controlnet) as memory,
        deep_cache(request.cache_interval, guidance.branches, components.unet, controlnet) as deep,
    ):
        loop = denoise(
            start,
            schedule,
            range(begin, request.steps),
            guidance,
            memory,
            placement,
            # By timesteps, as `shared_step_noise` draws.
            step_noise=lambda index: clip_noise(request, pipeline, carried, int(schedule.timesteps[index + 1])),
            kept=kept,
            share=share,
            deep=deep,
        )
        latents = yield from progress.reported(loop, "Denoising")
        return Sampled(latents[share.rows(request.frames)], request, sound_of(request, clip))


def _guidance(
    request: ControlledRequest,
    pipeline: Pipeline,
    embeddings: torch.Tensor,
    schedule: Schedule,
    begin: int,
    maps: Frames,
) -> TextGuidance:
    """Raises UserError where no step of those from `begin` on would be controlled."""
    active = schedule.timesteps_within(request.control_start, request.control_end, begin)
    if not active:
        raise FieldError(
            f"Control from is {request.control_start:g} and Control until is {request.control_end:g}: between them is "
            f"none of the {len(schedule.timesteps) - begin} steps, so nothing would follow the clip. Set them further "
            "apart, or take more steps."
        )
    return TextGuidance(
        pipeline.components.unet,
        embeddings,
        request.guidance_scale,
        branches_of(request, len(embeddings), schedule, begin=begin),
        Control(pipeline.needed_controlnet, maps, request.control_strength, active),
    )


def _detected(request: ControlledRequest, clip: Clip, detectors: Detectors | None) -> Generator[Event, None, Frames]:
    """The control maps (f, h, w, 3) uint8 of a clip's frames."""
    maps = yield from control_maps(request, clip, detectors)
    yield ControlMaps(maps)
    return maps

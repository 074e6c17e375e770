"""From a job to a video: the one path that page, API, command line and tests take."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import diffusers
import torch

from text2video_zero import __version__
from text2video_zero.control.control_source import Detectors
from text2video_zero.device.compilation import COMPILATION_COST
from text2video_zero.device.memory import shortage_in_one_sentence
from text2video_zero.device.memory_plan import tiled_where_short
from text2video_zero.device.offload import bring
from text2video_zero.events import Event, Finished, Notice, Progress
from text2video_zero.media.video import Video, probe_encoder
from text2video_zero.models.catalogue import known_name, origin_of
from text2video_zero.models.checkpoints import short_name
from text2video_zero.models.files.fingerprints import stamp_of
from text2video_zero.prompts.loras import named_loras, prompts_of, what_was_left_out
from text2video_zero.requests import ControlledRequest, InstructPix2PixRequest, TextToVideoRequest
from text2video_zero.requests.camera import BEGINNING
from text2video_zero.requests.fields import FILES
from text2video_zero.sampling.decoding import decoded_frames
from text2video_zero.sampling.kept_steps import KeptSteps
from text2video_zero.sampling.motion.split import SplitPose
from text2video_zero.sampling.share import WHOLE, can_be_shared
from text2video_zero.tasks.controlled import detect, sample_controlled
from text2video_zero.tasks.finishing import played, stored
from text2video_zero.tasks.instructed import sample_instructed
from text2video_zero.tasks.parallax import camera_of, depth_detector
from text2video_zero.tasks.start_picture import picture_hash
from text2video_zero.tasks.text_to_video import sample_text_to_video

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from contextlib import AbstractContextManager

    import numpy as np

    from text2video_zero.job import Job
    from text2video_zero.models.checkpoints import Checkpoint
    from text2video_zero.models.pipeline import Pipeline
    from text2video_zero.requests import Size, VideoRequest
    from text2video_zero.sampling.denoising import Sampled
    from text2video_zero.sampling.share import Share
    from text2video_zero.tasks.parallax import SeenFrame


class Models(Detectors, Protocol):
    """Whoever has the models: the model manager."""

    compiled: bool

    def native_size(self, checkpoint: Checkpoint) -> Size:
        """The size that the checkpoint was trained at; loads nothing."""
        ...

    def fetch(self, checkpoint: Checkpoint) -> Iterator[Progress | Notice]:
        """Download what is not here."""
        ...

    def is_loaded(self, checkpoint: Checkpoint) -> bool:
        """Whether lending takes no time."""
        ...

    def lend(self, checkpoint: Checkpoint) -> AbstractContextManager[Pipeline]:
        """The loaded checkpoint, for one run."""
        ...


def run_job(job: Job, models: Models) -> Generator[Event]:
    """Download and load the job's model if need be, and run its request.

    The last event is Finished, or ControlMaps where the job ends with them. Closing the iterator stops within a
    step. Raises UserError for what the person can put right.
    """
    if job.remarks:
        yield Notice(job.remarks)
    if job.maps_only:
        if not isinstance(job.request, ControlledRequest):
            raise TypeError(f"{job.request.task} has no control maps to end with")
        with shortage_in_one_sentence():
            yield from detect(job.request, models, models.native_size(job.checkpoint))
        return
    given = (yield from picture_hash(job.request)) if job.picture else None
    yield from models.fetch(job.checkpoint)
    if not models.is_loaded(job.checkpoint):
        if models.compiled:
            yield Notice(COMPILATION_COST)
        yield Progress(f"Loading {known_name(job.checkpoint.source)}", 0, 1)
    with (
        models.lend(job.checkpoint) as pipeline,
        closing(generate(job.request, pipeline, models, job.kept_in, given, job.share)) as events,
    ):
        if job.weights and job.weights != pipeline.weights:
            yield Notice(
                f"The weights of {known_name(job.checkpoint.source)} differ ({pipeline.weights}, in the settings "
                f"{job.weights}): the video will differ."
            )
        if job.picture and job.picture != given:
            yield Notice(
                f"The start picture differs ({given or 'none'}, in the settings {job.picture}): the video will differ."
            )
        yield from events


@torch.inference_mode()
def generate(
    request: VideoRequest,
    pipeline: Pipeline,
    detectors: Detectors | None = None,
    kept_in: Path | None = None,
    picture: str | None = None,
    share: Share = WHOLE,
) -> Generator[Event]:
    """Run a request and yield what happens; the last event is Finished.

    detectors: who makes control maps and parallax possible, the model manager; needed where a clip is to be turned into
        maps, or near things are to move more.
    kept_in: folder where the steps are kept, for whoever runs the same request again after this run was cut off.
    picture: the start picture's `picture_hash`, for whoever has asked for it; None has it asked here.
    share: a part of the clip, for one of several workers; `joined` makes one video of theirs. It has no frames in
        between yet, and where a clip turns out to have fewer frames than there are parts, some end without Finished.

    Closing the iterator stops before the next chunk and leaves no trace in the pipeline. Raises UserError
    before sampling when the request does not fit the model or no video could be written, and after it when the
    pipeline's safety checker blocks a frame.
    """
    probe_encoder()
    made_of = (yield from picture_hash(request)) if picture is None else picture
    request = request.with_concrete_seed()
    kept = KeptSteps(kept_in, made_with(request, pipeline, made_of, share), pipeline.device)
    if kept.told:
        yield Notice(kept.told)
    sees_depth = yield from depth_detector(request, pipeline, detectors)
    with shortage_in_one_sentence():
        sampled = yield from sample(request, pipeline, detectors, kept, share)
        if not len(sampled.latents):
            return
        with camera_of(request, sees_depth, detectors) as seen:
            frames = yield from stored(_decoded(sampled, pipeline, seen), len(sampled.latents), "Decoding")
    video = Video(frames, request.fps, settings(sampled.request, pipeline, made_of), sampled.sound)
    yield Finished((yield from played(video, request)) if share == WHOLE else video)


def sample(
    request: VideoRequest,
    pipeline: Pipeline,
    detectors: Detectors | None = None,
    kept: KeptSteps | None = None,
    share: Share = WHOLE,
) -> Generator[Event, None, Sampled]:
    """Final latents of a request of any task; where steps of it were kept, it goes on from the last.

    share: the frames that are wanted. Raises ValueError for a part of a request that has none, see `can_be_shared`.
    """
    if share != WHOLE and not can_be_shared(request):
        raise ValueError("frames of this request hang on each other")
    kept = kept or KeptSteps()
    prompts = (*prompts_of(request), request.negative_prompt)
    if left_out := what_was_left_out(prompts, pipeline.checkpoint.adapters):
        yield Notice(left_out)
    match request:
        case TextToVideoRequest():
            return (yield from sample_text_to_video(request, pipeline, kept, share))
        case ControlledRequest():
            return (yield from sample_controlled(request, pipeline, detectors, kept, share))
        case InstructPix2PixRequest():
            return (yield from sample_instructed(request, pipeline, kept, share))
        case _:
            raise TypeError(f"no task makes a video of a {type(request).__name__}")


def _decoded(sampled: Sampled, pipeline: Pipeline, seen: SeenFrame) -> Iterator[np.ndarray]:
    """The frames of the final latents as the camera sees them, if the safety checker, where there is one, lets them.

    The UNet has done its work: it leaves the device where room is needed.
    """
    vae = pipeline.components.vae
    others = [network for network in pipeline.networks if network is not vae]
    if vae.device.type != pipeline.device.type:
        bring([vae], pipeline.device, others)
    before = [] if sampled.first is None else [sampled.first]
    frames = decoded_frames(vae, torch.stack([*before, *sampled.latents]), others)
    with tiled_where_short(vae, sampled.request.concrete_size, pipeline):
        passed = frames if pipeline.safety_checker is None else pipeline.safety_checker.passed(frames)
        views = sampled.views or [SplitPose(BEGINNING)] * len(sampled.latents)
        first = next(passed) if before else None
        for row, (frame, view) in enumerate(zip(passed, views, strict=True)):
            first = frame if first is None or row in sampled.cuts else first
            yield seen(frame, view, first)


def settings(request: VideoRequest, pipeline: Pipeline, picture: str = "") -> dict[str, Any]:
    """What a video's file records, enough to make it again; of files that are named by their full path only the name.

    picture: short hash of the start picture.
    """
    checkpoint = pipeline.checkpoint
    model, _ = origin_of(checkpoint)
    loras, prompt_loras = named_loras(checkpoint, request)
    controlnet, at = checkpoint.controlnet, checkpoint.controlnet_revision
    made_by: dict[str, object] = {"app": "text2video-zero", "version": __version__, "task": request.task}
    told = {
        "model": model,
        "revision": checkpoint.revision,
        "weights": pipeline.weights,
        "controlnet": controlnet and short_name(controlnet) + (f"@{at}" if at else ""),
        "loras": loras,
        "prompt_loras": prompt_loras,  # the prompt brings them again, and may be changed
        "picture": picture,
    }
    made_by |= {name: value for name, value in told.items() if value}
    asked = request.to_dict()
    for name in (name for name, _, spec in request.declarations() if spec.kind in FILES):
        if not asked[name]:
            del asked[name]  # an endpoint takes a file or nothing, and no blank path
        elif Path(asked[name]).is_absolute():
            asked[name] = Path(asked[name]).name  # a video is shown to others, a home folder's name is not
    return made_by | {"request": asked}


def made_with(request: VideoRequest, pipeline: Pipeline, picture: str, share: Share = WHOLE) -> dict[str, Any]:
    """What a run's numbers hang on, bit for bit: steps of a run that differs in any of this are no use to another."""
    checkpoint = pipeline.checkpoint
    added = (checkpoint.controlnet, *(adapter.source for adapter in checkpoint.adapters))
    return settings(request, pipeline, picture) | {
        "files": stamp_of(Path(source).expanduser() for source in added if source),
        "torch": str(torch.__version__),
        "diffusers": diffusers.__version__,
        "device": pipeline.device.type,
        "type of numbers": str(pipeline.components.unet.dtype),
        "share": [share.number, share.of],
    }

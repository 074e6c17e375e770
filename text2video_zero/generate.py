"""From a request to a video: the one path that tab, command line, job and test take."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from text2video_zero import __version__
from text2video_zero.attention import FrameMemory, cross_frame_attention
from text2video_zero.decoding import decoded_frames
from text2video_zero.events import Event, Finished, Preview, Progress
from text2video_zero.guidance import text_guidance
from text2video_zero.motion import CameraPath, forward_noise, warp
from text2video_zero.sampling import ChunkDone, denoise, frame_noise
from text2video_zero.schedule import Schedule
from text2video_zero.foreground import CrossAttentionDetector
from text2video_zero.smoothing import smoothed_latents
from text2video_zero.video import Video, probe_encoder

if TYPE_CHECKING:
    from text2video_zero.guidance import NoisePredictor
    from text2video_zero.motion import CameraPose
    from text2video_zero.pipeline import Pipeline
    from text2video_zero.requests import TextToVideoRequest

PREVIEWS_PER_RUN = 10
DECODE_COST = 1.5  # of one frame, in UNet evaluations with guidance: 1,257 against 2 x 402 GMAC at SD 1.5


@torch.inference_mode()
def generate(request: TextToVideoRequest, pipeline: Pipeline) -> Iterator[Event]:
    """Run a request and yield what happens; the last event is Finished.

    Closing the iterator stops before the next chunk and leaves no trace in the pipeline. Raises UserError
    before sampling when the request does not fit the model or no video could be written.
    """
    probe_encoder()
    request = concrete(request, pipeline)
    latents = yield from sample_text_to_video(request, pipeline)
    frames = []
    for frame in decoded_frames(pipeline.components.vae, latents):
        frames.append(frame)
        yield Progress("Decoding", len(frames), request.frames)
    yield Finished(Video(np.stack(frames), request.fps, settings(request, pipeline)))


def concrete(request: TextToVideoRequest, pipeline: Pipeline) -> TextToVideoRequest:
    """The request with the seed and the size that it will really run with."""
    request = request.with_concrete_seed()
    return dataclasses.replace(request, size=request.size or pipeline.native_size)


def settings(request: TextToVideoRequest, pipeline: Pipeline) -> dict[str, object]:
    """What a video's file records, enough to make it again."""
    return {
        "app": "text2video-zero",
        "version": __version__,
        "task": request.task,
        "model": pipeline.checkpoint.name,
        "request": request.to_dict(),
    }


def sample_text_to_video(
    request: TextToVideoRequest, pipeline: Pipeline
) -> Generator[Event, None, torch.Tensor]:
    """Latents (f, c, h, w) of a concrete text-to-video request; the generator's return value."""
    components = pipeline.components
    predict_noise = text_guidance(components, request.prompt, request.negative_prompt, request.guidance_scale)
    schedule = Schedule.of(request.sampler, request.steps, components.scheduler)
    with _attention(request, pipeline) as memory:
        run = ClipRun(request, pipeline, schedule, predict_noise, memory)
        if not request.smooth_background:
            return (yield from run.denoised(*(yield from run.start())))
        detector = CrossAttentionDetector(
            pipeline, request.prompt, request.foreground_words, request.frames, len(predict_noise.embeddings)
        )
        start, index = yield from run.start()
        with detector.observing():
            first_pass = yield from run.denoised(start, index)
        masks = detector.masks(first_pass)
        start = smoothed_latents(start, masks, run.poses(), request.smoothing_strength, request.resampling)
        return (yield from run.denoised(start, index, stage="Smoothing the background"))


@contextmanager
def _attention(request: TextToVideoRequest, pipeline: Pipeline) -> Iterator[FrameMemory | None]:
    if not request.cross_frame_attention:
        yield None
        return
    with_previous = request.reference_frames == "first + previous"
    with cross_frame_attention(pipeline.components.unet, with_previous=with_previous) as memory:
        yield memory


@dataclass
class ClipRun:
    """The denoising runs of one text-to-video clip, and their clock."""

    request: TextToVideoRequest
    pipeline: Pipeline
    schedule: Schedule
    predict_noise: NoisePredictor
    memory: FrameMemory | None
    began: float = field(default_factory=time.monotonic)
    done: float = 0.0

    def __post_init__(self) -> None:
        if self.request.motion:
            self.index_from, self.index_to = self.schedule.motion_steps(
                self.request.motion_from, self.request.motion_to
            )
        else:
            self.index_from = self.index_to = 0

    def poses(self) -> list[CameraPose]:
        """The camera's pose at each frame; without motion it stands still."""
        request = self.request
        if not request.motion:
            return [CameraPath(0, 0, 0, 0, request.reach).pose(0)] * request.frames
        path = CameraPath(request.pan_x, request.pan_y, request.zoom, request.rotation, request.reach)
        return [path.pose(frame) for frame in range(request.frames)]

    def start(self) -> Generator[Event, None, tuple[torch.Tensor, int]]:
        """Latents (f, c, h, w) from which all frames are denoised together, and the number of their step.

        With motion (paper, algorithm 1): frame 1 goes alone to T and on to T', is copied and moved there, and
        the copies go forward to T with fresh noise each. Without, each frame starts from its own noise.
        """
        unet, request = self.pipeline.components.unet, self.request
        factor = self.pipeline.latent_factor
        shape = (unet.config.in_channels, request.size.height // factor, request.size.width // factor)
        noises = [frame_noise(request.seed, frame, shape, unet.device) for frame in range(request.frames)]
        if not request.motion:
            return torch.stack(noises), 0
        alphas = self.schedule.alphas
        at_to = yield from self._narrated(noises[0][None], range(self.index_to), "First frame")
        at_from = yield from self._narrated(at_to, range(self.index_to, self.index_from), "First frame")
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
        return (yield from self._narrated(latents, range(index, self.request.steps), stage))

    def _narrated(
        self, latents: torch.Tensor, steps: range, stage: str
    ) -> Generator[Event, None, torch.Tensor]:
        """Denoise, and turn what happens into events."""
        loop = denoise(latents, self.schedule, steps, self.predict_noise, self.memory, self.request.chunk_size)
        preview_every = max(1, self.request.steps // PREVIEWS_PER_RUN)
        while True:
            try:
                chunk: ChunkDone = next(loop)
            except StopIteration as finished:
                return finished.value
            self.done += chunk.frames
            yield Progress(stage, chunk.step - (chunk.clean is None), chunk.of, self._seconds_left())
            if chunk.clean is not None and chunk.step % preview_every == 0:
                yield Preview(self.pipeline.latent_rgb.frames(chunk.clean))

    def _seconds_left(self) -> float:
        request = self.request
        passes = 2 if request.smooth_background else 1
        total = self.index_from + request.frames * (passes * (request.steps - self.index_to) + DECODE_COST)
        return (time.monotonic() - self.began) / self.done * (total - self.done)

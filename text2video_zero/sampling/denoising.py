"""The one denoising loop: at every step all frames in chunks, the anchor frame at the head of the first."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from text2video_zero.attention.cross_frame import spans, spans_of
from text2video_zero.device.precision import precisions
from text2video_zero.errors import UserError, ran_out_of_memory
from text2video_zero.sampling.kept_steps import KeptSteps, LoopState
from text2video_zero.sampling.share import WHOLE
from text2video_zero.sampling.solvers import SAMPLERS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from text2video_zero.attention.cross_frame import FrameMemory, Span
    from text2video_zero.attention.deep_cache import DeepCache
    from text2video_zero.device.offload import Placement
    from text2video_zero.media.video import Sound
    from text2video_zero.requests import VideoRequest
    from text2video_zero.sampling.guidance import NoisePredictor
    from text2video_zero.sampling.motion.split import SplitPose
    from text2video_zero.sampling.schedule import Schedule
    from text2video_zero.sampling.share import Share
    from text2video_zero.sampling.solvers import StepNoise

# Makes what is open while some frames of the clip, a chunk, are evaluated.
ChunkContext = Callable[[slice], AbstractContextManager[None]]


def nothing_around(frames: slice) -> AbstractContextManager[None]:  # noqa: ARG001 - a ChunkContext
    """Nothing is open while a chunk is evaluated."""
    return nullcontext()


@dataclass(frozen=True)
class ChunkDone:
    """Some frames have been through the UNet.

    step: number of the step in its segment, from 1.  of: steps of the segment.
    frames: how many frames this chunk held.
    clean: with the last chunk of a step, the estimate of x_0 for all frames, (f, c, h, w); else None.
    was_kept: all steps up to this one were done by an earlier process, and `frames` is the sum of theirs.
    """

    step: int
    of: int
    frames: int
    clean: torch.Tensor | None
    was_kept: bool = False


@dataclass(frozen=True)
class Sampled:
    """What a task's sampling comes to.

    latents: (f, c, h, w).  request: with nothing left open in it.  sound: what the clip sounds like, if wanted.
    views: the camera of each frame, and how much of its way is left for the decoded frame; none where nothing is.
    cuts: rows of latents at which a shot begins.  first: (c, h, w) of the first frame of the shot that a share goes on
    with; None where it begins one.
    """

    latents: torch.Tensor
    request: VideoRequest
    sound: Sound | None = None
    views: Sequence[SplitPose] = ()
    cuts: Sequence[int] = (0,)
    first: torch.Tensor | None = None


def denoise(
    latents: torch.Tensor,
    schedule: Schedule,
    steps: range,
    predict_noise: NoisePredictor,
    memory: FrameMemory | None,
    placement: Placement,
    step_noise: StepNoise,
    around_chunk: ChunkContext = nothing_around,
    anchors: Sequence[int] = (0,),
    kept: KeptSteps | None = None,
    share: Share = WHOLE,
    deep: DeepCache | None = None,
) -> Generator[ChunkDone, None, torch.Tensor]:
    """Take latents (f, c, h, w) through some steps of a schedule; the generator's return value is the result.

    latents are variance-preserving before and after. memory is that of an open `cross_frame_attention`, None
    for ordinary self-attention. around_chunk is open while a chunk is evaluated, and learns by an exception of
    attempts that do not count. anchors: the frames that those after them attend to, in rising order, 0 the first.
    kept: where the run's steps are kept, and gone on from. share: the frames that are wanted; what is returned for
    others means nothing. deep: that of an open `deep_cache`, None where every pass is whole. Closing the generator
    stops before the next chunk.

    A chunk that does not fit into the memory is taken in halves, one with numbers that are not finite in wider ones,
    and so are all after it. Raises UserError where a single frame does not fit, or is not finite in float32 either.
    """
    kept = kept or KeptSteps()
    chunks = _Chunks(predict_noise, memory, placement, around_chunk, deep)
    order = _order(len(latents), anchors, memory, share)
    sampler = SAMPLERS[schedule.sampler]
    scales = [sampler.latent_scale(alpha) for alpha in schedule.alphas]
    solver = sampler.solver(schedule, steps.start, step_noise)
    latents, before = latents * scales[steps.start], 0
    if state := kept.begin():
        latents, before = state.latents, state.done
        state.recall(solver, placement)
        yield ChunkDone(before, len(steps), before * sum(map(len, order)), state.clean, was_kept=True)
    for number, index in enumerate(steps[before:], start=before + 1):
        shown = solver.model_input(latents, index)
        output, done = torch.zeros_like(latents), 0
        for rows, noise, more in chunks.noise(shown, schedule.timesteps[index], order, number):
            output[rows], done = noise, len(noise)
            if more:
                yield ChunkDone(number, len(steps), done, None)
        clean, _ = schedule.clean_and_noise(output, index, latents / scales[index])  # in the paper's scale
        latents = solver.step(output, index, latents)
        if (is_last := number == len(steps)) or chunks.can_begin_at(number + 1):
            kept.keep(LoopState.of(number, latents, clean, solver, placement), is_last=is_last)
        yield ChunkDone(number, len(steps), done, clean)
    return latents / scales[steps.stop]


def _order(frames: int, anchors: Sequence[int], memory: FrameMemory | None, share: Share) -> list[Span]:
    """The order in which a share's frames, and the anchors that they need, go through the model."""
    order = spans(frames, anchors, memory.key_frame_every if memory else None)
    return order if share == WHOLE else spans_of(order, share.frames(frames))


class _NotFiniteError(ArithmeticError):
    """The noise of some frame is not finite; the message names it."""


@dataclass(frozen=True)
class _Chunks:
    """Chunks of frames, each predicted whatever it takes: in parts, with weights elsewhere, in wider numbers."""

    predict_noise: NoisePredictor
    memory: FrameMemory | None
    placement: Placement
    around: ChunkContext
    deep: DeepCache | None

    @cached_property
    def precisions(self) -> Sequence[Callable[[], AbstractContextManager[None]]]:
        """What to compute in, one after the other while numbers come out that are not finite."""
        return precisions(*self.placement.networks)

    def noise(
        self, shown: torch.Tensor, timestep: float, order: Sequence[Span], step: int
    ) -> Iterator[tuple[slice, torch.Tensor, bool]]:
        """Frames, their noise (m, c, h, w), and whether more come, chunk by chunk; shown: (f, c, h, w), all frames."""
        for span in order:
            if self.memory is not None:
                self.memory.begin(span)
            begin = span.start
            while begin < span.stop:
                noise = self._fitting_noise(shown, timestep, begin, span, step)
                begin += len(noise)
                yield slice(begin - len(noise), begin), noise, begin < span.stop or span is not order[-1]

    def _fitting_noise(self, shown: torch.Tensor, timestep: float, begin: int, span: Span, step: int) -> torch.Tensor:
        """Noise (m, c, h, w) of the frames of a span from `begin` on, as many as fit."""
        while True:
            count = min(self.placement.chunk_size, span.stop - begin)
            try:
                return self._finite_noise(shown, timestep, slice(begin, begin + count), span, step)
            except RuntimeError as error:
                if not ran_out_of_memory(error):
                    raise
            # Here and not above, because the handler holds the failed attempt with all its tensors.
            self.placement.shrink(count)

    def _finite_noise(self, shown: torch.Tensor, timestep: float, frames: slice, span: Span, step: int) -> torch.Tensor:
        """Raises UserError, naming the frame, rather than sampling on towards a black picture."""
        failure = ""
        for number, precision in enumerate(self.precisions):
            if number < self.placement.precision:
                continue  # where one chunk has failed, most others would
            try:
                with (
                    precision(),
                    self.around(frames),
                    self._attending(span, frames.start),
                    self._reusing(step, frames, len(shown)),
                ):
                    return _checked(self.predict_noise(shown[frames], timestep, frames), frames, step)
            except _NotFiniteError as error:
                failure = str(error)
                self.placement.precision = number + 1
        raise UserError(
            f"{failure}: use another seed or a lower guidance scale, or run in full precision (--device cpu)."
        )

    def can_begin_at(self, step: int) -> bool:
        """Whether a step needs nothing that another has left in the networks."""
        return self.deep is None or self.deep.is_whole(step)

    def _attending(self, span: Span, begin: int) -> AbstractContextManager[None]:
        return nullcontext() if self.memory is None else self.memory.open(span, begin)

    def _reusing(self, step: int, frames: slice, of: int) -> AbstractContextManager[None]:
        return nullcontext() if self.deep is None else self.deep.open(step, frames, of)


def _checked(noise: torch.Tensor, frames: slice, step: int) -> torch.Tensor:
    """The noise of some frames, once it is certain that it is finite."""
    finite = noise.isfinite().flatten(1).all(1)
    if not finite.all():
        frame = frames.start + int(finite.logical_not().nonzero()[0])
        raise _NotFiniteError(f"Frame {frame} came out of step {step} with numbers that are not finite")
    return noise

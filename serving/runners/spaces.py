"""Run jobs on ZeroGPU, where a Hugging Face Space borrows a GPU for as long as one call takes.

The call runs in a process that is forked for it. Jobs go there and events come back pickled, and what it changes in
this process's memory is gone with it. A video's visitor pays with seconds of a daily quota.
"""

from __future__ import annotations

import contextvars
import os
import re
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from serving.estimates import Pace
from serving.jobs import Refusal
from serving.queue import JobQueue
from text2video_zero.errors import UserError
from text2video_zero.events import Progress
from text2video_zero.models.selection import family_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from model_manager import ModelManager
    from serving.line import Entry
    from serving.store import JobStore
    from serving.visitors.limits import Limits
    from text2video_zero.events import Event
    from text2video_zero.job import Job
    from text2video_zero.models.checkpoints import Checkpoint

# Seconds for one frame through the UNet at the model's own size, before a job has been measured: an upper reckoning for
# the half Blackwell card that is lent. Too much costs a visitor only the check beforehand, too little her video.
GPU_SECONDS = {"toyland": 0.005, "sd1": 0.04, "sd2": 0.09, "sdxl": 0.25}
# For bringing weights to the GPU, encoding the prompt, sending the video back: by the model's family.
BEGINNING_SECONDS = {"toyland": 8.0}
BEGINNING_SECONDS_OF_OTHERS = 12.0
MARGIN = 1.5

# What a person is told for an error of the spaces package (0.51), by its title and by what its message holds.
SENTENCES = (
    (
        "ZeroGPU quota exceeded",
        "requested vs.",
        (
            "This video asks for {asked} seconds of GPU, and {left} are left of your quota at Hugging Face: ask for "
            "fewer frames or steps, log in there, or come back {again}."
        ),
    ),
    (
        "ZeroGPU quota exceeded",
        "",
        "Your quota of GPU time at Hugging Face is used up: log in there, or come back later.",
    ),
    (
        "ZeroGPU illegal duration",
        "",
        "This video asks for {asked} seconds of GPU, more than one may take here: ask for fewer frames or steps.",
    ),
    (
        "ZeroGPU pending credits exceeded",
        "",
        "Too many of your videos are being made at once: wait until some of them are done.",
    ),
    ("ZeroGPU queue timeout", "", "No GPU was free within a minute: try again in a while."),
    ("ZeroGPU client error", "No GPU", "No GPU was free: try again in a while."),
    (
        "ZeroGPU client error",
        "Expired",
        "The page has been open for so long that it is not known any more: load it again.",
    ),
    (
        "ZeroGPU worker error",
        "aborted",
        "The GPU was taken back before the video was done: ask for fewer frames or steps.",
    ),
)


def is_zero_gpu() -> bool:
    """Whether this is a Space on ZeroGPU."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in {"1", "t", "true"}


class ZeroGPURunner:
    """Runs jobs one at a time, each in a call that borrows a GPU; downloads take none of its seconds."""

    slots = 1

    def __init__(self, open_models: Callable[[], ModelManager], first: Checkpoint) -> None:
        """Load a model and place it, from the main thread and before the page is launched.

        ZeroGPU pretends to have a CUDA device in that thread alone, and packs what lies on it at the launch, to be
        brought to the real one in moments. Other models are read from disk in the call, at the visitor's cost.
        open_models: makes the model manager.  first: the model that the page begins with.
        Raises UserError where it cannot be had, or the spaces package is not there.
        """
        try:
            import spaces  # before torch, whose CUDA it takes the place of
        except ImportError as error:
            raise UserError("On ZeroGPU the package spaces is needed: add it to requirements.txt.") from error
        self.pace = Pace(GPU_SECONDS)
        self._models = open_models()
        for _ in self._models.fetch(first):
            pass
        with self._models.lend(first):
            pass
        # Decorated here and not where it is defined: without the package, and off ZeroGPU, this file does nothing.
        self._on_gpu: Any = spaces.GPU(duration=self.seconds)(self._told)

    @property
    def kind(self) -> str:
        """What jobs are computed on."""
        return self._models.device.type

    def describe_device(self) -> str:
        """The device that jobs run on."""
        return f"ZeroGPU, {self._models.describe_device()}"

    def open(self) -> None:
        """Nothing: the models are there since the beginning."""

    def close(self) -> None:
        """Nothing: a call that borrows a GPU ends with its job."""

    def seconds(self, job: Job) -> int:
        """How long a job may have the GPU: by its frames, steps and size, and by how long others took."""
        beginning = BEGINNING_SECONDS.get(family_of(job.checkpoint), BEGINNING_SECONDS_OF_OTHERS)
        return round(beginning + MARGIN * (self.pace.estimate(job, self.kind) or 60.0))

    def run(self, job: Job) -> Generator[Event]:
        """Download what is missing, then run the job on a GPU."""
        if not job.maps_only:
            yield from self._models.fetch(job.checkpoint)
        yield Progress("Waiting for a GPU", 0, 1)
        with in_our_words(), closing(self._on_gpu(job)) as events:
            for event in events:
                if isinstance(event, Refusal):
                    raise UserError(event.sentence)
                yield event

    def _told(self, job: Job) -> Generator[Event | Refusal]:
        """A job's events, in the process that has the GPU; only values come out of it, a mistake of the user too."""
        from text2video_zero.generate import run_job

        try:
            yield from run_job(job, self._models)
        except UserError as error:
            yield Refusal(str(error))


@contextmanager
def in_our_words() -> Generator[None]:
    """Turn what the spaces package refuses into a UserError; a bug stays what it is, and its log has the traceback."""
    try:
        yield
    except Exception as error:
        title, message = (str(getattr(error, name, "")) for name in ("title", "message"))
        found = (sentence for name, sign, sentence in SENTENCES if name == title and sign in message)
        if (sentence := next(found, None)) is None:
            raise
        numbers = re.search(r"\((\d+)s(?: requested vs\. (-?\d+)s left)?\)", message)
        again = re.search(r"Try again in ([^.]+)\.", message)
        asked, left = numbers.groups() if numbers else ("more", "fewer")
        when = f"in {again[1]}" if again else "later"
        raise UserError(sentence.format(asked=asked, left=left, again=when)) from error


class VisitorsQueue(JobQueue):
    """A queue whose jobs run in the name of those who asked: the spaces package finds them by the context of a call.

    The time on a GPU counts for the visitor whose request that context has; without, it would count for the Space.
    """

    def __init__(
        self, runner: ZeroGPURunner, store: JobStore, *, patience: float | None = None, limits: Limits | None = None
    ) -> None:
        """How long jobs take is learnt here, and asked for there."""
        super().__init__(runner, store, runner.pace, patience=patience, limits=limits)
        self._contexts: dict[str, contextvars.Context] = {}  # by the job's id

    def _line_up(self, entry: Entry) -> None:
        # Whoever asks for a job, or lets it go on, is answered meanwhile, in the context of her request.
        self._contexts[entry.job.id] = contextvars.copy_context()
        super()._line_up(entry)

    def _release(self, entry: Entry) -> None:
        self._contexts.pop(entry.job.id, None)
        super()._release(entry)

    def _run(self, entry: Entry) -> bool:
        return self._contexts[entry.job.id].run(super()._run, entry)

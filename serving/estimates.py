"""How long a job will take: from what it has to compute, and from how long others took here."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from text2video_zero.events import JOINING, Progress
from text2video_zero.job import control_of
from text2video_zero.models.native_size import FAMILY_SIDES
from text2video_zero.models.selection import family_of
from text2video_zero.requests import InstructPix2PixRequest, StartPictureRequest, TextToVideoRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from text2video_zero.job import Job
    from text2video_zero.requests import VideoRequest

# Seconds for one frame through the UNet at the model's own size on two cores of a CPU: Toyland's measured, the others'
# by their multiply-accumulates (402 G at SD 1.5). Right to a factor of three until a job has been measured.
CPU_SECONDS = {"toyland": 0.0125, "sd1": 5.0, "sd2": 12.0, "sdxl": 40.0}
CPU_FIRST_SECONDS = 3.0  # what a first job takes beside: kernels are made ready, previews and files written
TIMESTEPS = 1000  # that models are trained with
ATTENTION_SHARE = 0.25  # of the work at the model's own size, which grows with the square of the area
CONTROL_SHARE = 0.4  # of a UNet's work, that a ControlNet adds
SHALLOW_SHARE = 0.2  # of a pass, where deep features are reused
DECODE_COST = 3.0  # of one frame, in evaluations without guidance
REMEMBERED_JOBS = 8  # of each family
LATEST_COUNTS = 1.5  # times as much as the job before it
NOTICED = 0.01  # of what is fixed, that the evaluations of the largest job take at least
APART = 1.5  # ratio of jobs' work from which on it shows what is fixed


class Pace:
    """How fast this machine is, learnt from the jobs that it has done.

    A job takes a fixed time, for words, files and previews, and a time for each evaluation. Both are fitted to
    the latest jobs of the model's family; as long as those were much alike, all is put down to the evaluations.
    """

    def __init__(self, known: Mapping[str, float] = MappingProxyType({})) -> None:
        """Begin with what is known: family -> seconds for one evaluation at the model's own size."""
        self._known = dict(known)
        self._done: dict[str, deque[tuple[float, float]]] = defaultdict(lambda: deque(maxlen=REMEMBERED_JOBS))
        self._lock = threading.Lock()

    def learn(self, job: Job, seconds: float) -> None:
        """Take in how long a job took, loading not counted."""
        with self._lock:
            self._done[family_of(job.checkpoint)].append((evaluations(job), seconds))

    def estimate(self, job: Job, kind: str) -> float | None:
        """Seconds that a job will take, loading not counted; None where nothing is known to judge by.

        kind: what it is computed on, "cpu" or others.
        """
        family = family_of(job.checkpoint)
        with self._lock:
            done = list(self._done.get(family, ()))
        if done:
            fixed, each = _fitted(*np.array(done).T)
            return fixed + each * evaluations(job)
        if family in self._known:
            return self._known[family] * evaluations(job)
        if kind == "cpu" and family in CPU_SECONDS:
            return CPU_FIRST_SECONDS + CPU_SECONDS[family] * evaluations(job)
        return None


class Clock:
    """How long a job has computed, by what its run tells.

    by_several: whether several workers made parts of it, so that it took less time than it has work.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self.by_several = False

    def hear(self, event: object) -> None:
        """Take note of what a run tells."""
        if isinstance(event, Progress):
            self.by_several |= event.stage == JOINING
            if self._since is None and event.of > 1 and event.unit == "steps":
                self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the job's first step, loading not counted; 0 before it."""
        return 0.0 if self._since is None else time.monotonic() - self._since


def _fitted(work: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    """Fixed seconds and seconds for each evaluation, of jobs (n,) in the order in which they were done.

    Least squares of the relative errors; each job counts less than the one after it.
    """
    weight = LATEST_COUNTS ** np.arange(len(work))
    if work.max() > APART * work.min():
        rows = (weight / seconds)[:, None] * np.stack([np.ones_like(work), work], axis=1)
        fixed, each = np.linalg.lstsq(rows, weight)[0]
        if fixed > 0 and each * work.max() > NOTICED * fixed:
            return float(fixed), float(each)
    return 0.0, float(np.average(seconds / work, weights=weight))


def evaluations(job: Job) -> float:
    """The work of a job, counted in passes of one frame of the model's own size through its UNet."""
    request = job.request
    passes = _steps(request) * _passes(request) * (SHALLOW_SHARE + (1 - SHALLOW_SHARE) / request.cache_interval)
    return (passes + DECODE_COST * request.frames) * _relative_cost(job)


def _steps(request: VideoRequest) -> float:
    """Steps of all frames; up to T the first frame of a shot takes them for the whole of it."""
    begin = 1.0  # the share of the timesteps that all frames go through
    if isinstance(request, StartPictureRequest) and request.start_picture:
        begin = request.start_strength
    elif isinstance(request, TextToVideoRequest) and request.motion:
        begin = request.together_from / TIMESTEPS
    together = begin * request.steps * request.frames
    if not isinstance(request, TextToVideoRequest):
        return together
    alone = 0.0 if request.start_picture else (1 - begin) * request.steps * len(request.shots)
    return alone + (2 * together if request.smooth_background else together)


def _passes(request: VideoRequest) -> float:
    """Passes of one frame through the UNet in one step."""
    if isinstance(request, InstructPix2PixRequest):  # with words and picture; with the picture alone; with neither
        return 1 + 2 * request.guidance_end
    passes = 1 + request.guidance_end if request.guidance_scale > 1 else 1.0
    return passes * (1 + CONTROL_SHARE) if control_of(request) else passes


def pixels(job: Job) -> int:
    """Of a frame; where a job does not say, those that its model is trained at."""
    size = job.request.size
    return size.width * size.height if size else own_pixels(job)


def own_pixels(job: Job) -> int:
    """Of the pictures that a job's model is trained at."""
    return FAMILY_SIDES[family_of(job.checkpoint)] ** 2


def _relative_cost(job: Job) -> float:
    """What a pass at the job's size costs, against one at the model's own."""
    area = 1.0 if job.request.size is None else pixels(job) / own_pixels(job)
    return area * (1 - ATTENTION_SHARE) + area**2 * ATTENTION_SHARE

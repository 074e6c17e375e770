"""Run jobs on workers of a Ray cluster: processes on this machine or on others, each with models of its own.

Ray is an extra (`pip install ".[ray]"`) and imported only where workers are asked for. A worker is an actor that is
leased to one job at a time and asked for one event after the other. Nothing ever waits on an actor, so a job is
stopped as it is in this process: whoever asked does not ask again, and closes. Events, videos and kept steps come as
bytes, and clips, pictures and steps go as bytes: other machines see other disks. A long clip is made by as many workers
as are free, each a part of it.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import signal
import socket
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from serving.jobs import Refusal, explained
from serving.runners.together import Together, useful_workers
from serving.runners.worker import Ended, Facts, Told, Worker
from text2video_zero import __version__
from text2video_zero.errors import UserError
from text2video_zero.events import Finished, Notice, Progress
from text2video_zero.media.files import STEPS_FILE, renamed_when_whole
from text2video_zero.sampling.share import WHOLE, Share
from text2video_zero.tasks.finishing import joined

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from model_manager import ModelManager
    from text2video_zero.events import Event
    from text2video_zero.job import Job
    from text2video_zero.media.video import Video

LOG = logging.getLogger(__name__)

MOST_TRIES = 3
"""Workers that may be lost with one job: one that fills the memory would bring down each in turn."""

LOOK_AGAIN_SECONDS = 0.2
"""How often a job that waits for a worker looks whether it has been stopped, and a lost worker whether it is back."""

OPENING_SECONDS = 180
"""How long the first worker may take to begin, which imports torch."""

CLIENT_PORT = 10001  # of a cluster, for programs outside it, where none is given
KNOCKING_SECONDS = 10

# What Ray reads as it is imported: it tells its makers nothing, leaves the GPUs of actors without one alone, and starts
# nothing anew for a call that comes after its end.
VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
# Of a cluster, in the home folder; a program outside it shows it only if it is told to.
AUTHENTICATION = ".ray/auth_token"


@dataclass
class _Part:
    """What of a job one worker makes.

    worker: None when it is over.  steps: the latest that it has sent.  losses: workers that were lost with it.
    """

    job: Job
    files: Mapping[str, bytes]
    worker: Any
    steps: bytes = b""
    losses: int = 0

    def begun(self) -> Any:
        """Ray's promise that the worker has taken it on."""
        return self.worker.begin.remote(self.job, self.files, self.steps)

    def keep(self, steps: bytes) -> None:
        """Remember the latest steps, if there are any; those of a whole job on disk too, for the next program."""
        if not steps:
            return
        self.steps, folder = steps, self.job.kept_in
        if folder is None or self.job.share != WHOLE:
            return
        try:
            folder.mkdir(exist_ok=True)
            with renamed_when_whole(folder / STEPS_FILE) as temporary:
                temporary.write_bytes(steps)
        except OSError as error:
            LOG.warning("Steps cannot be kept in %s (%s): what ends with the program begins again.", folder, error)


class RayRunner:
    """Runs jobs on leased workers, as many at once as there are; another takes over from one that is lost."""

    def __init__(self, workers: str, open_models: Callable[[], ModelManager], *, gpus: bool = True) -> None:
        """Nothing is started yet.

        workers: "local:N" for N processes on this machine; "ray://host:port" for a cluster, with a worker for each
            of its GPUs, or for each of its machines if it has none. Raises UserError for anything else.
        open_models: makes the model manager of a worker; it must pickle.
        gpus: whether a worker takes a GPU, where there are any.
        """
        if (asked := re.fullmatch(r"local:([1-9]\d*)|ray://.+", workers)) is None:
            raise UserError(f"--workers is {workers!r}: write local:2 for two here, or ray://host:10001 for a cluster.")
        self._asked = workers
        self._here = int(asked[1] or 0)  # processes on this machine; none on a cluster
        self._open_models = open_models
        self._gpus = gpus
        self._facts: Facts | None = None
        self._opened = threading.Event()
        self._closed = threading.Event()
        self._count = self._left_out = 0
        self._awaiting: list[threading.Thread] = []
        self._lock = threading.Lock()  # over these two: jobs on several workers end at once
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Facts | Refusal] = queue.SimpleQueue()

    @property
    def slots(self) -> int:
        """Workers; 0 until they are started."""
        return self._count

    @property
    def free(self) -> int:
        """Workers that could be leased now."""
        return self._free.qsize()

    @property
    def kind(self) -> str:
        """What jobs are computed on; blank while it is not known."""
        return self._facts.kind if self._facts else ""

    def describe_device(self) -> str:
        """How many workers there are, and the device of one of them; waits while they are being started."""
        self._opened.wait(OPENING_SECONDS)
        if self._facts is None:
            return ""
        return f"{self._count} worker{'s' if self._count > 1 else ''} on {self._facts.device}"

    def open(self) -> None:
        """Start the workers, and wait until the first is ready; raises UserError where none can be had."""
        if not self._here and (Path.home() / AUTHENTICATION).exists():
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        ray = _imported_ray()
        cluster = self._started(ray)
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        cards = int(cluster.get("GPU", 0)) if self._gpus else 0
        self._count = self._here or cards or len(machines)
        if 0 < cards < self._count:
            raise UserError(f"--workers is {self._asked!r}, but there are {cards} GPUs here: ask for as many workers.")
        if self._count == 0:
            raise UserError(f"The cluster at {self._asked} has neither a GPU nor a CPU to give.")
        # A worker without a GPU computes with as many cores as it has been given.
        cores = 1 if cards or not machines else int(min(machine["CPU"] for machine in machines))
        cores = max(1, cores // self._count) if self._here else cores
        actor = ray.remote(Worker).options(
            num_gpus=1 if cards else 0, num_cpus=cores, max_restarts=-1, scheduling_strategy="SPREAD"
        )
        for _ in range(self._count):
            self._give_back(actor.remote(self._open_models))
        self._facts = self._first_answer()
        self._opened.set()

    def close(self) -> None:
        """Let the workers go."""
        self._closed.set()
        with self._lock:
            awaiting = self._awaiting
        for thread in awaiting:
            thread.join()
        _imported_ray().shutdown()

    def run(self, job: Job) -> Generator[Event]:
        """Lease workers, and run the job on them: on one, or a long clip on as many as are free.

        Where a worker is lost, another goes on from the last steps that it has sent.
        """
        files = _files_of(job)
        job = replace(job, request=job.request.with_concrete_seed())
        steps = _kept_steps(job)  # of the whole: one worker goes on from there
        workers = yield from self._leased(1 if steps else useful_workers(job))
        parts = [
            _Part(replace(job, share=Share(number, len(workers))), files, worker, steps)
            for number, worker in enumerate(workers)
        ]
        together = Together(len(parts))
        try:
            for number, event in self._told(parts):
                told = replace(event, video=with_own_sound(event.video, job)) if isinstance(event, Finished) else event
                if isinstance(told, Ended):
                    together.ended(number)
                elif len(parts) == 1:
                    yield told
                else:
                    yield from together.heard(number, told)
        finally:
            for part in parts:
                self._leave(part)
        if len(parts) > 1:
            yield from joined(job.request, together.videos)

    def _told(self, parts: Sequence[_Part]) -> Generator[tuple[int, Event | Ended]]:
        """What the workers tell of their parts, as it comes, each with the number of the part."""
        ray = _imported_ray()
        asked = {part.begun(): number for number, part in enumerate(parts)}
        while asked:
            for answer in ray.wait(list(asked))[0]:
                number = asked.pop(answer)
                part = parts[number]
                try:
                    told: Told | None = ray.get(answer)
                except ray.exceptions.RayTaskError:
                    raise  # a bug, with the traceback of the worker
                except (ray.exceptions.RayError, ConnectionError) as error:
                    if not ray.is_initialized():
                        raise UserError("The cluster does not answer any more: start the program again.") from error
                    for event in self._replaced(part):
                        yield number, event
                    asked[part.begun()] = number
                    continue
                if told is not None:
                    part.keep(told.steps)
                    match told.event:
                        case Ended():
                            self._leave(part)
                            yield number, Ended()
                            continue
                        case Refusal(sentence):
                            raise UserError(sentence)
                        case event:
                            yield number, event
                asked[part.worker.next_event.remote()] = number

    def _replaced(self, part: _Part) -> Generator[Event]:
        """Lease another worker for a part whose worker was lost; raises UserError where too many were."""
        part.losses += 1
        if part.losses == MOST_TRIES:
            raise UserError(
                f"{MOST_TRIES} workers were lost with this video, perhaps for want of memory: ask for a smaller size, "
                "or for fewer frames at a time."
            )
        how = "goes on after the last steps that it has kept" if part.steps else "begins the video again"
        yield Notice(f"A worker was lost: another {how}.")
        self._leave(part)
        [part.worker] = yield from self._leased(1)

    def _leave(self, part: _Part) -> None:
        """Give back the worker of a part, if it still has one."""
        worker, part.worker = part.worker, None
        if worker is not None:
            self._give_back(worker)

    def _leased(self, most: int) -> Generator[Event, None, list[Any]]:
        """A worker as soon as one is free, and others that are free at that time, up to so many."""
        workers: list[Any] = []
        while len(workers) < most:
            try:
                workers.append(self._free.get(timeout=0 if workers else LOOK_AGAIN_SECONDS))
            except queue.Empty:
                if workers:
                    break
                if self._left_out == self._count:
                    raise UserError("No worker can compute any more: the server's log says why.") from None
                yield Progress("Waiting for a worker", 0, 1)
        return workers

    def _give_back(self, worker: Any) -> None:
        """Free a worker for others as soon as it answers: not while it is in its last step, or being started again."""
        thread = threading.Thread(target=self._await_worker, args=(worker,), daemon=True)
        with self._lock:
            thread.start()
            self._awaiting = [*(other for other in self._awaiting if other.is_alive()), thread]

    def _await_worker(self, worker: Any) -> None:
        ray, asked = _imported_ray(), worker.open.remote()
        while not self._closed.is_set():
            try:
                answer = ray.get(asked, timeout=LOOK_AGAIN_SECONDS)
            except ray.exceptions.GetTimeoutError:
                continue
            except ray.exceptions.RayTaskError as error:  # a bug, that it would meet for ever
                answer = Refusal(explained(error))
            except (ray.exceptions.RayError, ConnectionError):
                if not self._closed.wait(LOOK_AGAIN_SECONDS):
                    asked = worker.open.remote()
                continue
            if self._facts is None:
                self._answers.put(answer)
            if isinstance(answer, Facts) and answer.version == __version__:
                self._free.put(worker)
            else:
                LOG.warning("A worker is left out: %s", answer)
                with self._lock:
                    self._left_out += 1
            return

    def _first_answer(self) -> Facts:
        try:
            answer = self._answers.get(timeout=OPENING_SECONDS)
        except queue.Empty:
            raise UserError(
                f"No worker of {self._asked} began within {OPENING_SECONDS} seconds: see with `ray status` what is "
                "free, and whether this program is installed on each machine."
            ) from None
        if isinstance(answer, Refusal):
            raise UserError(answer.sentence)
        if answer.version != __version__:
            raise UserError(f"The workers have version {answer.version} of this program, here is {__version__}.")
        return answer

    def _started(self, ray: Any) -> dict[str, float]:
        """Start Ray here or reach its cluster, whose resources are returned; raises UserError."""
        before = signal.getsignal(signal.SIGTERM)
        try:
            if self._here:
                _start_here(ray, self._here)
            else:
                _knock(self._asked)
                ray.init(self._asked)
            return ray.cluster_resources()
        except Exception as error:  # Ray fails in many ways, with errors that have nothing in common
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise UserError(
                f"Ray cannot be had at {self._asked} ({reason}): see that it runs there, in the same versions of Ray "
                "and Python, and that its port can be reached."
            ) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray's own would end this program in the middle of things


def with_own_sound(video: Video, job: Job) -> Video:
    """A worker's video with the sound of the clip that is here, and not of the copy that the worker had."""
    if video.sound is None:
        return video
    return replace(video, sound=replace(video.sound, clip=Path(job.request.files["clip"])))


def _files_of(job: Job) -> dict[str, bytes]:
    """What the person brought, by its field, to be sent along; raises UserError where it cannot be."""
    found: dict[str, bytes] = {}
    for field, name in job.request.files.items():
        path = Path(name)
        if path.is_dir():
            raise UserError(f"{path.name} is a folder, which cannot be sent to workers: pack it into a .zip file.")
        if path.is_file():
            found[field] = path.read_bytes()
    return found


def _kept_steps(job: Job) -> bytes:
    """The steps of a job that an earlier program has kept; none where there are none."""
    file = job.kept_in and job.kept_in / STEPS_FILE
    return file.read_bytes() if file and file.exists() else b""


def _knock(address: str) -> None:
    """Raise OSError where nobody answers, after which Ray itself asks for half a minute."""
    place = urlsplit(address)
    with socket.create_connection((place.hostname, place.port or CLIENT_PORT), KNOCKING_SECONDS):
        pass


def _start_here(ray: Any, workers: int) -> None:
    """Start Ray on this machine, a second time where a busy one took too long."""
    cores = max(workers, os.cpu_count() or 1)
    options: dict[str, Any] = {"num_cpus": cores, "include_dashboard": False}
    try:
        ray.init("local", **options)
    except Exception:  # noqa: BLE001 - whatever it was, the second failure is told
        ray.shutdown()
        ray.init("local", **options)


def _imported_ray() -> Any:
    """Ray, told before its import to keep to itself; raises UserError where it is not installed."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise UserError('Workers need Ray, which is not installed: pip install ".[ray]" brings it.') from error
    return ray

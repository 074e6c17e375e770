"""Jobs on disk: a folder for each, with what was asked, how it stands, and all that came of it."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import logging
import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from serving.estimates import pixels
from serving.jobs import Done, Failed, Guide, Interrupted, Queued, Standing, Stopped, Stored
from text2video_zero.errors import UserError
from text2video_zero.events import MB, ControlMaps, Notice
from text2video_zero.job import Job
from text2video_zero.media.files import readable_errors, remove_unfinished, renamed_when_whole
from text2video_zero.media.video import Video, check_destination, save_or_keep_frames
from text2video_zero.models.checkpoints import Adapter, Checkpoint
from text2video_zero.requests import REQUESTS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    import numpy as np

    from serving.jobs import State
    from text2video_zero.events import ClipFrames

LOG = logging.getLogger(__name__)

LAST_FRAME = ".png"
FORMS = {".mp4": "MP4", ".gif": "GIF", ".webm": "WebM", ".zip": "PNG frames", LAST_FRAME: "Last frame"}
PLAYABLE = next(iter(FORMS))
FOLDER_NAME = re.compile(rf"(?:{'|'.join(REQUESTS)})-\d{{8}}-\d{{6}}-[0-9a-f]{{32}}")
UNREADY_NAME = re.compile(r"\.[0-9a-f]{32}")  # of a folder that is being made
HOUR = 3600
REQUEST, STATE, SETTINGS, POSTER = "request.json", "state.json", "settings.json", "poster.jpg"
STEPS = "steps"  # folder of what an unfinished job goes on from
POSTER_SIDE = 256  # pixels of the longer side
ENDS: dict[str, type[Done | Failed | Stopped]] = {"done": Done, "failed": Failed, "stopped": Stopped}


@dataclass(frozen=True)
class JobFolder:
    """The folder of one job. Its name is `task-moment-token`; nobody guesses the token.

    with_settings: whether what was asked is written into the videos, and stays on disk when the job is over.
    keep_seconds: age at which the folder may be removed; None keeps it for good.
    """

    path: Path
    job: Job
    owner: str
    began: float
    with_settings: bool
    keep_seconds: float | None

    @property
    def poster(self) -> Path:
        """A small picture of what was made, or of what a stopped run had come to."""
        return self.path / POSTER

    @property
    def steps(self) -> Path:
        """The folder where the job's steps are kept until it is over."""
        return self.path / STEPS

    def file(self, suffix: str, part: str = "") -> Path:
        """The path of a part of what was made, named for those who download it: without the token."""
        stem = self.path.name.rpartition("-")[0]
        return self.path / f"{stem}{part and '-' + part}{suffix}"

    def save_guide(self, event: ControlMaps | ClipFrames) -> Guide:
        """Write what shapes the video."""
        part = "control-map" if isinstance(event, ControlMaps) else "clip"
        return Guide(Video(event.frames, self.job.request.fps, {}).save(self.file(PLAYABLE, part)))

    def check_room(self) -> None:
        """Raise UserError where the video could not be written, before hours are spent on it."""
        check_destination(self.file(PLAYABLE))
        check_space(self.job, self.path)

    def save(self, video: Video, forms: tuple[str, ...]) -> Iterator[Stored | Notice]:
        """Write a video in several forms, named by suffix; yields after each.

        A form beyond the first that cannot be written is told, and takes the others away from nobody.
        """
        settings = video.settings
        if not self.with_settings:
            video = dataclasses.replace(video, settings={})
        first, *others = forms
        told: list[str] = []
        files = {first: save_or_keep_frames(video, self.file(first), told.append)}
        yield Stored(dict(files), settings)
        yield from map(Notice, told)
        try:
            self.save_poster(video.frames[len(video.frames) // 2])
            if self.with_settings:
                with readable_errors(self.path / SETTINGS):
                    _write_json(self.path / SETTINGS, settings)
        except UserError as error:
            yield Notice(f"Poster and settings beside the video are not kept: {error}")
        for form in others:
            try:
                write = video.save_last_frame if form == LAST_FRAME else video.save
                files[form] = write(self.file(form))
            except UserError as error:
                yield Notice(f"The video is there, but not as {FORMS[form]}: {error}")
            else:
                yield Stored(dict(files), settings)

    def save_poster(self, frame: np.ndarray) -> None:
        """Write a frame (h, w, 3) as the poster."""
        picture = Image.fromarray(frame)
        picture.thumbnail((POSTER_SIDE, POSTER_SIDE))
        with readable_errors(self.poster), renamed_when_whole(self.poster) as temporary:
            picture.save(temporary, "JPEG", quality=85)

    def save_state(self, state: State) -> None:
        """Write how the job stands; its steps go with its end, and where it is not to be kept, what was asked."""
        name = next((name for name, end in ENDS.items() if isinstance(state, end)), "unfinished")
        told = dataclasses.asdict(state) if name in ENDS else {}
        facts = {"state": name, **told, "keep_seconds": self.keep_seconds}
        _write_json(self.path / STATE, facts)
        if name not in ENDS:
            return
        shutil.rmtree(self.steps, ignore_errors=True)
        if not self.with_settings:
            (self.path / REQUEST).unlink(missing_ok=True)

    @property
    def is_over_age(self) -> bool:
        """Whether the job has been here for as long as it was to stay."""
        return _is_over_age(self.path / STATE)

    def touch(self) -> None:
        """Count its age from now."""
        with suppress(OSError):  # it went; the job tells so when its turn comes
            (self.path / STATE).touch()

    def standing(self) -> Standing:
        """How the job stands, as the files tell: of one that is not over, that the program ended before it.

        Raises OSError, ValueError, KeyError or TypeError where they are damaged.
        """
        facts = _read_json(self.path / STATE)
        facts.pop("keep_seconds", None)
        end = ENDS.get(facts.pop("state"))
        guides = [path for part in ("control-map", "clip") if (path := self.file(PLAYABLE, part)).is_file()]
        files = {form: path for form in FORMS if (path := self.file(form)).is_file()}
        return Standing(
            state=end(**facts) if end else Interrupted(),
            guide=Guide(guides[0]) if guides else None,
            stored=Stored(files, self._settings()) if PLAYABLE in files else None,
        )

    def _settings(self) -> dict[str, Any]:
        """How the video was made; nothing where that was not kept."""
        path = self.path / SETTINGS
        return _read_json(path) if path.is_file() else {}

    def claim(self) -> int | None:
        """Lock the job against other programs; None where one has it. The lock goes with the descriptor.

        Where the file system has no locks the job is taken all the same, as `JobStore` has told.
        """
        descriptor = os.open(self.path / REQUEST, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:  # a file system without locks, as some of a network are
            pass
        return descriptor


class JobStore:
    """A folder with a folder for each job.

    It touches folders that look like a job's own and hold a job's record, and nothing else, so that several programs
    and their users can share it.
    """

    def __init__(self, folder: Path, *, keep_settings: bool = True, keep_seconds: float | None = None) -> None:
        """Make the folder if there is none.

        keep_settings: whether prompt and settings are written into the files.
        keep_seconds: age at which jobs are removed; None keeps them for good.
        """
        self.folder = folder
        self._keep_settings = keep_settings
        self._keep_seconds = keep_seconds
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:  # rather now than after the first computation
            try:
                fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                LOG.warning("%s has no locks (%s): no other program may work in it meanwhile.", folder, error.strerror)

    def add(self, job: Job, owner: str = "") -> JobFolder:
        """A folder for a new job, whole from the first moment, with copies of clip and picture, if they are files."""
        self.remove_old()
        name = f"{job.request.task}-{time.strftime('%Y%m%d-%H%M%S')}-{job.id}"
        path, unready, began = self.folder / name, self.folder / f".{job.id}", time.time()
        with readable_errors(path):
            check_space(job, self.folder)
            try:
                unready.mkdir()
                job = _with_own_files(job, unready, path.resolve())
                made = JobFolder(unready, job, owner, began, self._keep_settings, self._keep_seconds)
                made.save_state(Queued())
                _write_json(unready / REQUEST, {"owner": owner, "began": began, **_as_json(job)})
                return dataclasses.replace(made, path=unready.rename(path))
            except OSError:
                shutil.rmtree(unready, ignore_errors=True)
                raise

    def tidy(self) -> None:
        """Remove what programs were writing when they were killed; where another one is at work all stays."""
        for path in self.folder.iterdir():
            with suppress(OSError):  # another program may be removing it
                if FOLDER_NAME.fullmatch(path.name) and (path / STATE).is_file():
                    with _claimed(path) as is_free:
                        if is_free:
                            remove_unfinished(path)
                elif UNREADY_NAME.fullmatch(path.name) and time.time() - path.stat().st_mtime > HOUR:
                    shutil.rmtree(path, ignore_errors=True)

    def jobs(self) -> list[tuple[JobFolder, Standing]]:
        """All jobs whose record can be read, and how they stand; the oldest first."""
        found = [self._read(path) for path in self.folder.iterdir() if FOLDER_NAME.fullmatch(path.name)]
        return sorted((job for job in found if job), key=lambda job: job[0].began)

    def remove(self, folder: JobFolder) -> None:
        """Remove a job with all that was made of it."""
        shutil.rmtree(folder.path, ignore_errors=True)  # a player may hold a file open

    def remove_old(self) -> None:
        """Remove the jobs that have been here for as long as they were to stay, unless a program has them."""
        if self._keep_seconds is None:
            return
        for path in self.folder.iterdir():
            if FOLDER_NAME.fullmatch(path.name) and _is_over_age(path / STATE):
                with _claimed(path) as is_free:
                    if is_free:
                        shutil.rmtree(path, ignore_errors=True)

    def _read(self, path: Path) -> tuple[JobFolder, Standing] | None:
        """The job of a folder; None where its record is missing, damaged, or of another version."""
        try:
            asked, keep_seconds = _read_json(path / REQUEST), _read_json(path / STATE)["keep_seconds"]
            job = _from_json(asked)
            folder = JobFolder(path, job, asked["owner"], float(asked["began"]), self._keep_settings, keep_seconds)
            return folder, folder.standing()
        except (OSError, ValueError, KeyError, TypeError, UserError):
            return None


def check_space(job: Job, folder: Path) -> None:
    """Raise UserError where a disk has less room than a job's frames take, in the folder and until they are saved."""
    needed = job.request.frames_played * pixels(job) * 3
    for place in (folder, Path(tempfile.gettempdir())):
        free = shutil.disk_usage(place).free
        if free < needed:
            raise UserError(
                f"The video may need {needed / MB:.0f} MB, and the disk has {free / MB:.0f} MB left in {place}: "
                "free some, or ask for fewer frames or a smaller size."
            )


@contextmanager
def _claimed(path: Path) -> Generator[bool]:
    """Whether no program has the job of a folder; none takes it while this is open."""
    try:
        descriptor = os.open(path / REQUEST, os.O_RDONLY)
    except OSError:  # it is over, and what was asked is not kept
        yield True
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_free = True
    except OSError as error:
        is_free = not isinstance(error, BlockingIOError)  # some file systems have no locks
    try:
        yield is_free
    finally:
        os.close(descriptor)


def _is_over_age(state: Path) -> bool:
    """Whether a job may go: only one that was made to go, by a record that can be read."""
    try:
        keep_seconds = _read_json(state)["keep_seconds"]
        return keep_seconds is not None and time.time() - state.stat().st_mtime > keep_seconds
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _with_own_files(job: Job, folder: Path, later: Path) -> Job:
    """The job with copies of the files that it begins with, which the browser's upload may not outlive.

    folder: where the copies go now.  later: the name of that folder when the job begins.
    """
    copies: dict[str, Any] = {}
    for field, path in job.request.files.items():
        if (given := Path(path)).is_file():
            (folder / field).mkdir()
            shutil.copyfile(given, folder / field / given.name)
            copies[field] = str(later / field / given.name)
    return dataclasses.replace(job, request=dataclasses.replace(job.request, **copies)) if copies else job


def _as_json(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "task": job.request.task,
        "request": job.request.to_dict(),
        "checkpoint": dataclasses.asdict(job.checkpoint),
        "maps_only": job.maps_only,
        "weights": job.weights,
        "picture": job.picture,
    }


def _from_json(asked: dict[str, Any]) -> Job:
    checkpoint = asked["checkpoint"] | {"adapters": tuple(Adapter(**one) for one in asked["checkpoint"]["adapters"])}
    request = REQUESTS[asked["task"]].from_dict(asked["request"])
    return Job(
        request, Checkpoint(**checkpoint), asked["maps_only"], asked["weights"], asked.get("picture", ""), asked["id"]
    )


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, facts: dict[str, Any]) -> None:
    with renamed_when_whole(path) as temporary:
        temporary.write_text(json.dumps(facts, ensure_ascii=False, indent=1), encoding="utf-8", errors="replace")

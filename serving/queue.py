"""The queue: jobs that belong to workers of this process, whoever watches them, and what became of earlier ones."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import threading
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

from serving.completion import complete
from serving.estimates import Clock, Pace
from serving.jobs import Done, Failed, Interrupted, Queued, Running, Standing, Stopped, Stopping, explained
from serving.line import Entry, WaitingLine
from serving.store import FORMS
from serving.visitors.folders import without_folders
from serving.visitors.limits import Asked
from serving.visitors.listeners import Listeners
from serving.visitors.presence import Presence
from text2video_zero.errors import UserError
from text2video_zero.events import Notice, Progress

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Sequence

    from serving.jobs import Runner, State
    from serving.store import JobStore
    from serving.visitors.limits import Limits
    from text2video_zero.job import Job

LOG = logging.getLogger(__name__)

MOST_UNFINISHED = 200
"""Jobs in the queue, of everybody together."""

LOOK_AGAIN_SECONDS = 0.1
"""How often somebody who watches a job looks whether there is news."""

PROGRESS_SECONDS = 0.5
"""How often somebody who watches a job is told how far it is.

A page that gets more news than it can draw falls behind without end: it still shows steps of a job that was stopped
long ago, over the video of the next one.
"""


class JobQueue:
    """Jobs one after the other on the workers of a runner, in turn for each visitor; they outlive whoever asked.

    Those of one owner are seen by that owner alone; where one person serves the page for herself the owner is blank.
    """

    def __init__(
        self,
        runner: Runner,
        store: JobStore,
        pace: Pace | None = None,
        *,
        patience: float | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Nothing runs before `open`; jobs can be submitted before.

        pace: how fast this machine is known to be.
        patience: seconds that a job goes on when its owner has left and nobody watches it; None is for ever.
        limits: of one visitor; None where the page is one's own.
        """
        self.runner = runner
        self._store = store
        self.pace = pace or Pace()
        self._patience = patience
        self.limits = limits
        self.listeners = Listeners()
        self.presence = Presence()
        self._asked = Asked()
        self._entries: dict[str, Entry] = {}  # by the job's id, in the order in which they were asked for
        self._line = WaitingLine()
        self._changed = threading.Condition()
        self._workers: list[threading.Thread] = []
        self._closed = False

    def open(self) -> None:
        """Find the jobs of earlier programs, and start working."""
        self._store.tidy()
        earlier: dict[str, Entry] = {}
        for folder, standing in self._store.jobs():
            entry = Entry(folder, tuple(FORMS), standing)
            if isinstance(entry.standing.state, Interrupted):
                entry.lock = folder.claim()
                if entry.lock is None:
                    continue  # another program's, which is at it
            earlier[folder.job.id] = entry
        with self._changed:
            self._entries = earlier | self._entries
        self._workers = [threading.Thread(target=self._work, daemon=True) for _ in range(self.runner.slots)]
        for worker in self._workers:
            worker.start()

    def close(self) -> None:
        """Stop what runs, and wait until it has stopped; what waits is found by the next program."""
        with self._changed:
            self._closed = True
            for entry in self._entries.values():
                entry.stop_asked.set()
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def submit(self, job: Job, owner: str = "", forms: tuple[str, ...] = tuple(FORMS), *, address: str = "") -> Entry:
        """Put a job into the queue; raises UserError where it is too large, or no room for it, here or on the disk."""
        if self.limits:
            self.limits.check(job)
        self._check_room(owner, address)
        self._keep_unfinished()
        entry = Entry(self._store.add(job, owner), forms, address=address)
        try:
            with self._changed:
                self._drop_forgotten()
                self._check_room(owner, address)  # while the clip was copied, others came
                entry.lock = entry.folder.claim()
                self._entries[job.id] = entry
                if self.limits:
                    self._asked.note(owner)
                    self._asked.note(address)
                self._line_up(entry)
        except UserError:
            self._store.remove(entry.folder)
            raise
        return entry

    def _keep_unfinished(self) -> None:
        """The store may not forget a job that waits or runs, however long, but one that was cut off a while ago."""
        for entry in list(self._entries.values()):
            if not entry.standing.is_over:
                entry.folder.touch()
            elif entry.lock is not None and entry.folder.is_over_age:
                with self._changed:
                    self._release(entry)

    def _drop_forgotten(self) -> None:
        """Let go of the jobs that the store has forgotten."""
        for entry in list(self._entries.values()):
            if entry.standing.is_over and not entry.folder.path.is_dir():
                del self._entries[entry.job.id]
                self._release(entry)

    def _check_room(self, owner: str, address: str) -> None:
        if self.room(owner, address) < 1:
            raise UserError("The queue takes no more of yours now: wait a minute, or until some videos are made.")

    def told(self, sentence: str) -> str:
        """A sentence as people may read it: strangers learn no folder of this machine."""
        return without_folders(sentence, [self._store.folder.resolve()]) if self.limits else sentence

    def room(self, owner: str, address: str = "") -> int:
        """How many more jobs the queue takes now of an owner, who asks from an address."""
        with self._changed:
            self._stop_forsaken()
            unfinished = [entry for entry in self._entries.values() if not entry.standing.is_over]
            room = MOST_UNFINISHED - len(unfinished)
            if self.limits is None:
                return room
            theirs = [(owner, 1, [entry.owner for entry in unfinished])]
            theirs += [(address, self.limits.neighbours, [entry.address for entry in unfinished])] if address else []
            for who, share, waiting in theirs:
                in_queue = share * self.limits.waiting - waiting.count(who)
                room = min(room, in_queue, share * self.limits.minute - self._asked.within_a_minute(who))
            return room

    def find(self, job_id: str, owner: str) -> Entry | None:
        """An owner's job by its id."""
        entry = self._entries.get(job_id)
        return entry if entry and entry.owner == owner else None

    def of(self, owner: str) -> list[Entry]:
        """An owner's jobs, the newest first."""
        with self._changed:
            own = [entry for entry in reversed(self._entries.values()) if entry.owner == owner]
        return [entry for entry in own if entry.folder.path.is_dir()]  # the store forgets some after a while

    def waiting(self, owner: str) -> list[Entry]:
        """An owner's jobs that have not begun, the next one first."""
        with self._changed:
            return self._line.of(owner)

    def is_paused(self, owner: str) -> bool:
        """Whether an owner's waiting jobs do not begin for now."""
        return self._line.is_paused(owner)

    def pause(self, owner: str) -> None:
        """Let none of an owner's waiting jobs begin until `resume`; what runs goes on."""
        with self._changed:
            self._line.pause(owner)

    def resume(self, owner: str) -> None:
        """Let an owner's waiting jobs begin again."""
        with self._changed:
            self._line.resume(owner)
            self._changed.notify_all()

    def empty(self, owner: str) -> None:
        """Take all of an owner's waiting jobs out of the queue."""
        for entry in self.waiting(owner):
            self.stop(entry)

    def prefer(self, entry: Entry) -> None:
        """Make a waiting job the next one of its visitor's."""
        with self._changed:
            if entry in self._line:
                self._line.prefer(entry)

    def foremost(self, entries: Sequence[Entry]) -> Entry:
        """Of some jobs one that is over, else one that runs, else the one whose turn comes first."""
        with self._changed:
            return min(entries, key=lambda entry: (not entry.standing.is_over, self._line.number(entry)))

    def place(self, entry: Entry) -> int | None:
        """How many jobs come before one that waits, those that run counted; None while its owner has paused it."""
        with self._changed:
            running = sum(isinstance(other.standing.state, Running | Stopping) for other in self._entries.values())
            before = self._line.before(entry) if entry in self._line else 0
            return None if before is None else running + before

    def stop(self, entry: Entry) -> None:
        """Take a job out of the queue, or stop it within a step."""
        with self._changed:
            if waits := entry in self._line:
                self._line.remove(entry)
            elif isinstance(entry.standing.state, Running):
                entry.stop_asked.set()
                entry.standing = dataclasses.replace(entry.standing, state=Stopping())
        if waits:
            self._end(entry, Stopped())

    def go_on(self, entry: Entry) -> None:
        """Go on with a job that an earlier program did not finish, after the last step that is kept of it."""
        with self._changed:
            if isinstance(entry.standing.state, Interrupted):
                entry.standing, entry.seen = Standing(), time.monotonic()
                self._line_up(entry)

    def remove(self, entry: Entry) -> None:
        """Forget a job that is over, and remove all that was made of it."""
        with self._changed:
            if not entry.standing.is_over:
                return
            self._entries.pop(entry.job.id, None)
            self._release(entry)
        self._store.remove(entry.folder)

    def _stop_forsaken(self) -> None:
        """Take out what waits for nobody: a turn that its owner has paused never comes, nor tells that she has left."""
        for entry in self._line.all():
            if self._is_forsaken(entry):
                self.stop(entry)

    async def watched(
        self, entry: Entry, wanted: Callable[[], bool] = lambda: True
    ) -> AsyncGenerator[tuple[Standing, int | None]]:
        """How a job stands and its `place`, whenever either changes, until it is over.

        What a job is at comes at once; how far it is, and its previews, at most each `PROGRESS_SECONDS`.

        wanted: asked again and again; it ends earlier when nobody wants the news any longer.
        """
        shown, gist, shown_at = None, None, 0.0
        with self.awaited([entry]):
            while wanted():
                standing = entry.standing
                place = self.place(entry) if isinstance(standing.state, Queued) else 0
                now = type(standing.state), standing.notes, standing.guide, standing.stored, place
                is_due = standing is not shown and time.monotonic() - shown_at >= PROGRESS_SECONDS
                if is_due or now != gist:
                    yield standing, place
                    shown, gist, shown_at = standing, now, time.monotonic()
                if standing.is_over:
                    return
                await asyncio.sleep(LOOK_AGAIN_SECONDS)

    @contextmanager
    def awaited(self, entries: Sequence[Entry]) -> Generator[None]:
        """While it is open, somebody waits for all of these jobs, also for those whose turn has not come."""
        for entry in entries:
            entry.watchers += 1
        try:
            yield
        finally:
            for entry in entries:
                entry.watchers -= 1
                entry.seen = time.monotonic()
                self._drop_preview(entry)

    def _line_up(self, entry: Entry) -> None:
        self._line.add(
            entry, [other for other in self._entries.values() if other is not entry and not other.standing.is_over]
        )
        self._changed.notify()

    def _is_forsaken(self, entry: Entry) -> bool:
        """Whether nobody has waited for a job for longer than this queue is patient, and its owner is not here."""
        if self._patience is None or entry.watchers:
            return False
        since = time.monotonic() - self._patience
        return entry.seen < since and self.presence.seen(entry.owner) < since

    def _work(self) -> None:
        while (entry := self._next()) is not None:
            began = time.monotonic()
            try:
                ended = self._run(entry)
            except Exception as error:  # noqa: BLE001 - a worker outlives whatever a job does
                self._end(entry, Failed(self.told(explained(error))))
            else:
                self._end(entry, Done(time.monotonic() - began) if ended else Stopped())

    def _next(self) -> Entry | None:
        with self._changed:
            self._changed.wait_for(lambda: self._line.due() or self._closed)
            entry = self._line.due()
            if self._closed or entry is None:
                return None
            self._line.begin(entry)
            entry.standing = dataclasses.replace(entry.standing, state=Running(Progress("Starting", 0, 1)))
            return entry

    def _run(self, entry: Entry) -> bool:
        """Run a job; returns whether it came to its end. A video that is there is kept, even if Stop was pressed."""
        clock, goes_on = Clock(), entry.folder.steps.exists()
        with closing(complete(entry.job, self.runner, entry.folder, entry.forms, self.limits)) as events:
            for event in events:
                clock.hear(event)
                with self._changed:
                    saving = isinstance(event, Progress) and event.stage == "Saving"
                    if not saving and entry.standing.stored is None:
                        if self.limits:
                            self.limits.check_time(clock.seconds)
                        if entry.stop_asked.is_set() or self._is_forsaken(entry):
                            break
                    shown = Notice(self.told(event.text)) if isinstance(event, Notice) else event
                    entry.standing = entry.standing.after(shown)
            else:
                if clock.seconds and not (clock.by_several or entry.job.maps_only or goes_on):
                    self.pace.learn(entry.job, clock.seconds)
                return True
        if entry.standing.preview is not None:
            with suppress(UserError):  # a full disk makes no failure of Stop
                entry.folder.save_poster(entry.standing.preview.frames[0])
        return False

    def _end(self, entry: Entry, state: State) -> None:
        """Write down, without the lock that pages want, how a job ended; one that ends with the program is left."""
        is_left = self._closed and isinstance(state, Stopped)
        if not is_left:
            try:
                entry.folder.save_state(state)
            except OSError as error:
                LOG.warning("How %s ended could not be written down: %s", entry.folder.path, error)
        with self._changed:
            if not is_left:
                self._release(entry)
            entry.standing = dataclasses.replace(entry.standing, state=state)
            self._drop_preview(entry)

    def _drop_preview(self, entry: Entry) -> None:
        """Keep no preview of a job that is over once nobody looks at it: they are megabytes, of each job of a day."""
        with self._changed:
            if entry.standing.is_over and not entry.watchers:
                entry.standing = dataclasses.replace(entry.standing, preview=None)

    def _release(self, entry: Entry) -> None:
        if entry.lock is not None:
            os.close(entry.lock)
            entry.lock = None

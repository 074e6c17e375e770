"""Jobs of the queue and who comes next: visitors take turns, and each has her own in the order that she likes."""

from __future__ import annotations

import bisect
import itertools
import threading
import time
from typing import TYPE_CHECKING

from serving.jobs import Standing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serving.store import JobFolder
    from text2video_zero.job import Job


class Entry:
    """A job of the queue and how it stands.

    forms: in which a finished video is kept.  standing: replaced as a whole, by the queue alone.
    address: from which it was asked for, blank where that does not matter.
    turn: the round in which it is made; in each round every visitor has one job.
    watchers: how many wait for it.  seen: when somebody last did, in seconds of the monotonic clock.
    """

    def __init__(
        self, folder: JobFolder, forms: tuple[str, ...], standing: Standing | None = None, address: str = ""
    ) -> None:
        self.folder = folder
        self.forms = forms
        self.standing = standing or Standing()
        self.address = address
        self.turn = 0
        self.watchers = 0
        self.seen = time.monotonic()
        self.stop_asked = threading.Event()
        self.lock: int | None = None  # file descriptor, while the job is this program's to finish

    @property
    def job(self) -> Job:
        """What was asked."""
        return self.folder.job

    @property
    def owner(self) -> str:
        """Who alone sees it; blank where one person serves the page for herself."""
        return self.folder.owner

    @property
    def visitor(self) -> str:
        """Who has a place of her own in each round: all of one address together, since a name costs nothing."""
        return self.address or self.owner


class WaitingLine:
    """Jobs that have not begun. Whoever has it locks it.

    Start-time fair queueing: each job of a visitor stands one round behind the one before it, and the least round is
    next.
    """

    def __init__(self) -> None:
        self._entries: list[Entry] = []  # in the order in which they are made
        self._paused: set[str] = set()  # owners whose jobs do not begin
        self._round = 0

    def __contains__(self, entry: Entry) -> bool:
        """Whether a job waits."""
        return entry in self._entries

    def add(self, entry: Entry, unfinished: Iterable[Entry]) -> None:
        """Let a job wait for its turn, one round after the latest of its visitor's that are not over."""
        entry.turn = max([self._round, *(other.turn + 1 for other in unfinished if other.visitor == entry.visitor)])
        bisect.insort(self._entries, entry, key=lambda waiting: waiting.turn)

    def remove(self, entry: Entry) -> None:
        """A job waits no longer."""
        self._entries.remove(entry)
        if not self.of(entry.owner):  # nothing is left to be paused
            self._paused.discard(entry.owner)

    def due(self) -> Entry | None:
        """The job that comes next; None where none may begin."""
        return next((entry for entry in self._entries if not self.is_paused(entry.owner)), None)

    def begin(self, entry: Entry) -> None:
        """A job's turn has come."""
        self.remove(entry)
        self._round = max(self._round, entry.turn)

    def all(self) -> list[Entry]:
        """Everybody's jobs, the next one first."""
        return list(self._entries)

    def of(self, owner: str) -> list[Entry]:
        """An owner's jobs, the next one first."""
        return [entry for entry in self._entries if entry.owner == owner]

    def before(self, entry: Entry) -> int | None:
        """How many jobs wait before one; None while its owner has paused it."""
        return None if self.is_paused(entry.owner) else self.number(entry)

    def number(self, entry: Entry) -> int:
        """Where a job stands, from 0; -1 for one that does not wait."""
        return self._entries.index(entry) if entry in self._entries else -1

    def prefer(self, entry: Entry) -> None:
        """Make a job the next of its visitor's, in their turn: nobody else waits longer for it."""
        places = [number for number, other in enumerate(self._entries) if other.visitor == entry.visitor]
        turns = [self._entries[number].turn for number in places]
        order = sorted((self._entries[number] for number in places), key=lambda other: other is not entry)
        for number, turn, other in zip(places, turns, order, strict=True):
            other.turn, self._entries[number] = turn, other

    def is_paused(self, owner: str) -> bool:
        """Whether an owner's jobs do not begin for now."""
        return owner in self._paused

    def pause(self, owner: str) -> None:
        """Let none of an owner's jobs begin until `resume`; others' do not wait for that."""
        if self.of(owner):
            self._paused.add(owner)

    def resume(self, owner: str) -> None:
        """Let an owner's jobs begin again, each in its turn; those that have passed are not saved up."""
        self._paused.discard(owner)
        placed = [entry for entry in self._entries if entry.owner != owner]
        for entry in self.of(owner):
            taken = {other.turn for other in placed if other.visitor == entry.visitor}
            entry.turn = next(turn for turn in itertools.count(max(entry.turn, self._round)) if turn not in taken)
            placed.append(entry)
        self._entries.sort(key=lambda waiting: waiting.turn)

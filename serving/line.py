"""Who comes next: visitors take turns, and each has her own jobs in the order that she likes."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class Waiting(Protocol):
    """What waits: whose it is, who has asked for it as far as turns go, and in which round its turn comes."""

    turn: int

    @property
    def owner(self) -> str:
        """The owner, who alone sees it."""
        ...

    @property
    def visitor(self) -> str:
        """Who takes turns: an owner by any of her names."""
        ...


Entry = TypeVar("Entry", bound=Waiting)


class WaitingLine(Generic[Entry]):
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
        self._round = entry.turn

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
        """Let an owner's jobs begin again, each in its turn."""
        self._paused.discard(owner)

"""Who is here: a page that is open says so by its heartbeat, and what is asked on it tells whose it is."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

FORGET_SECONDS = 3600
"""How long it is known whose a session was that has no page open."""


@dataclass
class Session:
    """A page in a browser, or what a program calls so.

    owner: whose it is, blank while that is not known.  beats: connections that say that it is there.
    seen: when it was last there, in seconds of the monotonic clock.
    """

    owner: str = ""
    beats: int = 0
    seen: float = field(default_factory=time.monotonic)


class Presence:
    """Which sessions are there, and whose they are.

    Presence is a visitor's and not a job's: who looks at an earlier video waits for the running ones all the same.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def note(self, session: str, owner: str) -> None:
        """An owner asks something in a session."""
        with self._lock:
            found = self._session(session)
            found.owner, found.seen = owner, time.monotonic()

    @contextmanager
    def beating(self, session: str) -> Generator[None]:
        """While it is open, a session is there."""
        with self._lock:
            self._session(session).beats += 1
        try:
            yield
        finally:
            with self._lock:
                found = self._session(session)
                found.beats, found.seen = found.beats - 1, time.monotonic()

    def is_there(self, session: str) -> bool:
        """Whether a session has its page open."""
        with self._lock:
            return session in self._sessions and self._sessions[session].beats > 0

    def seen(self, owner: str) -> float:
        """When any of an owner's sessions was last there, in seconds of the monotonic clock.

        Infinite while one is; -infinite for who was not seen of late.
        """
        with self._lock:
            theirs = [session for session in self._sessions.values() if session.owner == owner]
            return max((inf if session.beats else session.seen for session in theirs), default=-inf)

    def _session(self, name: str) -> Session:
        """A session by its name; who was not there for long is forgotten."""
        since = time.monotonic() - FORGET_SECONDS
        self._sessions = {key: one for key, one in self._sessions.items() if one.beats or one.seen > since}
        return self._sessions.setdefault(name, Session())

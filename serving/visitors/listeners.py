"""Who listens: the sessions that news of their jobs reaches."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

GRACE_SECONDS = 10
"""How long somebody may be between asking and listening, or between two connections, and still be listening."""


class Listeners:
    """Which sessions of a page have a connection open by which news of their jobs reaches them."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._left: dict[str, float] = {}
        self._lock = threading.Lock()

    def hears(self, session: str, since: float) -> bool:
        """Whether a session listens, or did a moment ago.

        since: when it asked, in seconds of the monotonic clock; from then on it has a moment to begin.
        """
        with self._lock:
            if self._open[session]:
                return True
            del self._open[session]
            return time.monotonic() - max(since, self._left.get(session, 0.0)) < GRACE_SECONDS

    @contextmanager
    def listening(self, session: str) -> Generator[None]:
        """While it is open, a session listens."""
        with self._lock:
            self._open[session] += 1
        try:
            yield
        finally:
            now = time.monotonic()
            with self._lock:
                self._open[session] -= 1
                self._left = {who: left for who, left in self._left.items() if now - left < GRACE_SECONDS}
                self._left[session] = now

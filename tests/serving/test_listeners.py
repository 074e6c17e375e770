"""Who is taken to be there still."""

from __future__ import annotations

import time

from serving.visitors.listeners import GRACE_SECONDS, Listeners


def test_who_listens_is_told_from_who_does_not(monkeypatch):
    listeners = Listeners()
    now = time.monotonic()
    assert listeners.hears("ann", since=now)  # she has just asked
    assert not listeners.hears("ann", since=now - GRACE_SECONDS)
    with listeners.listening("ann"), listeners.listening("ann"):
        assert listeners.hears("ann", since=0)
    assert listeners.hears("ann", since=0)  # a connection that breaks is opened again
    monkeypatch.setattr("serving.visitors.listeners.GRACE_SECONDS", 0)
    assert not listeners.hears("ann", since=0)
    with listeners.listening("bob"):
        pass
    assert set(listeners._left) == {"bob"}
    assert listeners._open.total() == 0

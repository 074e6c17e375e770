"""Who is here: by any of her pages, as long as it says so, and not for ever after."""

from __future__ import annotations

import time
from math import inf

from serving.visitors import presence as presence_module
from serving.visitors.presence import Presence


def test_an_owner_is_here_while_any_of_her_pages_is_open():
    presence = Presence()
    presence.note("first", "ann")
    noted = presence.seen("ann")
    assert noted <= time.monotonic()
    with presence.beating("second"):
        assert presence.is_there("second")
        assert presence.seen("ann") == noted  # nobody knows yet whose it is
        presence.note("second", "ann")
        with presence.beating("second"):
            pass
        assert presence.seen("ann") == inf
        assert presence.seen("bob") == -inf
    assert not presence.is_there("second")
    assert noted < presence.seen("ann") <= time.monotonic()


def test_sessions_are_forgotten_after_a_while_and_those_that_are_there_are_not(monkeypatch):
    presence = Presence()
    monkeypatch.setattr(presence_module, "FORGET_SECONDS", 0)
    presence.note("hers", "ann")
    with presence.beating("his"):
        presence.note("his", "bob")
        presence.note("another", "eve")
        assert set(presence._sessions) == {"his", "another"}
        assert presence.seen("ann") == -inf
        assert presence.seen("bob") == inf

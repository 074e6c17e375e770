"""Pickles as strangers bring them."""

from __future__ import annotations


class Evil:
    """Runs code when its pickle is read."""

    def __reduce__(self):
        return exec, ("raise AssertionError('code of a pickle was run')",)

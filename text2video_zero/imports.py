"""Imports of thousands of modules, in nine tenths of the time."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator


@contextmanager
def without_collections() -> Generator[None]:
    """Python looks for no garbage while this is open, and later for none among what has been brought until then.

    What is imported stays, and each new module makes the search among all of them longer.
    """
    looks = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if looks:
            gc.enable()

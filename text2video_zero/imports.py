"""Imports of thousands of modules, in nine tenths of the time; of a PyTorch that shares the machine, and no bars."""

from __future__ import annotations

import gc
import os
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


@contextmanager
def sharing_cores() -> Generator[None]:
    """To import PyTorch in: its threads sleep while they wait for each other, unless `OMP_WAIT_POLICY` says otherwise.

    Else they turn round and round. Where something else runs on the same cores, such as a browser that draws the page,
    all threads wait for the one that it has put off, at each of thousands of operations.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read as PyTorch is loaded
    with without_collections():
        yield


def hide_bars() -> None:
    """Diffusers and transformers load without bars of their own: they break into the command line's, and fill logs."""
    import diffusers.utils.logging
    import transformers.utils.logging

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()

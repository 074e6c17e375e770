"""Generators that tell how they get on, and return what they made."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator

Value = TypeVar("Value")


def result_of(run: Generator[object, None, Value]) -> Value:
    """Run a generator to its end with nobody watching; returns what it returns."""
    while True:
        try:
            next(run)
        except StopIteration as finished:
            return finished.value

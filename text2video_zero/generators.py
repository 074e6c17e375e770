"""Generators that tell how they get on, and return what they made."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

Value = TypeVar("Value")
Item = TypeVar("Item")
Told = TypeVar("Told")


def result_of(run: Generator[Item, None, Value], tell: Callable[[Item], object] = lambda _: None) -> Value:
    """Run a generator to its end; returns what it returns. Whoever watches is told what it yields."""
    while True:
        try:
            tell(next(run))
        except StopIteration as finished:
            return finished.value


def mapped(run: Generator[Item, None, Value], tell: Callable[[Item], Told]) -> Generator[Told, None, Value]:
    """A generator in other words: it yields what `tell` makes of what it yielded, and returns what it returned."""
    while True:
        try:
            item = next(run)
        except StopIteration as finished:
            return finished.value
        yield tell(item)

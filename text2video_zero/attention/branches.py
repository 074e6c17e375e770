"""Guidance branches: how many a run has, and how many of them a batch holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass
class Branches:
    """The guidance branches of a run, shared by whoever makes its batches and whoever reads them.

    Batches are branch-major: for b branches and m frames, entry i·m + k is frame k of branch i. The prompt's own branch
    is the last.

    count: of the run: 1 without guidance, 2 with a negative prompt, 3 where a picture guides, too.
    guided: timesteps at which all of them are looked at, at others the last one alone; None for all timesteps.
    present: how many of them, from the end, the batch holds that goes through the models now.
    """

    count: int
    guided: frozenset[float] | None = None
    present: int = field(init=False)

    def __post_init__(self) -> None:
        self.present = self.count

    def at(self, timestep: float) -> int:
        """How many there are at a timestep; what comes next is a batch of these."""
        self.present = self.count if self.guided is None or timestep in self.guided else 1
        return self.present

    def in_batch(self, of_all: torch.Tensor) -> torch.Tensor:
        """Of something that each branch has, (count, …), what belongs to those of the batch."""
        return of_all[-self.present :]

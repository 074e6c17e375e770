"""From measured clips to tables: means with bootstrap intervals, and differences paired by prompt and seed."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from text2video_zero.media.files import readable_errors, renamed_when_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from text2video_zero.evaluation.measures import Column
    from text2video_zero.evaluation.study import Sample

RESAMPLES, CONFIDENCE = 2000, 0.95


@dataclass(frozen=True)
class Row:
    """One clip's numbers by name; nan for what has no answer."""

    variant: str
    sample: Sample
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval, over `count` clips; nan where there is none."""

    mean: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Self:
        """The percentile bootstrap (Efron 1979) at 95 %, with draws that are the same each time; nan is left out."""
        known = np.array([number for number in numbers if np.isfinite(number)])
        if not known.size:
            return cls(float("nan"), float("nan"), float("nan"), 0)
        drawn = np.random.default_rng(0).integers(0, known.size, (RESAMPLES, known.size))
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(known[drawn].mean(1), (tail, 1 - tail))
        return cls(float(known.mean()), float(low), float(high), known.size)

    def written(self, column: Column, *, signed: bool = False) -> str:
        """As tables show it: the mean, and the interval in small."""
        if not self.count:
            return ""
        sign = "+" if signed else ""
        mean, low, high = (f"{x * column.factor:{sign}.{column.decimals}f}" for x in (self.mean, self.low, self.high))
        return mean if self.count == 1 else f"{mean} <sub>{low}…{high}</sub>"


@dataclass(frozen=True)
class Table:
    """All clips of a study.

    columns: those that have an answer for some clip, by name.
    """

    rows: Sequence[Row]
    columns: Mapping[str, Column]

    @classmethod
    def of(cls, rows: Sequence[Row], columns: Mapping[str, Column]) -> Self:
        """Leave out columns without any answer."""
        answered = {name for row in rows for name, number in row.numbers.items() if np.isfinite(number)}
        return cls(rows, {name: column for name, column in columns.items() if name in answered})

    @property
    def variants(self) -> list[str]:
        """Their names, in order."""
        return list(dict.fromkeys(row.variant for row in self.rows))

    def numbers(self, variant: str, column: str) -> dict[Sample, float]:
        """What was measured, by sample."""
        return {row.sample: row.numbers.get(column, float("nan")) for row in self.rows if row.variant == variant}

    def estimate(self, variant: str, column: str) -> Estimate:
        """The mean over a variant's clips."""
        return Estimate.of(list(self.numbers(variant, column).values()))

    def difference(self, variant: str, reference: str, column: str) -> Estimate:
        """The mean over the differences of clips of one prompt and seed."""
        there, here = self.numbers(reference, column), self.numbers(variant, column)
        return Estimate.of([here[sample] - there[sample] for sample in here if sample in there])

    def markdown(self, reference: str) -> str:
        """Means, and differences from the reference if it is one of the variants."""
        parts = [self._grid(lambda variant, name: self.estimate(variant, name).written(self.columns[name]))]
        if reference in self.variants:
            others = [variant for variant in self.variants if variant != reference]
            paired = self._grid(
                lambda variant, name: self.difference(variant, reference, name).written(
                    self.columns[name], signed=True
                ),
                others,
            )
            parts.append(f"Differences from *{reference}*, paired by prompt and seed:\n\n{paired}")
        parts.append("\n".join(f"* **{column.title}**: {column.help}" for column in self.columns.values()))
        return "\n\n".join(parts) + "\n"

    def _grid(self, cell: Callable[[str, str], str], variants: Sequence[str] | None = None) -> str:
        titles = [f"{column.title} {column.better}".strip() for column in self.columns.values()]
        lines = [f"| variant | {' | '.join(titles)} |", "|---|" + "---|" * len(titles)]
        for variant in self.variants if variants is None else variants:
            cells = [cell(variant, name) for name in self.columns]
            lines.append(f"| {variant} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def save_csv(self, path: Path) -> None:
        """A line for each clip, numbers as they were measured."""
        with (
            readable_errors(path),
            renamed_when_whole(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["variant", "prompt", "seed", *self.columns])
            for row in self.rows:
                numbers = [row.numbers.get(name, float("nan")) for name in self.columns]
                writer.writerow([row.variant, row.sample.prompt, row.sample.seed, *numbers])

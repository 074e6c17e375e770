"""What a study looks like: contact sheets of the variants side by side, and plots where matplotlib is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from text2video_zero.media.files import readable_errors, renamed_when_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

    from text2video_zero.evaluation.report import Table

TITLE_HEIGHT = 18
WIDEST_SHEET = 4096


def save_sheet(strips: Mapping[str, np.ndarray], path: Path) -> None:
    """Clips (f, h, w, 3) by name, each a row of frames below its name."""
    rows = []
    for name, frames in strips.items():
        title = Image.new("RGB", (len(frames) * frames.shape[2], TITLE_HEIGHT), "white")
        ImageDraw.Draw(title).text((4, 2), name, fill="black", font=ImageFont.load_default(13))
        rows += [np.asarray(title), np.concatenate(list(frames), axis=1)]
    widest = max(row.shape[1] for row in rows)
    sheet = Image.fromarray(
        np.concatenate([np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0)), constant_values=255) for row in rows])
    )
    if sheet.width > WIDEST_SHEET:
        sheet = sheet.resize((WIDEST_SHEET, sheet.height * WIDEST_SHEET // sheet.width), Image.Resampling.LANCZOS)
    with readable_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with renamed_when_whole(path) as temporary:
            sheet.save(temporary)


def plots_can_be_drawn() -> bool:
    """Whether matplotlib is installed, which the app itself does not need."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def save_plots(table: Table, folder: Path) -> list[Path]:
    """Bars of every column with their intervals, and steadiness against movement; matplotlib must be installed."""
    from matplotlib.figure import Figure

    bars = Figure(figsize=(12, 2.6 * -(-len(table.columns) // 3)), layout="constrained")
    grid = bars.subplots(-(-len(table.columns) // 3), 3, squeeze=False).ravel()
    for axes, name in zip(grid, table.columns, strict=False):
        _draw_bars(axes, table, name)
    for axes in grid[len(table.columns) :]:
        axes.set_axis_off()
    figures = {"bars.png": bars}
    if {"warp_error", "speed"} <= set(table.columns):
        figures["steadiness.png"] = against = Figure(figsize=(7, 5), layout="constrained")
        _draw_against(against.subplots(), table, "speed", "warp_error")
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        with readable_errors(folder / name), renamed_when_whole(folder / name) as temporary:
            figure.savefig(temporary, dpi=120)
    return [folder / name for name in figures]


def _draw_bars(axes: Axes, table: Table, name: str) -> None:
    column = table.columns[name]
    found = [(variant, table.estimate(variant, name)) for variant in table.variants]
    found = [(variant, estimate) for variant, estimate in found if estimate.count]
    means = np.array([estimate.mean for _, estimate in found]) * column.factor
    ends = np.array([[estimate.low, estimate.high] for _, estimate in found]).T * column.factor
    errors = np.maximum([means - ends[0], ends[1] - means], 0)
    axes.barh([variant for variant, _ in found], means, xerr=errors, color="#7a9e9f", capsize=3)
    axes.invert_yaxis()
    axes.set_title(f"{column.title} {column.better}", fontsize=10)
    axes.tick_params(labelsize=8)


def _draw_against(axes: Axes, table: Table, across: str, up: str) -> None:
    """One point per variant with its intervals: low and to the right is good."""
    columns = table.columns[across], table.columns[up]
    for variant in table.variants:
        found = [table.estimate(variant, name) for name in (across, up)]
        if all(estimate.count for estimate in found):
            (x, left, right), (y, low, high) = (
                (e.mean * c.factor, (e.mean - e.low) * c.factor, (e.high - e.mean) * c.factor)
                for e, c in zip(found, columns, strict=True)
            )
            errors = np.maximum([[left], [right]], 0), np.maximum([[low], [high]], 0)
            axes.errorbar([x], [y], xerr=errors[0], yerr=errors[1], fmt="o", capsize=3)
            axes.annotate(variant, (x, y), xytext=(6, 6), textcoords="offset points", fontsize=9)
    axes.set_xlabel(f"{columns[0].title}: {columns[0].help}")
    axes.set_ylabel(f"{columns[1].title}: {columns[1].help}")

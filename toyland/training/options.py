"""The options that both training commands take, and what they decide."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from toyland.training.config import PRESETS, Recipe, budgets, hurried

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "chosen_device", "chosen_recipe", "chosen_work_folder", "family_options", "run_in_order", "training_options",
]


def family_options(description: str | None, example: str = "unet=60") -> argparse.ArgumentParser:
    """A parser to which a command adds what it alone takes; example: of budgets, "unet=60"."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--out", type=Path, default=Path("assets/toyland"), help="folder of the family")
    parser.add_argument("--work-dir", type=Path, default=None,
                        help="pictures, latents and checkpoints (some GB); default: outputs/toyland-PRESET")
    parser.add_argument("--start", type=Path, help="folder of an earlier family to go on from")
    parser.add_argument("--device", choices=("cpu", "cuda"), default=None,
                        help="default: cuda where there is one")
    parser.add_argument("--minutes", nargs="+", default=[], metavar="PART=MINUTES",
                        help=f"wall-clock budgets, for example {example}")
    return parser


def training_options(description: str | None, stages: Iterable[str], example: str) -> argparse.ArgumentParser:
    """The same with a choice of stages."""
    parser = family_options(description, example)
    parser.add_argument("--stage", choices=list(stages), nargs="+", default=list(stages))
    return parser


def chosen_work_folder(options: argparse.Namespace) -> Path:
    """The folder that is asked for; else one for each preset, whose checkpoints fit no other."""
    return options.work_dir or Path("outputs") / f"toyland-{options.preset}"


def chosen_device(options: argparse.Namespace) -> str:
    """The device that is asked for, or the best there is."""
    return options.device or ("cuda" if torch.cuda.is_available() else "cpu")


def chosen_recipe(options: argparse.Namespace) -> Recipe:
    """The preset with the budgets that are asked for."""
    return hurried(PRESETS[options.preset], budgets(options.minutes))


def run_in_order(stages: Iterable[str], wanted: list[str], run: Callable[[str], object]) -> None:
    """Run those of the stages that are wanted, and print how long each took."""
    for name in stages:
        if name in wanted:
            started = time.monotonic()
            run(name)
            print(json.dumps({"stage": name, "seconds": round(time.monotonic() - started)}),
                  flush=True)

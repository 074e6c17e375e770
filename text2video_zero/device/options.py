"""Where a run computes and in which numbers, as options of a command line; mistakes in them do not wait for torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from text2video_zero.errors import UserError

if TYPE_CHECKING:
    from argparse import _ActionsContainer

NUMBERS = ("float16", "bfloat16", "float32")
DEVICE = re.compile(r"(?:cpu|cuda|mps|xpu)(?::\d+)?")


def add_device_options(group: _ActionsContainer) -> None:
    """Add --device, --dtype and --compile to a parser or to a group of its options."""
    group.add_argument(
        "--device", metavar="DEVICE", type=device_named, help="cpu, cuda, cuda:1 or mps; default the best there is"
    )
    group.add_argument(
        "--dtype",
        metavar="TYPE",
        type=numbers_named,
        help=f"{', '.join(NUMBERS[:-1])} or {NUMBERS[-1]}; default float16 on CUDA, else float32",
    )
    group.add_argument("--compile", action="store_true", help="compile models: minutes at first, faster afterwards")


def device_named(name: str) -> str:
    """The name as it is; raises UserError where no device goes by such a one."""
    if not DEVICE.fullmatch(name):
        raise UserError(f"The device {name!r} cannot be used here: leave it out, or give cpu, cuda, cuda:1 or mps.")
    return name


def numbers_named(name: str) -> str:
    """The name as it is; raises UserError where no numbers go by it."""
    if name not in NUMBERS:
        raise UserError(f"The numbers {name!r} are not known: choose one of {', '.join(NUMBERS)}.")
    return name

"""The smallest recipe that runs through every training of the embedded family."""

from __future__ import annotations

from toyland.training.config import PRESETS

TINY = PRESETS["smoke"]

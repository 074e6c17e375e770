"""Whole models in one file: their family, and how they are built, which the file itself leaves unsaid."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from diffusers import DDIMScheduler

from text2video_zero.models.compatibility import check_scheduler
from text2video_zero.models.files.prediction import scheduler_changes
from text2video_zero.models.original_configurations import write_configuration, write_controlnet_configuration
from text2video_zero.models.sources import has_configuration
from text2video_zero.models.weights import UNET_INPUT, family_of_controlnet, family_of_file, read_header, read_shapes

if TYPE_CHECKING:
    from collections.abc import Generator

    from text2video_zero.models.weights import Shapes


@dataclass(frozen=True)
class SingleFile:
    """A whole model in one file.

    family: "sd1", "sd2" or "sdxl".  shapes: of its tensors.
    configuration: folder in diffusers layout.  has_own: it lies beside the file, with the words of the tokenizer.
    told: what the scheduler's configuration has to say beside.
    """

    path: Path
    family: str
    shapes: Shapes
    configuration: Path
    has_own: bool
    told: dict[str, Any]

    def corrected(self, scheduler: Any) -> Any:
        """A scheduler of diffusers with what the file says beside, or as it is; only what it records counts."""
        return DDIMScheduler.from_config(scheduler.config, **self.told) if self.told else scheduler


@contextmanager
def opened(path: Path) -> Generator[SingleFile]:
    """A single-file model with its configuration, which is there as long as this is open.

    Raises UserError for a file that is no whole model.
    """
    header = read_header(path)
    family, has_own = family_of_file(path, header.shapes), has_configuration(path)
    told = scheduler_changes(path, header, "" if has_own else family)
    check_scheduler(str(path), told)
    if has_own:
        yield SingleFile(path, family, header.shapes, path.with_suffix(""), has_own, told)
        return
    with TemporaryDirectory() as temporary:
        write_configuration(Path(temporary), family, header.shapes[UNET_INPUT][1], told.get("prediction_type"))
        yield SingleFile(path, family, header.shapes, Path(temporary), has_own, told)


@contextmanager
def controlnet_configuration(path: Path) -> Generator[Path]:
    """The folder that tells how the ControlNet in a single file is built, which is there as long as this is open.

    It lies beside the file, or is that of the ControlNet's family. Raises UserError for a file that is no ControlNet.
    """
    beside = path.with_suffix("")
    if (beside / "config.json").is_file():
        yield beside
        return
    with TemporaryDirectory() as temporary:
        write_controlnet_configuration(Path(temporary), family_of_controlnet(path, read_shapes(path)))
        yield Path(temporary)

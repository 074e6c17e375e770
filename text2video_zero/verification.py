"""Whether a video is what its settings make: it is made again, written in the same form, and compared."""

from __future__ import annotations

import argparse
import tempfile
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from text2video_zero import __version__
from text2video_zero.errors import UserError
from text2video_zero.events import Finished, Progress
from text2video_zero.generators import mapped
from text2video_zero.job import Settings, build_job
from text2video_zero.media.files import listed, typed_path
from text2video_zero.media.settings import read_settings
from text2video_zero.models.catalogue import known_name
from text2video_zero.requests import REQUESTS

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from text2video_zero.events import Event
    from text2video_zero.generate import Models
    from text2video_zero.job import Job
    from text2video_zero.media.video import Video

DESCRIPTION = (
    "Make a video again from the settings in its file, and compare the frames. Exit status: 0 they are equal, 1 they "
    "are not, 2 it cannot be told."
)


@dataclass(frozen=True)
class Verdict:
    """What came of it: a sentence for the person, and whether the video is what its settings make."""

    sentence: str
    holds: bool


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be said to the command."""
    parser.add_argument(
        "file", metavar="FILE", type=typed_path, help="a video that this app has saved: .mp4, .gif, .webm or .zip"
    )
    parser.add_argument(
        "--clip",
        metavar="FILE",
        type=typed_path,
        help="the clip that it was made from; default: the file of that name beside the video",
    )
    parser.add_argument(
        "--start-picture", metavar="FILE", type=typed_path, help="its start picture; default: beside the video"
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="where the model is now, if not where its name is looked for; its hash must be the same",
    )
    parser.add_argument(
        "--within",
        metavar="N",
        type=_levels,
        default=0,
        help="levels of 255 by which frames may differ, for videos of another kind of device (default 0)",
    )


def _levels(text: str) -> int:
    levels = int(text) if text.isdecimal() else -1
    if not 0 <= levels <= 255:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to 255")
    return levels


def job_again(path: Path, clip: Path | None = None, picture: Path | None = None, model: str | None = None) -> Job:
    """The job that made a video, as its file tells.

    clip, picture: what it was made from; None looks for a file of the right name beside the video.
    model: where it is now, as `build_job` takes it; None looks for the name in the file.
    Raises UserError where the file tells too little, or what it names is not here.
    """
    from text2video_zero.media.video import FORMATS  # late: --help is spared what writes pictures

    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{path.name} is no video: give a file that ends in {listed(FORMATS)}.")
    task = read_settings(path).get("task")
    if not isinstance(task, str) or task not in REQUESTS:
        raise UserError(f"{path.name} does not tell by which task it was made: choose a video that this app has saved.")
    settings = Settings.read(path, task)
    given: dict[str, Any] = {}
    for field, named in (("clip", clip), ("start_picture", picture)):
        name = str(settings.values.get(field) or "")
        if not name:
            if named is not None:
                what = field.replace("_", " ")
                raise UserError(f"{path.name} was made without a {what}: leave --{what.replace(' ', '-')} out.")
            continue
        beside = (path.parent / Path(name).name, path.parent / field / Path(name).name, Path(name))
        found = named or next((place for place in beside if place.exists()), None)
        if found is None:
            option = f"--{field.replace('_', '-')}"
            raise UserError(f"{path.name} was made from {name!r}: put that beside the video, or give {option}.")
        given[field] = str(found)
    settings = replace(settings, model=model or settings.model)  # the same model, in another place
    return build_job(task, given, model=model, settings=settings, lora_tags=False)


def verify(path: Path, job: Job, models: Models, within: int = 0) -> Generator[Event, None, Verdict]:
    """Make a video again and compare; tells how far it is.

    job: of `job_again`.  within: levels of 255 by which a frame's numbers may differ, 0..255.
    Raises UserError where it cannot be told: a model that cannot be had or whose weights are others, another picture.
    """
    # Torch takes seconds, which a mistake in the file is spared.
    from text2video_zero.generate import generate
    from text2video_zero.tasks.start_picture import picture_hash

    given = yield from picture_hash(job.request)
    if job.picture and given != job.picture:
        raise UserError(
            f"It cannot be told: the start picture is another one ({given}) than {path.name} was made with "
            f"({job.picture})."
        )
    yield from models.fetch(job.checkpoint)
    with models.lend(job.checkpoint) as pipeline:
        if job.weights and job.weights != pipeline.weights:
            raise UserError(
                f"It cannot be told: the weights of {known_name(job.checkpoint.source)} have changed, they are "
                f"{pipeline.weights} and {path.name} was made with {job.weights}."
            )
        with closing(generate(job.request, pipeline, models, picture=given)) as events:
            for event in events:
                yield event
                if isinstance(event, Finished):
                    return (yield from compared(path, event.video, within))
    raise RuntimeError("the run ended without a video")


def compared(path: Path, video: Video, within: int) -> Generator[Progress, None, Verdict]:
    """A video's file held against what its settings have made, in the same form: what encoding loses, both lose.

    Yields now and then while the two are read.
    """
    import numpy as np  # late, with what reads clips

    from text2video_zero.media.clips import whole_clip

    with tempfile.TemporaryDirectory() as folder:
        reading = Progress("Comparing", 0, 1)
        made = yield from mapped(
            whole_clip(video.save(Path(folder) / f"again{path.suffix.lower()}")), lambda _: reading
        )
        found = yield from mapped(whole_clip(path), lambda _: reading)
    is_not = f"{path.name} is not what its settings make: "
    shapes = [f"{len(clip.frames)} frames of {clip.size} at {clip.fps:.4g} per second" for clip in (found, made)]
    if shapes[0] != shapes[1]:
        return Verdict(f"{is_not}it has {shapes[0]}, they make {shapes[1]}.", holds=False)
    furthest = [
        int(np.abs(frame.astype(int) - other).max()) for frame, other in zip(found.frames, made.frames, strict=True)
    ]
    if max(furthest) <= within:
        closeness = f"within {max(furthest)} of 255" if max(furthest) else "bit for bit"
        equal = f"all {len(furthest)} frames are equal {closeness}"
        return Verdict(f"{path.name} is what its settings make: {equal}.", holds=True)
    first = next(number for number, distance in enumerate(furthest) if distance > within)
    others = _perhaps_others(read_settings(path))
    return Verdict(f"{is_not}they differ from frame {first} on, by up to {max(furthest)} of 255.{others}", holds=False)


def _perhaps_others(settings: Mapping[str, Any]) -> str:
    """What may be another than it was, of what settings do not know by its hash; a sentence for each, or none."""
    told, version = "", settings.get("version")
    if version and version != __version__:
        told += f" It was made by version {version}, this is {__version__}."
    asked = settings.get("request")
    named = {
        "clip": asked.get("clip") if isinstance(asked, dict) else None,
        "ControlNet": settings.get("controlnet"),
        "LoRAs": settings.get("loras") or settings.get("prompt_loras"),
    }
    if by_name := [what for what, there in named.items() if there]:
        told += f" Known by name alone: {', '.join(by_name)}; look whether they are those that it was made with."
    return told

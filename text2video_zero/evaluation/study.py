"""A study: prompts, seeds and variants, and the clips that they come to, in a folder that can be gone on with.

study.json              what is studied
strips/VARIANT/…png     the frames of a clip side by side, without loss: what is measured
videos/VARIANT/…mp4     the same to look at, named "PROMPT-NUMBER.mp4" as VBench's custom mode reads them
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from text2video_zero.errors import UserError
from text2video_zero.evaluation.variants import SampledVariant
from text2video_zero.events import Event, Finished, Notice, Progress
from text2video_zero.job import build_job
from text2video_zero.media.clips import read_clip
from text2video_zero.media.files import readable_errors, renamed_when_whole, slug
from text2video_zero.media.flow import optical_flow
from text2video_zero.media.video import Video
from text2video_zero.requests import ClipRequest, Size, TextToVideoRequest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from text2video_zero.evaluation.flow import Flow
    from text2video_zero.evaluation.measures import MeasuredClip
    from text2video_zero.evaluation.variants import Variant
    from text2video_zero.generate import Models
    from text2video_zero.job import Job
    from text2video_zero.requests import VideoRequest
    from text2video_zero.requests.camera import CameraPose

LONGEST_NAME = 180  # bytes of a prompt in a file's name, of the 255 that file systems take


@dataclass(frozen=True)
class Sample:
    """One prompt with one seed. number: of the prompt.  repeat: of the seed, both from 0."""

    prompt: str
    number: int
    repeat: int
    seed: int

    @property
    def name(self) -> str:
        """What its files are called where nobody else reads their names."""
        return f"{self.number:04}-{self.repeat}-{slug(self.prompt)}"


@dataclass(frozen=True)
class Study:
    """What is held against what.

    prompts: one clip each, times `seeds` seeds from `first_seed` on; no two clips of a variant share a seed.
    values: fields that all variants have in common.
    clips: for tasks that begin with one, the path of each prompt's clip; none where `values` has one for all.
    """

    task: str
    model: str
    prompts: tuple[str, ...]
    variants: tuple[Variant, ...]
    values: Mapping[str, object]
    folder: Path
    seeds: int = 1
    first_seed: int = 1
    clips: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [slug(variant.name) for variant in self.variants]
        twice = sorted({variant.name for variant in self.variants if names.count(slug(variant.name)) > 1})
        if twice:
            raise UserError(f"Several variants are called {twice[0]!r}, or nearly so: give each a name of its own.")

    @property
    def samples(self) -> tuple[Sample, ...]:
        """What each variant draws."""
        return tuple(
            Sample(prompt, number, repeat, self.first_seed + number * self.seeds + repeat)
            for (number, prompt), repeat in product(enumerate(self.prompts), range(self.seeds))
        )

    def drawn_samples(self) -> tuple[Sample, ...]:
        """Those of which every variant is drawn."""
        return tuple(
            sample for sample in self.samples if all(self.strip(variant, sample).exists() for variant in self.variants)
        )

    def job(self, variant: Variant, sample: Sample) -> Job:
        """The job of one clip; raises UserError for values that a request refuses."""
        drawn = variant if isinstance(variant, SampledVariant) else self.drawn(variant.of)
        given = {**self.values, **drawn.values, "prompt": sample.prompt, "seed": sample.seed}
        if self.clips:
            given["clip"] = self.clips[sample.number]
        return build_job(self.task, given, model=self.model, preset=drawn.preset)

    def drawn(self, name: str) -> SampledVariant:
        """The sampled variant of a name."""
        return next(v for v in self.variants if isinstance(v, SampledVariant) and v.name == name)

    def strip(self, variant: Variant, sample: Sample) -> Path:
        """Where the frames of a clip lie."""
        return self.folder / "strips" / slug(variant.name) / f"{sample.name}.png"

    def video(self, variant: Variant, sample: Sample) -> Path:
        """Where a clip lies to be looked at; VBench takes what stands before the last hyphen for the prompt."""
        prompt = sample.prompt.replace("/", " ").encode()[:LONGEST_NAME].decode(errors="ignore")
        index = sample.repeat + self.seeds * self.prompts[: sample.number].count(sample.prompt)
        return self.folder / "videos" / slug(variant.name) / f"{prompt}-{index}.mp4"

    def begin(self) -> None:
        """Make the folder, or go on in it; raises UserError where it holds another study.

        Variants may be added later, but not changed.
        """
        path, asked = self.folder / "study.json", self._as_json()
        with readable_errors(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            if path.exists():
                before = json.loads(path.read_text(encoding="utf-8"))
                known, named = before["variants"], asked["variants"]
                changed = any(known.get(name, values) != values for name, values in named.items())
                if changed or {**before, "variants": named} != asked:
                    raise UserError(f"{self.folder} holds another study: name a new folder with --out.")
                asked["variants"] = known | named
            with renamed_when_whole(path) as temporary:
                temporary.write_text(json.dumps(asked, indent=1, ensure_ascii=False), encoding="utf-8")

    def _as_json(self) -> dict[str, Any]:
        variants = {
            variant.name: {"preset": variant.preset, **variant.values}
            if isinstance(variant, SampledVariant)
            else {"of": variant.of}
            for variant in self.variants
        }
        return {
            "task": self.task,
            "model": self.model,
            "prompts": list(self.prompts),
            "seeds": [self.first_seed, self.seeds],
            "values": dict(self.values),
            "variants": variants,
            **({"clips": list(self.clips)} if self.clips else {}),
        }


def draw(study: Study, models: Models) -> Iterator[Event]:
    """Draw the clips that are not there yet, all variants of one prompt before the next prompt.

    Raises UserError, before anything is drawn, for values that a request refuses.
    """
    remade_last = sorted(study.variants, key=lambda variant: not isinstance(variant, SampledVariant))
    wanted = [(variant, sample, study.job(variant, sample)) for sample in study.samples for variant in remade_last]
    missing = [each for each in wanted if not study.strip(*each[:2]).exists()]
    if len(missing) < len(wanted):
        yield Notice(f"{len(wanted) - len(missing)} of {len(wanted)} clips are there already.")
    began, drawn = time.monotonic(), 0
    told: set[str] = set()  # what every run says alike
    for number, (variant, sample, job) in enumerate(missing):
        left = (time.monotonic() - began) / drawn * sum(_is_drawn(v) for v, *_ in missing[number:]) if drawn else None
        yield Progress(f"{variant.name}: {sample.prompt}", number, len(missing), left)
        if isinstance(variant, SampledVariant):
            video = yield from _drawn(job, models, told)
            drawn += 1
        else:
            frames = load_strip(study.strip(study.drawn(variant.of), sample))
            video = Video(variant.remake(frames, poses_of(job.request, len(frames)) or ()), job.request.fps, {})
        video.save(study.video(variant, sample))
        save_strip(np.asarray(video.frames), study.strip(variant, sample))  # the last: a strip says that all is there


def _is_drawn(variant: Variant) -> bool:
    return isinstance(variant, SampledVariant)


def _drawn(job: Job, models: Models, told: set[str]) -> Generator[Event, None, Video]:
    from text2video_zero.generate import run_job  # late, as below: with torch, which mistakes in a study are spared

    with closing(run_job(job, models)) as events:
        for event in events:
            match event:
                case Finished(video):
                    return video
                case Notice(text) if text not in told:
                    told.add(text)
                    yield event
                case _:
                    pass
    raise RuntimeError("the run ended without a video")


def measured_clip(study: Study, variant: Variant, sample: Sample, flow: Flow = optical_flow) -> MeasuredClip:
    """A clip of a study with what is known of it; flow: how it is told where things go."""
    from text2video_zero.evaluation.measures import MeasuredClip

    frames, request = load_strip(study.strip(variant, sample)), study.job(variant, sample).request
    return MeasuredClip(frames, request, poses_of(request, len(frames)), _source(request, frames), flow)


def poses_of(request: VideoRequest, frames: int) -> list[CameraPose] | None:
    """The camera that a request asks for at each frame, if it asks for one."""
    from text2video_zero.tasks.text_to_video import camera_poses

    return camera_poses(request)[:frames] if isinstance(request, TextToVideoRequest) else None


def _source(request: VideoRequest, frames: np.ndarray) -> np.ndarray | None:
    """The frames of the clip that a video was made from."""
    if not isinstance(request, ClipRequest):
        return None
    size = Size(frames.shape[2], frames.shape[1])
    clip = read_clip(
        Path(request.clip), first_frame=request.first_frame, frames=len(frames), fps=request.fps, size=size, native=size
    )
    return np.asarray(clip.frames)


def save_strip(frames: np.ndarray, path: Path) -> None:
    """Write frames (f, h, w, 3) side by side as one picture that knows how many they are."""
    count = PngInfo()
    count.add_text("frames", str(len(frames)))
    with readable_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with renamed_when_whole(path) as temporary:
            Image.fromarray(np.concatenate(list(frames), axis=1)).save(temporary, pnginfo=count)


def load_strip(path: Path) -> np.ndarray:
    """Frames (f, h, w, 3) uint8 of a strip."""
    with Image.open(path) as picture:
        return np.stack(np.split(np.asarray(picture.convert("RGB")), int(picture.info["frames"]), axis=1))

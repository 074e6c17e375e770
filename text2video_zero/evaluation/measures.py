"""What is measured of a clip: every number by its name, and how a table writes it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from text2video_zero.evaluation.flow import Flows, tracks
from text2video_zero.evaluation.metrics import coverage, flow_warp_error, redrawn, sharpness_kept, temporal_flicker
from text2video_zero.evaluation.movement import end_point_error, following, is_dynamic, jitter, speeds
from text2video_zero.media.flow import optical_flow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from text2video_zero.evaluation.features import ClipFeatures, PictureFeatures
    from text2video_zero.evaluation.flow import Flow
    from text2video_zero.requests import VideoRequest
    from text2video_zero.requests.camera import CameraPose

DOWN, UP, NEITHER = "↓", "↑", ""


@dataclass(frozen=True)
class Column:
    """How a number is written.

    title: over its column.  better: which way, if there is one.  factor: on the number, for few digits before the
    point.  help: what it is, one line below the table.
    """

    title: str
    better: str
    help: str
    factor: float = 1.0
    decimals: int = 2


@dataclass(frozen=True, eq=False)
class MeasuredClip:
    """A clip with all that is known of it.

    frames: (f, h, w, 3) uint8.  request: what was asked for.
    poses: the camera at each frame, None where none was asked for.
    source: frames of the clip that it was made from, None where there is none.
    flow: how it is told where things go.
    """

    frames: np.ndarray
    request: VideoRequest
    poses: Sequence[CameraPose] | None = None
    source: np.ndarray | None = None
    flow: Flow = optical_flow

    @cached_property
    def flows(self) -> Flows:
        """Where things go."""
        return Flows.of(self.frames, self.flow)


class Measure(Protocol):
    """Numbers by name of one clip; nan for what has no answer."""

    @property
    def columns(self) -> Mapping[str, Column]:
        """How each number that there may be is written."""
        ...

    def __call__(self, clip: MeasuredClip) -> Mapping[str, float]:
        """Measure a clip."""
        ...


class Steadiness:
    """What needs no network: steadiness, movement, and whether it is the one that was asked for."""

    columns = MappingProxyType(
        {
            "warp_error": Column("warp error", DOWN, "along the flow, of 1000 (Lai et al. 2018)", 1000, 1),
            "coverage": Column("coverage", UP, "share of the pixels that the next frame shows again"),
            "redrawn": Column("redrawn", DOWN, "largest share of a frame that the next one does not show again"),
            "flicker": Column("flicker", DOWN, "change from frame to frame, of 255", 255, 1),
            "speed": Column("speed", NEITHER, "of the fastest 5 % of the pixels, pixels a frame", 1, 1),
            "dynamic": Column("dynamic", UP, "VBench's dynamic degree: share of clips that move"),
            "jitter": Column("jitter", DOWN, "of tracked points; independent poses 1.7, even motion below 0.5"),
            "sharpness": Column("sharpness", NEITHER, "second derivative against frame 0, 1 = as sharp"),
            "followed": Column("followed", UP, "share of the camera's movement that the picture follows"),
            "astray": Column("astray", DOWN, "median distance from the camera's flow, pixels a frame", 1, 1),
            "flow_error": Column("flow error", DOWN, "distance from the flow of the clip, pixels", 1, 1),
        }
    )

    def __call__(self, clip: MeasuredClip) -> Mapping[str, float]:
        """Measure a clip."""
        frames, flows = clip.frames, clip.flows
        found = {
            "warp_error": flow_warp_error(frames, flows=flows),
            "coverage": coverage(flows),
            "redrawn": redrawn(flows),
            "flicker": temporal_flicker(frames),
            "speed": float(speeds(flows).mean()) if len(frames) > 1 else 0.0,
            "dynamic": float(is_dynamic(flows, clip.request.fps)),
            "jitter": jitter(tracks(frames, flows)),
            "sharpness": sharpness_kept(frames),
        }
        if clip.poses is not None:
            found["followed"], found["astray"] = following(flows, clip.poses)
        if clip.source is not None:
            found["flow_error"] = end_point_error(flows, Flows.of(clip.source, clip.flow))
        return found


@dataclass(frozen=True)
class FeatureScores:
    """What CLIP and DINO say, each where it is at hand.

    clip_shows: what the clip that a video was made from shows, for directional CLIP; blank where nobody says.
    video_shows: what the video is to show; blank: its prompt.
    """

    clip: ClipFeatures | None = None
    dino: PictureFeatures | None = None
    clip_shows: str = ""
    video_shows: str = ""
    columns = MappingProxyType(
        {
            "clip_text": Column("CLIP", UP, "100 x cosine of frames and prompt (the paper: 31.19)", 1, 1),
            "clip_frames": Column("CLIP frames", UP, "cosine of neighbouring frames", 1, 3),
            "directional": Column("CLIP direction", UP, "cosine of the change in pictures with that in texts", 1, 3),
            "dino": Column("DINO subject", UP, "VBench's subject consistency", 1, 3),
        }
    )

    def __call__(self, clip: MeasuredClip) -> Mapping[str, float]:
        """Measure a clip."""
        from text2video_zero.evaluation.features import (
            directional_score,
            frame_consistency,
            subject_consistency,
            text_score,
        )

        found = {}
        if self.clip is not None:
            pictures = self.clip.pictures(clip.frames)
            found["clip_text"] = text_score(pictures, self.clip.texts([clip.request.prompt])[0])
            found["clip_frames"] = frame_consistency(pictures)
            if clip.source is not None and self.clip_shows:
                texts = self.clip.texts([self.clip_shows, self.video_shows or clip.request.prompt])
                found["directional"] = directional_score(self.clip.pictures(clip.source), pictures, *texts)
        if self.dino is not None:
            found["dino"] = subject_consistency(self.dino.pictures(clip.frames))
        return found

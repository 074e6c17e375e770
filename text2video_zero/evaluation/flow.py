"""Where things go through a whole clip, and where a camera would take them.

Frames are (f, h, w, 3) uint8 RGB; flows (h, w, 2) float32, x and y in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

import cv2
import numpy as np

from text2video_zero.errors import UserError
from text2video_zero.evaluation import DIS, RAFT_LARGE, RAFT_SMALL
from text2video_zero.media.flow import occluded, optical_flow
from text2video_zero.models.files.pickled import UNREADABLE
from text2video_zero.sampling.motion.camera import sample_positions

if TYPE_CHECKING:
    from torch import nn

    from text2video_zero.media.frames import Frames
    from text2video_zero.requests.camera import CameraPose

Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (before, after) -> flow
RAFT_SIDE, RAFT_MULTIPLE = 128, 8  # RAFT's smallest side, and what sides are multiples of
MOST_POINTS = 256  # that are tracked through a clip
TRACK_FRAMES = 8  # after which points are chosen anew: few stay in sight for longer


@dataclass(frozen=True, eq=False)
class Flows:
    """What moves where in a clip: flow from each frame to the next, (f - 1, h, w, 2), and back."""

    forward: np.ndarray
    backward: np.ndarray

    @classmethod
    def of(cls, frames: Frames, flow: Flow = optical_flow) -> Self:
        """Estimate them; two frames are in memory at a time."""
        pairs = [(flow(before, after), flow(after, before)) for before, after in pairwise(frames)]
        none = np.zeros((0, *frames.shape[1:3], 2), np.float32)
        return cls(*(np.stack(way) for way in zip(*pairs, strict=True))) if pairs else cls(none, none)

    @cached_property
    def found_again(self) -> np.ndarray:
        """(f - 1, h, w) bool: pixels of each frame but the last that the next frame shows too."""
        pairs = zip(self.forward, self.backward, strict=True)
        return np.array([~occluded(*pair) for pair in pairs]).reshape(self.forward.shape[:3])


@dataclass(frozen=True, eq=False)
class Raft:
    """RAFT (Teed and Deng 2020) as a flow, by torchvision's network, on the CPU in float32."""

    network: nn.Module

    def __call__(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Where each pixel of `before` is found in `after`; what is too small for it is enlarged."""
        import torch

        height, width = before.shape[:2]
        size = [max(-(-side // RAFT_MULTIPLE) * RAFT_MULTIPLE, RAFT_SIDE) for side in (width, height)]
        shown = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in (before, after)])
        pictures = torch.from_numpy(shown).movedim(-1, 1).float() / 127.5 - 1
        with torch.inference_mode():
            flow = self.network(*pictures.split(1))[-1][0].movedim(0, -1).numpy()
        scale = np.array([width / size[0], height / size[1]], np.float32)
        return cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR) * scale


def flow_of(name: str) -> Flow:
    """A flow by its name, one of FLOWS.

    RAFT's weights are looked for where torchvision keeps what it downloads ($TORCH_HOME), and never downloaded. Raises
    UserError where they are not there, or are none.
    """
    if name == DIS:
        return optical_flow
    import torch
    from torchvision.models import optical_flow as raft

    build, weights = {
        RAFT_SMALL: (raft.raft_small, raft.Raft_Small_Weights.DEFAULT),
        RAFT_LARGE: (raft.raft_large, raft.Raft_Large_Weights.DEFAULT),
    }[name]
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    if not path.is_file():
        raise UserError(
            f"The weights of {name} are not on this machine: put torchvision's {path.name} into {path.parent}, or take "
            f"the flow {DIS}."
        )
    network = build(weights=None).eval()
    try:
        network.load_state_dict(torch.load(path, "cpu", weights_only=True))
    except UNREADABLE as error:
        raise UserError(f"{path.name} cannot be read as the weights of {name}: fetch it again.") from error
    return Raft(network)


def tracks(frames: Frames, flows: Flows) -> list[np.ndarray]:
    """Points that are followed along the flow, each track (n, k, 2) in pixels over n <= TRACK_FRAMES frames.

    Corners of the first frame of every stretch (Shi and Tomasi 1994); those that get lost on the way are left out.
    """
    found = []
    for begin in range(0, len(frames) - 1, TRACK_FRAMES - 1):
        grey = cv2.cvtColor(frames[begin], cv2.COLOR_RGB2GRAY)
        # cv2's types do not say that there may be none.
        corners = cast("np.ndarray | None", cv2.goodFeaturesToTrack(grey, MOST_POINTS, 0.01, 3))
        if corners is not None:
            stretch = slice(begin, begin + TRACK_FRAMES - 1)
            found.append(_followed(corners[:, 0], flows.forward[stretch], flows.found_again[stretch]))
    return [track for track in found if track.size]


def _followed(points: np.ndarray, flows: np.ndarray, found_again: np.ndarray) -> np.ndarray:
    way, kept = [points], np.ones(len(points), bool)
    for flow, seen in zip(flows, found_again, strict=True):
        x, y = (points[:, axis].reshape(1, -1).astype(np.float32) for axis in (0, 1))
        step = cv2.remap(flow, x, y, cv2.INTER_LINEAR)[0]
        kept &= cv2.remap(seen.astype(np.float32), x, y, cv2.INTER_LINEAR)[0] > 0.5
        points = points + step
        way.append(points)
    return np.stack(way)[:, kept]


def camera_flow(before: CameraPose, after: CameraPose, height: int, width: int) -> np.ndarray:
    """The flow that the camera's movement gives to what stands still."""
    x, y = (positions.numpy() for positions in sample_positions(before, height, width))
    x, y = x - (width - 1) / 2 - after.x * width, y - (height - 1) / 2 - after.y * height
    cos, sin = np.cos(after.angle) * after.scale, np.sin(after.angle) * after.scale
    seen = np.stack([cos * x + sin * y + (width - 1) / 2, cos * y - sin * x + (height - 1) / 2], -1)
    return seen - np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)

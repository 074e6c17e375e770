"""The evaluation of videos on Toyland, where the truth is known: what the judge sees, and where the joints are.

    python -m toyland.evaluate --count 6 --set pan_x=0.03 pan_y=0 --out outputs/pan-right

As `python -m text2video_zero evaluate`, with prompts of its own where none are given, and for tasks that begin with a
clip with clips of its own.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import cv2
import numpy as np

from text2video_zero.__main__ import OneLineParser, add_running_options, evaluate
from text2video_zero.errors import UserError
from text2video_zero.evaluation.command import add_options
from text2video_zero.evaluation.flow import camera_flow
from text2video_zero.evaluation.measures import DOWN, NEITHER, UP, Column, MeasuredClip
from text2video_zero.evaluation.movement import following, jitter
from text2video_zero.models.catalogue import TOYLAND_FOLDER
from text2video_zero.requests import REQUESTS, ClipRequest, InstructPix2PixRequest
from toyland.judges.evaluate import prompt_scenes
from toyland.judges.judge import HEADS, Judge, load_judge, verdicts
from toyland.judges.reader import Reader, load_reader, read
from toyland.pairs import edited, recolored, save_clips
from toyland.world.bipeds import BIPEDS
from toyland.world.captions import VOCABULARY, plain_caption
from toyland.world.clips import depth_map, picture, skeleton_map

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from text2video_zero.evaluation.flow import Flows
    from text2video_zero.requests import VideoRequest
    from text2video_zero.requests.camera import CameraPose
    from toyland.world.scene import Scene

__all__ = ["Truth", "ask", "asked_for", "main", "near_over_far", "own_motion", "scenes_of"]

_ROLES = {"subject": "subjects", "color": "colors", "place": "places"}
_SCENE_SEED = 2_000
_LOOKS = {"pose": skeleton_map, "depth": depth_map}  # what clips show whose control has no detector at hand


def asked_for(prompt: str) -> dict[str, int]:
    """The judge's class by head that a prompt names; heads that it says nothing of are left out."""
    words = f" {prompt.lower().replace(',', ' ')} "
    found = {}
    for head, role in _ROLES.items():
        named = [(max(len(w) for w in ways if f" {w} " in words), canonical)
                 for canonical, ways in VOCABULARY[role].items() if any(f" {w} " in words for w in ways)]
        if named:
            found[head] = HEADS[head].index(max(named)[1])
    return found


@dataclass(frozen=True)
class Truth:
    """What Toyland's judge and reader see in a clip.

    shows: path of a clip -> what a video shows that is made of it as was asked; of others the prompt says it.
    """

    judge: Judge
    reader: Reader
    shows: Mapping[str, Scene] = field(default_factory=dict[str, "Scene"])
    columns = MappingProxyType({
        "right": Column("right", UP, "share of frames in which the judge sees subject, colour and place"),
        "identity": Column("identity", UP, "share of frames in which it sees what it sees in frame 0"),
        "joints": Column("joints' jitter", DOWN,
                         "where there are two legs; independent poses 1.7, even motion below 0.5"),
        "own": Column("own motion", NEITHER, "of their joints beside the camera's, pixels a frame", 1, 1),
        "background": Column("background followed", UP, "share of the camera's movement that it follows"),
        "near_far": Column("near/far", NEITHER, "flow along the camera, nearest quarter over farthest, by the reader's "
                           "depth"),
        "beside": Column("background astray", DOWN, "median distance from the camera's flow, pixels a frame", 1, 1),
    })

    def __call__(self, clip: MeasuredClip) -> Mapping[str, float]:
        """Measure a clip."""
        frames, poses = clip.frames, clip.poses
        seen, wanted = verdicts(self.judge, frames), self._wanted(clip.request)
        hits = np.array([(seen[head] == label).numpy() for head, label in wanted.items()])
        same = np.array([(seen[head] == seen[head][0]).numpy() for head in seen])
        reading = read(self.reader, frames)
        height, width = frames.shape[1:3]
        mask, depth = (np.stack([cv2.resize(one, (width, height)) for one in kind.numpy()])
                       for kind in (reading.mask, reading.depth))
        mask = mask > 0.5
        right = float(hits.all(0).mean()) if len(hits) else float("nan")
        found = {"right": right, "identity": float(same.all(0).mean())}
        if poses is not None:
            found["background"], found["beside"] = following(clip.flows, poses, ~mask)
            found["near_far"] = near_over_far(clip.flows, poses, depth)
        if HEADS["subject"][int(seen["subject"][0])] in BIPEDS:
            joints = reading.keypoints.numpy() * (width, height)
            found["joints"] = jitter([joints])
            found["own"] = own_motion(joints, poses, height, width)
        return found

    def _wanted(self, request: VideoRequest) -> Mapping[str, int]:
        """The judge's class by head."""
        shown = self.shows.get(request.clip) if isinstance(request, ClipRequest) else None
        if shown is None:
            return asked_for(request.prompt)
        return {head: names.index(getattr(shown, head)) for head, names in HEADS.items()}


def near_over_far(flows: Flows, poses: Sequence[CameraPose], depth: np.ndarray) -> float:
    """How far the nearest quarter of the pixels goes along the camera's flow, over how far the farthest quarter goes.

    Medians of those that the next frame shows again, and median over the frames; nan where the camera stands still, or
    the far quarter does. depth: (f, h, w), larger is nearer.
    """
    ratios = []
    for number, pair in enumerate(pairwise(poses)):
        asked = camera_flow(*pair, *depth.shape[1:])
        length = np.square(asked).sum(-1)
        share = (flows.forward[number] * asked).sum(-1) / np.maximum(length, 1e-9)
        far, near = np.quantile(depth[number], (0.25, 0.75))
        counts = flows.found_again[number] & (length > 0.1)
        parts = [share[counts & where] for where in (depth[number] >= near, depth[number] <= far)]
        if all(part.size for part in parts) and abs(np.median(parts[1])) > 0.05:
            ratios.append(np.median(parts[0]) / np.median(parts[1]))
    return float(np.median(ratios)) if ratios else float("nan")


def own_motion(joints: np.ndarray, poses: Sequence[CameraPose] | None, height: int, width: int) -> float:
    """Median step of joints (f, k, 2) beside what the camera's movement gives them, in pixels; nan for one frame."""
    steps = np.diff(joints, axis=0)
    for number, pair in enumerate(pairwise((poses or ())[: len(joints)])):
        flow = camera_flow(*pair, height, width).astype(np.float32)
        x, y = (joints[number, :, axis].reshape(1, -1).astype(np.float32) - 0.5 for axis in (0, 1))
        steps[number] -= cv2.remap(flow, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
    return float(np.median(np.linalg.norm(steps, axis=-1))) if len(steps) else float("nan")


def scenes_of(count: int, *, two_legged: bool = True) -> list[Scene]:
    """Scenes, as many of every subject with two legs, or of every other one, but for a rest."""
    scenes = prompt_scenes(6 * count, _SCENE_SEED, held_out=False)
    return [scene for scene in scenes if (scene.subject in BIPEDS) == two_legged][:count]


def ask(arguments: argparse.Namespace) -> dict[str, Scene]:
    """Give parsed arguments prompts of Toyland's own, and to a task that begins with a clip a clip for each.

    Returns what videos of these clips ought to show, by the path of the clip.
    """
    scenes, task = scenes_of(arguments.count, two_legged=not arguments.creatures), arguments.evaluated_task
    if not issubclass(REQUESTS[task], ClipRequest) or any(word.startswith("clip=") for word in arguments.set):
        arguments.prompt = [plain_caption(scene) for scene in scenes]
        return {}
    pairs = edited(scenes) if task == InstructPix2PixRequest.task else recolored(scenes, _LOOKS.get(task, picture))
    arguments.prompt = [pair.prompt for pair in pairs]
    arguments.clips = [path.as_posix() for path in save_clips(pairs, arguments.out / "clips")]
    return dict(zip(arguments.clips, (pair.shows for pair in pairs), strict=True))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = OneLineParser(prog="python -m toyland.evaluate", description=(__doc__ or "").partition("\n")[0])
    add_options(parser)
    parser.add_argument("--count", type=int, default=6, metavar="N", help="prompts of its own (default %(default)s)")
    parser.add_argument("--creatures", action="store_true",
                        help="of animals and things, not of who has two legs, whose joints can be read")
    parser.add_argument("--judges", type=Path, default=TOYLAND_FOLDER, metavar="DIR", help="folder of judge and reader")
    add_running_options(parser.add_argument_group("Device"))
    try:
        arguments, shows = parser.parse_args(argv), {}
        if not (arguments.prompt or arguments.prompts):
            shows = ask(arguments)
        truth = Truth(load_judge(arguments.judges / "judge"), load_reader(arguments.judges / "reader"), shows)
        print(evaluate(arguments, [truth]))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

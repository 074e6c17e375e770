"""Control maps: what of a clip a ControlNet keeps to, its edges, its poses or its depth.

A mapper looks at the frames batch by batch, then draws the whole clip at once, because depth has one scale for
all frames. The networks are handed in loaded; nothing here reads weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np

from text2video_zero.control.depth import drawn_depths, midas_depths, network_depths
from text2video_zero.control.pose import Figures, draw_figures, openpose_from_coco
from text2video_zero.errors import UserError, ran_out_of_memory
from text2video_zero.generators import result_of
from text2video_zero.media.frames import StoredFrames

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from controlnet_aux import MidasDetector, OpenposeDetector
    from controlnet_aux.open_pose import PoseResult

    from text2video_zero.media.frames import Frames
    from text2video_zero.models.pipeline import Detector

KINDS = ("edge", "pose", "depth")
OPENPOSE_LICENCE_NOTE = (
    "The OpenPose detector's code and weights are licensed by Carnegie Mellon University for non-commercial use only."
)
READY_MADE_NAMES = {"edge": "white edges on black", "pose": "OpenPose skeletons", "depth": "depth maps, near is bright"}


def missing_weights(kind: str, detector: str, reason: UserError) -> UserError:
    """What to say of a detector that cannot be loaded: the reason, and two ways that need no weights.

    kind: one of KINDS.  detector: its name, as shown.
    """
    return UserError(
        f"The {kind} detector {detector} cannot be had. {reason} Or take edge control, which needs no weights, or "
        f"give a clip of ready-made {READY_MADE_NAMES[kind]} and say that it is a control map."
    )


class ControlMapper(ABC):
    """Turns frames into control maps of the same size.

    batch: frames that are looked at together.
    """

    batch: ClassVar[int] = 8

    @abstractmethod
    def seen(self, frames: np.ndarray) -> Sequence[Any]:
        """What is found in frames (m, h, w, 3) uint8, one item for each."""

    @abstractmethod
    def drawn(self, found: Sequence[Any], height: int, width: int) -> Iterator[np.ndarray]:
        """Control maps (h, w, 3) uint8, one after the other, of what was found in all frames of a clip."""

    def steps(self, frames: Frames) -> Generator[int, None, StoredFrames]:
        """Make the maps, yielding after each batch, and as they are drawn, how many frames are done; they are on disk.

        frames: (f, h, w, 3) uint8 RGB, f >= 1; a batch of them is read at a time. A batch for which the memory is
        too small is halved. Raises UserError when there is nothing in the clip that could be drawn.
        """
        found: list[Any] | StoredFrames = []
        batch = self.batch
        while len(found) < len(frames):
            seen = _unless_short(self.seen, frames[len(found) : len(found) + batch])
            if seen is None:
                batch //= 2
                continue
            if not found and isinstance(seen[0], np.ndarray):
                found = StoredFrames(seen[0].shape, seen[0].dtype)
            for one in seen:
                found.append(one)
            yield len(found)
        maps = StoredFrames(frames.shape[1:])
        for one in self.drawn(found, *frames.shape[1:3]):
            maps.append(one)
            yield len(found)
        return maps

    def maps(self, frames: Frames) -> np.ndarray:
        """Control maps (f, h, w, 3) uint8 of frames (f, h, w, 3) uint8 RGB, all in memory; raises as `steps` does."""
        return np.asarray(result_of(self.steps(frames)))


def _unless_short(look: Callable[[np.ndarray], Sequence[Any]], frames: np.ndarray) -> Sequence[Any] | None:
    """What a look at some frames finds; None where memory is too short for them, though it may do for fewer."""
    try:
        return look(frames)
    except RuntimeError as error:
        if len(frames) == 1 or not ran_out_of_memory(error):
            raise
        return None


class CannyMapper(ControlMapper):
    """Edges by Canny's method, as OpenCV has it: white on black.

    low, high: thresholds of the slope of brightness; the defaults are those of the paper's authors.
    """

    def __init__(self, low: int = 100, high: int = 200) -> None:
        self.low = low
        self.high = high

    def seen(self, frames: np.ndarray) -> Sequence[np.ndarray]:
        """Edges, m x (h, w) uint8, 255 on an edge."""
        return [cv2.Canny(frame, self.low, self.high) for frame in frames]

    def drawn(self, found: Sequence[np.ndarray], height: int, width: int) -> Iterator[np.ndarray]:  # noqa: ARG002
        """The edges in three equal colours, (h, w, 3) uint8 each."""
        return (np.repeat(edges[..., None], 3, axis=-1) for edges in found)


class DepthMapper(ControlMapper):
    """Depth by a network of transformers (Depth Anything, DPT): near is bright, on one scale for the whole clip."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    def seen(self, frames: np.ndarray) -> Sequence[np.ndarray]:
        """Relative nearness, m x (h, w) float32."""
        return list(network_depths(self.detector, frames))

    def drawn(self, found: Sequence[np.ndarray], height: int, width: int) -> Iterator[np.ndarray]:  # noqa: ARG002
        """Brightness (h, w, 3) uint8 of each frame."""
        return drawn_depths(found)


class MidasMapper(ControlMapper):
    """Depth by controlnet-aux's MiDaS, the annotator of the paper's authors, on one scale for the whole clip."""

    def __init__(self, detector: MidasDetector) -> None:
        self.detector = detector

    def seen(self, frames: np.ndarray) -> Sequence[np.ndarray]:
        """Relative nearness, m x (h, w) float32."""
        return list(midas_depths(self.detector, frames))

    def drawn(self, found: Sequence[np.ndarray], height: int, width: int) -> Iterator[np.ndarray]:  # noqa: ARG002
        """Brightness (h, w, 3) uint8 of each frame."""
        return drawn_depths(found)


class _FigureMapper(ControlMapper):
    """What the pose detectors share: skeletons on black."""

    def drawn(self, found: Sequence[Figures], height: int, width: int) -> Iterator[np.ndarray]:
        """Skeletons (h, w, 3) uint8 of each frame; raises UserError when the clip shows nobody at all."""
        if not any((figures.skeletons[..., 2] > 0).any() for figures in found):
            raise UserError(
                "No person was found in the clip: choose edge or depth control, or give a clip of skeletons and say "
                "that it is a control map."
            )
        return (draw_figures(figures, height, width) for figures in found)


class PoseMapper(_FigureMapper):
    """Skeletons of people that one network finds (RT-DETR) and another one looks at closely (ViTPose).

    person_score, keypoint_score: certainty, 0..1, from which a person or a keypoint counts.
    most_people: of more, those that are the most certain.
    """

    def __init__(
        self, detector: Detector, person_score: float = 0.3, keypoint_score: float = 0.3, most_people: int = 20
    ) -> None:
        if detector.box_finder is None:
            raise TypeError("a detector of poses comes with a network that finds people")
        self.detector = detector
        self.finder = detector.box_finder
        self.person_score = person_score
        self.keypoint_score = keypoint_score
        self.most_people = most_people

    def seen(self, frames: np.ndarray) -> Sequence[Figures]:
        """The people of each frame, without hands and faces."""
        boxes = self._people(frames)
        crowded = [index for index, found in enumerate(boxes) if len(found)]
        figures = [Figures(np.empty((0, 18, 3), np.float32))] * len(frames)
        if crowded:
            keypoints = self._keypoints(frames[crowded], [boxes[index] for index in crowded])
            for index, people in zip(crowded, keypoints, strict=True):
                figures[index] = Figures(openpose_from_coco(people))
        return figures

    def _people(self, frames: np.ndarray) -> list[np.ndarray]:
        """Boxes of people, m x (n, 4) float32: left, top, width, height in pixels."""
        import torch

        finder = self.finder
        person = next((label for label, name in (finder.model.config.id2label or {}).items() if name == "person"), 0)
        with torch.inference_mode():
            inputs = finder.processor(images=list(frames), return_tensors="pt").to(self.detector.device)
            outputs = finder.model(**inputs)
        found = finder.processor.post_process_object_detection(
            outputs, threshold=self.person_score, target_sizes=[frames.shape[1:3]] * len(frames)
        )
        boxes = []
        for frame in found:
            people = frame["labels"] == person
            order = frame["scores"][people].argsort(descending=True)[: self.most_people]
            corners = frame["boxes"][people][order].float().cpu().numpy()  # left, top, right, bottom
            boxes.append(np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1))
        return boxes

    def _keypoints(self, frames: np.ndarray, boxes: list[np.ndarray]) -> list[np.ndarray]:
        """COCO keypoints, m x (n, 17, 3): x, y in fractions of the frame, and the score, 0 below the least."""
        import torch

        model, processor = self.detector.network.model, self.detector.network.processor
        people = sum(len(found) for found in boxes)
        # The models of several data sets must be told that theirs is COCO, the first.
        experts = {"dataset_index": torch.zeros(people, dtype=torch.long, device=self.detector.device)}
        several = getattr(model.config.backbone_config, "num_experts", 1) > 1
        with torch.inference_mode():
            inputs = processor(images=list(frames), boxes=boxes, return_tensors="pt").to(self.detector.device)
            outputs = model(**inputs, **(experts if several else {}))
        found = processor.post_process_pose_estimation(outputs, boxes=boxes)
        return [np.stack([self._fractions(person, frames.shape[1:3]) for person in frame]) for frame in found]

    def _fractions(self, person: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
        points = person["keypoints"].numpy() / size[::-1]
        scores = person["scores"].numpy()
        scores = np.where(scores >= self.keypoint_score, scores, 0)
        return np.concatenate([points, scores[:, None]], axis=1).astype(np.float32)


class OpenPoseMapper(_FigureMapper):
    """Skeletons by controlnet-aux's OpenPose, the annotator of the paper's authors; see OPENPOSE_LICENCE_NOTE.

    hands_and_face: look for these too.
    """

    def __init__(self, detector: OpenposeDetector, *, hands_and_face: bool = False) -> None:
        self.detector = detector
        self.hands_and_face = hands_and_face

    def seen(self, frames: np.ndarray) -> Sequence[Figures]:
        """The people of each frame."""
        looked_for = {"include_hand": self.hands_and_face, "include_face": self.hands_and_face}
        return [_figures(self.detector.detect_poses(frame, **looked_for)) for frame in frames]


def _figures(people: Sequence[PoseResult]) -> Figures:
    """controlnet-aux's people as arrays; what it has not found lies at None or outside of the frame."""
    hands = [hand for person in people for hand in (person.left_hand, person.right_hand) if hand]
    faces = [person.face for person in people if person.face]
    return Figures(
        _keypoint_array([person.body.keypoints for person in people], 18),
        _keypoint_array(hands, 21),
        _keypoint_array(faces, len(faces[0]) if faces else 70),
    )


def _keypoint_array(groups: Sequence[Sequence[Any]], keypoints: int) -> np.ndarray:
    array = np.zeros((len(groups), keypoints, 3), np.float32)
    for row, group in zip(array, groups, strict=True):
        for place, point in zip(row, group, strict=True):
            if point is not None and point.x > 0 and point.y > 0:
                place[:] = (point.x, point.y, 1)
    return array

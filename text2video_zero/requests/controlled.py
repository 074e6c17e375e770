"""Requests of the ControlNet tasks (paper, section 3.4). Defaults are those of the authors' demo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from text2video_zero.errors import FieldError
from text2video_zero.requests.fields import BASICS, CONTROL, SAMPLING, choice, decimal, flag, integer, text
from text2video_zero.requests.video import ClipRequest, FewStepRequest, StartPictureRequest

CONTROLS = ("edge", "pose", "depth")
READY_MADE = ("detect", "yes", "no")
POSE_DETECTORS = ("ViTPose", "OpenPose")
DEPTH_DETECTORS = ("Depth Anything V2 Small", "DPT-hybrid", "MiDaS")


@dataclass(frozen=True)
# Of a field that several have, a dataclass takes the first's.
class ControlledRequest(ClipRequest, FewStepRequest, StartPictureRequest):
    """A prompt in the shape of a clip: what the controlled tasks share.

    control: what of the clip shapes the video, one of CONTROLS; DreamBooth lets the person choose.
    """

    control: ClassVar[str]

    quality_prompt: str = text(
        "best quality, extremely detailed", "Quality prompt", "Added to the prompt.", section=BASICS
    )
    negative_prompt: str = text(
        "lowres, bad anatomy, extra digit, fewer digits, cropped, worst quality, low quality",
        "Negative prompt",
        "What you do not want to see.",
        section=BASICS,
    )
    control_strength: float = decimal(
        1.0, 0.0, 2.0, "Control strength", "How strictly the video keeps to the clip.", section=CONTROL, step=0.05
    )
    control_start: float = decimal(
        0.0, 0.0, 1.0, "Control from", "Share of the steps at which control sets in.", section=CONTROL, step=0.05
    )
    control_end: float = decimal(
        1.0, 0.0, 1.0, "Control until", "Share of the steps at which control ends.", section=CONTROL, step=0.05
    )
    ready_made: str = choice(
        "detect",
        READY_MADE,
        "The clip is a control map",
        "Yes for clips that are skeletons, edges or depth already. Detect says yes only where it is certain.",
        section=CONTROL,
    )
    steps: int = integer(20, 4, 999, "Steps", "Denoising steps: more are slower and finer.", section=SAMPLING)
    guidance_scale: float = decimal(
        9.0,
        1.0,
        30.0,
        "Guidance scale",
        "How closely the picture follows the prompt. 1 switches guidance off and doubles the speed.",
        section=SAMPLING,
        step=0.5,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.control_start >= self.control_end:
            raise FieldError(
                f"Control from is {self.control_start:g} and Control until is {self.control_end:g}: "
                "the first must be below the second, for example 0 and 1."
            )

    @property
    def full_prompt(self) -> str:
        """The prompt as the model gets it, with the quality prompt behind it."""
        return ", ".join(part for part in (self.prompt, self.quality_prompt) if part)


@dataclass(frozen=True)
class EdgeFields(ControlledRequest):
    """Settings of Canny's edge detector; the authors' thresholds."""

    canny_low: int = integer(100, 0, 1000, "Canny low", "Edges weaker than this are dropped.", section=CONTROL)
    canny_high: int = integer(200, 1, 1000, "Canny high", "Edges stronger than this are kept.", section=CONTROL)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.canny_low >= self.canny_high:
            raise FieldError(
                f"Canny low is {self.canny_low} and Canny high is {self.canny_high}: "
                "the first must be below the second, for example 100 and 200."
            )


@dataclass(frozen=True)
class PoseFields(ControlledRequest):
    """Settings of the pose detectors."""

    pose_detector: str = choice(
        "ViTPose", POSE_DETECTORS, "Pose detector", "OpenPose is for non-commercial use only.", section=CONTROL
    )
    hands_and_face: bool = flag(
        default=False, label="Hands and face", help="OpenPose finds hands and faces too.", section=CONTROL
    )


@dataclass(frozen=True)
class DepthFields(ControlledRequest):
    """Settings of the depth detectors."""

    depth_detector: str = choice(
        DEPTH_DETECTORS[0], DEPTH_DETECTORS, "Depth detector", "The network that guesses depth.", section=CONTROL
    )


@dataclass(frozen=True)
class EdgeRequest(EdgeFields):
    """A prompt drawn along the edges of a clip."""

    task: ClassVar[str] = "edge"
    title: ClassVar[str] = "Edge"
    control: ClassVar[str] = "edge"


@dataclass(frozen=True)
class PoseRequest(PoseFields):
    """A prompt that moves like the people of a clip."""

    task: ClassVar[str] = "pose"
    title: ClassVar[str] = "Pose"
    control: ClassVar[str] = "pose"


@dataclass(frozen=True)
class DepthRequest(DepthFields):
    """A prompt in the space of a clip."""

    task: ClassVar[str] = "depth"
    title: ClassVar[str] = "Depth"
    control: ClassVar[str] = "depth"


@dataclass(frozen=True)
class DreamBoothRequest(EdgeFields, PoseFields, DepthFields):
    """A clip in the style of a DreamBooth-tuned model; by its edges, unless another control is chosen."""

    task: ClassVar[str] = "dreambooth"
    title: ClassVar[str] = "DreamBooth"

    # What is fixed for the other tasks is here a field.
    control: str = choice(  # pyright: ignore[reportIncompatibleVariableOverride]
        "edge", CONTROLS, "Control", "What of the clip shapes the video.", section=CONTROL
    )

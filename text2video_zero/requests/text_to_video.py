"""The request of the text-to-video task. Defaults are the paper's (arXiv 2303.13439, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from text2video_zero.errors import UserError
from text2video_zero.requests.camera import PAPER_PAN
from text2video_zero.requests.fields import CONSISTENCY, MOTION, choice, decimal, flag, integer, text
from text2video_zero.requests.video import FewStepRequest

RESAMPLING = ("smooth", "nearest", "white")
FOREGROUND_DETECTORS = ("attention", "salient object")


@dataclass(frozen=True)
class TextToVideoRequest(FewStepRequest):
    """Text2Video-Zero from a prompt: motion dynamics in the latents and cross-frame attention."""

    task: ClassVar[str] = "text-to-video"
    title: ClassVar[str] = "Text to video"

    motion: bool = flag(
        default=True,
        label="Motion",
        help="Move the scene from frame to frame. Off: every frame starts from noise of its own.",
        section=MOTION,
    )
    pan_x: float = decimal(
        PAPER_PAN,
        -0.25,
        0.25,
        "Pan right",
        "Camera movement to the right, in widths of the frame per frame; below 0 to the left.",
        section=MOTION,
        step=0.001,
    )
    pan_y: float = decimal(
        PAPER_PAN,
        -0.25,
        0.25,
        "Pan down",
        "Camera movement downwards, in heights of the frame per frame; below 0 upwards.",
        section=MOTION,
        step=0.001,
    )
    zoom: float = decimal(
        0.0,
        -0.2,
        0.2,
        "Zoom in",
        "Growth of the picture per frame, as a fraction of its size; below 0 the camera backs off.",
        section=MOTION,
        step=0.005,
    )
    rotation: float = decimal(
        0.0,
        -0.1,
        0.1,
        "Rotate",
        "Camera turn to the right (the picture turns to the left), in full turns per frame.",
        section=MOTION,
        step=0.001,
    )
    reach: float = decimal(
        0.25,
        0.01,
        1.0,
        "Reach",
        "Where a long movement turns back: at this share of the frame, or of a full turn.",
        section=MOTION,
        step=0.01,
    )
    motion_from: int = integer(
        881,
        1,
        998,
        "Motion from timestep",
        "T' of the paper: the timestep at which the first frame is copied and moved. Lower keeps more of it.",
        section=MOTION,
    )
    motion_to: int = integer(
        941,
        2,
        999,
        "Motion up to timestep",
        "T of the paper: the timestep up to which moved frames get fresh noise. Higher gives freer movement.",
        section=MOTION,
    )
    resampling: str = choice(
        "smooth",
        RESAMPLING,
        "Movement of the latents",
        "Smooth moves by fractions of a latent cell; nearest by whole cells, as the paper's code does; white moves "
        "picture and noise apart and keeps the noise free of patterns.",
        section=MOTION,
    )
    motion_smoothness: float = decimal(
        0.0,
        0.0,
        16.0,
        "Motion smoothness",
        "Over how many frames poses turn into one another. 0 is the paper's: every frame has a pose of its own.",
        section=MOTION,
        step=0.5,
    )
    loop: bool = flag(
        default=False,
        label="Loop",
        help="The last frame leads into the first: the camera returns, and so does what moves.",
        section=MOTION,
    )
    smooth_background: bool = flag(
        default=False,
        label="Smooth background",
        help="Detect the foreground and steady everything behind it. Takes twice as long.",
        section=CONSISTENCY,
    )
    smoothing_strength: float = decimal(
        0.6,
        0.0,
        1.0,
        "Smoothing strength",
        "α of the paper: 0 leaves the background alone, 1 takes it wholly from the first frame.",
        section=CONSISTENCY,
        step=0.05,
    )
    foreground_detector: str = choice(
        "attention",
        FOREGROUND_DETECTORS,
        "Foreground detector",
        "Attention finds what the foreground words name and needs nothing more. Salient object finds what stands "
        "out, with a network of 5 MB that is downloaded once.",
        section=CONSISTENCY,
    )
    foreground_words: str = text(
        "",
        "Foreground words",
        "Words of the prompt that name the foreground, for the detector by attention. Blank: what it names first.",
        section=CONSISTENCY,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.motion_from >= self.motion_to:
            raise UserError(
                f"Motion from timestep is {self.motion_from} and up to timestep is {self.motion_to}: "
                "the first must be below the second, for example 881 and 941."
            )

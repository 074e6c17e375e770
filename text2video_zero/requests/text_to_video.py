"""The request of the text-to-video task.

Defaults are the paper's (arXiv 2303.13439, section 4.1), but for `resampling` and `reach`: steady pans that turn back.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, starmap
from typing import ClassVar

from text2video_zero.errors import FieldError
from text2video_zero.requests.camera import PAPER_PAN, read_camera_keys
from text2video_zero.requests.fields import BASICS, CONSISTENCY, MOTION, choice, decimal, flag, integer, text
from text2video_zero.requests.key_frames import read_key_frames
from text2video_zero.requests.movement import MOVEMENTS, NO_MOVEMENT, Moving, movement_of
from text2video_zero.requests.video import FewStepRequest, StartPictureRequest

POSES_OPEN = 781
"""The last timestep at which the copies of a first frame still take poses of their own, without a shadow of its."""
STEADY = "steady"
RESAMPLING = (STEADY, "smooth", "nearest", "white")
FOREGROUND_DETECTORS = ("attention", "salient object")


def read_storyboard(text: str) -> list[tuple[int, str]]:
    """Later frames with their prompts, in order; raises UserError for anything else."""
    return read_key_frames(text, "Storyboard", "for example '12: a fox on the beach; 24: a fox in the city'")


@dataclass(frozen=True)
class TextToVideoRequest(FewStepRequest, StartPictureRequest):
    """Text2Video-Zero from a prompt: motion dynamics in the latents and cross-frame attention."""

    task: ClassVar[str] = "text-to-video"
    title: ClassVar[str] = "Text to video"

    storyboard: str = text(
        "",
        "Storyboard",
        "Prompts at later frames: 12: a fox on the beach; 24: a fox in the city. One turns into the other, or each is "
        "a shot of its own, with An anchor for each shot. Blank: the prompt throughout.",
        section=BASICS,
        lines=2,
    )
    shot_anchors: bool = flag(
        default=False,
        label="An anchor for each shot",
        help="Each part of the storyboard is a shot of its own: the clip that its prompt would make of the same seed, "
        "from its own first frame on and with the camera where it began. Off: one prompt turns into the other.",
        section=CONSISTENCY,
    )
    movement: str = choice(
        NO_MOVEMENT,
        MOVEMENTS,
        "Movement of the subject",
        "What the subject does, in poses that a ControlNet draws. By the prompt: what its words say, as in a panda "
        "dancing. Models other than Toyland move people alone. None is the paper's. Not with a start picture.",
        section=MOTION,
    )
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
    camera_keys: str = text(
        "",
        "Camera key frames",
        "Where the camera is at some frames, instead of an even movement: 8: right 0.2 zoom 1.3; 12: hold; "
        "20: right 0 zoom 1 turn 0.1. Blank: it moves as the fields above say.",
        section=MOTION,
    )
    camera_eased: bool = flag(
        default=True,
        label="Eased",
        help="The camera sets out and arrives slowly at each of its key frames.",
        section=MOTION,
    )
    shake: float = decimal(
        0.0,
        0.0,
        0.1,
        "Shake",
        "How far a camera that is held by hand sways, as a share of the frame.",
        section=MOTION,
        step=0.005,
    )
    parallax: float = decimal(
        0.0,
        0.0,
        1.0,
        "Parallax",
        "How much near things move more than far ones, by a depth detector that looks at the finished frames: 0 moves "
        "all alike, as the paper does; at 1 the nearest moves up to twice as far.",
        section=MOTION,
        step=0.05,
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
        "T of the paper: the timestep up to which moved frames get fresh noise. Higher gives freer movement. Around a "
        "subject that moves by itself all stays the first frame's down to it.",
        section=MOTION,
    )
    restart: bool = flag(
        default=False,
        label="First frame anew",
        help="The first frame, too, goes back from T' to T and is drawn a second time, together with the others: what "
        "broke on its first way is often mended, and it takes no longer. Off is the paper's.",
        section=MOTION,
    )
    resampling: str = choice(
        STEADY,
        RESAMPLING,
        "Movement of the latents",
        "Steady moves latents by whole cells and the finished picture by the rest, zooms and turns included, so that "
        "nothing is drawn anew between two cells; smooth moves latents by fractions of a cell; nearest by whole cells "
        "alone, as the paper's code does; white moves picture and noise apart and keeps the noise free of patterns.",
        section=MOTION,
    )
    cell_step: int = integer(
        1,
        1,
        8,
        "Cells per step",
        "A steady pan moves latents by multiples of so many cells. A UNet halves its grid, and draws a face as it was "
        "where that has moved by 2 or by 4 cells; but the more, the wider is the edge that is mirrored before a step.",
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

    @property
    def shots(self) -> tuple[range, ...]:
        """The frames of each shot: those of a part of the storyboard where it has an anchor of its own, else all."""
        story = read_storyboard(self.storyboard) if self.shot_anchors else []
        cuts = [0, *(frame for frame, _ in story if frame < self.frames), self.frames]
        return tuple(starmap(range, pairwise(cuts)))

    @property
    def loops(self) -> bool:
        """Whether the last frame leads into the first, which it does in no video of several shots."""
        return self.loop and len(self.shots) == 1

    @property
    def movements(self) -> tuple[Moving, ...]:
        """Who moves in each shot, and how; none unless somebody does in all of them."""
        if self.start_picture:  # nobody knows how who is in it stands
            return ()
        prompts = [self.prompt, *(prompt for _, prompt in read_storyboard(self.storyboard))]
        shots = [[prompt] for prompt in prompts[: len(self.shots)]] if len(self.shots) > 1 else [prompts]
        found = [movement_of(self.movement, shot) for shot in shots]
        return tuple(movement for movement in found if movement) if all(found) else ()

    @property
    def together_from(self) -> int:
        """T, the timestep from which on all frames are denoised: no later than poses are open, where they differ."""
        return max(self.motion_to, POSES_OPEN) if self.movements else self.motion_to

    def __post_init__(self) -> None:
        super().__post_init__()
        read_camera_keys(self.camera_keys)
        if read_storyboard(self.storyboard) and self.smooth_background and self.foreground_detector == "attention":
            raise FieldError(
                "Smooth background looks for the words of one prompt, and a storyboard has several: choose the "
                "foreground detector 'salient object', or leave one of them out."
            )
        if self.motion_from >= self.motion_to:
            raise FieldError(
                f"Motion from timestep is {self.motion_from} and Motion up to timestep is {self.motion_to}: "
                "the first must be below the second, for example 881 and 941."
            )

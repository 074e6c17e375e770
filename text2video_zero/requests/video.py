"""What every task asks for, and what those ask for that begin with a clip."""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass
from typing import Self

from text2video_zero.errors import FieldError
from text2video_zero.requests.fields import (
    BASICS,
    CLIP,
    CONSISTENCY,
    SAMPLING,
    SEED_LIMIT,
    START,
    Request,
    Size,
    choice,
    clip,
    decimal,
    flag,
    integer,
    picture,
    size,
    text,
)

# Names in the table of sampling/solvers.py.
SAMPLERS = ("DDIM", "DPM++ 2M", "UniPC", "Euler")
FEW_STEP_SAMPLERS = ("DDIM trailing", "LCM")
PREDICTIONS = ("as the model says", "epsilon", "v-prediction", "v-prediction, zero SNR", "sample")
FIRST, FIRST_AND_PREVIOUS, FIRST_AND_KEYS = REFERENCE_FRAMES = ("first", "first + previous", "first + key frames")
KEY_FRAME_EVERY = 4  # frames, where frames look at key frames
FULL_QUALITY = "full quality"
FEW_STEP_SPEEDS = ("LCM", "Hyper-SD", "4 steps")  # models/speeds.py has their LoRAs
MOST_FRAMES = 512


@dataclass(frozen=True)
class VideoRequest(Request):
    """The fields that all tasks share."""

    prompt: str = text("", "Prompt", "What you want to see.", section=BASICS, required=True, lines=2)
    negative_prompt: str = text("", "Negative prompt", "What you do not want to see.", section=BASICS)
    frames: int = integer(8, 1, MOST_FRAMES, "Frames", "Number of frames of the video.", section=BASICS)
    fps: int = integer(8, 1, 60, "Frames per second", "Speed at which the video plays.", section=BASICS)
    play_fps: int = integer(
        0,
        0,
        60,
        "Play at",
        "Frames per second to play at: frames in between follow the motion. 0 plays those that are drawn.",
        section=BASICS,
    )
    size: Size | None = size(
        "Size", "Width x height in pixels, multiples of 8. Blank: the model's own size.", section=BASICS
    )
    seed: int = integer(
        -1, -1, SEED_LIMIT - 1, "Seed", "The same seed makes the same video. -1 draws one.", section=BASICS
    )
    cross_frame_attention: bool = flag(
        default=True,
        label="Cross-frame attention",
        help="Every frame looks at the first one, which keeps the subject the same.",
        section=CONSISTENCY,
    )
    reference_frames: str = choice(
        "first",
        REFERENCE_FRAMES,
        "Reference frames",
        "The frames that each frame looks at: beside the first one the one before it, or every fourth frame before "
        "and after it. More are steadier and a little slower.",
        section=CONSISTENCY,
    )
    steps: int = integer(50, 4, 999, "Steps", "Denoising steps: more are slower and finer.", section=SAMPLING)
    guidance_scale: float = decimal(
        7.5,
        1.0,
        30.0,
        "Guidance scale",
        "How closely the picture follows the prompt. 1 switches guidance off and doubles the speed.",
        section=SAMPLING,
        step=0.5,
    )
    guidance_end: float = decimal(
        1.0,
        0.0,
        1.0,
        "Guidance until",
        "Share of the steps at which guidance ends. Those after it take half the time, and draw what is finest.",
        section=SAMPLING,
        step=0.05,
    )
    sampler: str = choice(
        "DDIM",
        (*SAMPLERS, *FEW_STEP_SAMPLERS),
        "Sampler",
        "DDIM is the paper's. The last two are for models that were distilled to few steps.",
        section=SAMPLING,
    )
    prediction: str = choice(
        PREDICTIONS[0],
        PREDICTIONS,
        "Prediction",
        "What the model was trained to predict, for files that do not say it: pictures of noise or of glaring colours "
        "are what the wrong one looks like.",
        section=SAMPLING,
    )
    chunk_size: int = integer(
        8,
        1,
        MOST_FRAMES,
        "Frames at a time",
        "Frames that are computed together at most; fewer where memory is short. The video stays the same.",
        section=SAMPLING,
    )
    token_merging: float = decimal(
        0.0,
        0.0,
        0.9,
        "Token merging",
        "Share of the picture's cells that attend together with others that look like them: faster at large sizes, "
        "less detail. 0 merges none.",
        section=SAMPLING,
        step=0.05,
    )
    cache_interval: int = integer(
        1,
        1,
        8,
        "DeepCache interval",
        "The whole network runs at every so many steps; those between reuse its deep features, which is far "
        "faster and a little less exact. 1 reuses nothing.",
        section=SAMPLING,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.play_fps < self.fps:
            raise FieldError(
                f"Play at is {self.play_fps}, below the {self.fps} frames per second that are drawn: lower Frames per "
                "second instead, or set it to 0."
            )

    def with_concrete_seed(self) -> Self:
        """The same request with seed -1 replaced by a drawn one, so that the result can be made again."""
        if self.seed >= 0:
            return self
        return dataclasses.replace(self, seed=secrets.randbelow(SEED_LIMIT))

    @property
    def frames_played(self) -> int:
        """Frames of the finished video, those in between counted; no fewer than are drawn."""
        return max(self.frames, round(self.frames * self.play_fps / self.fps))

    @property
    def concrete_size(self) -> Size:
        """The size of a request that is being run, which its task settled before anything else.

        Raises RuntimeError where it is still left to the model.
        """
        if self.size is None:
            raise RuntimeError("the size of this request is not settled yet")
        return self.size


@dataclass(frozen=True)
class FewStepRequest(VideoRequest):
    """The choice of tasks whose models have LoRAs for few steps."""

    speed: str = choice(
        FULL_QUALITY,
        (FULL_QUALITY, *FEW_STEP_SPEEDS),
        "Speed",
        "LCM takes 4 to 8 steps, Hyper-SD 8, Toyland's own 4: choosing one adds its LoRA to the model and sets what "
        "goes with it.",
        section=BASICS,
    )


@dataclass(frozen=True)
class StartPictureRequest(VideoRequest):
    """The fields of tasks that can begin with a picture of the person's own."""

    start_picture: str = picture(
        "Start picture",
        "A photo or drawing that comes to life: the first frame is drawn from it, and all others from there.",
        section=START,
    )
    start_strength: float = decimal(
        0.4,
        0.1,
        1.0,
        "Redraw",
        "How much of the start picture is drawn anew: T, from which all frames are drawn, is this share of the model's "
        "timesteps (the nearest step), and the steps before it are left out. 1 leaves next to nothing of the picture.",
        section=START,
        step=0.05,
    )


@dataclass(frozen=True)
class ClipRequest(VideoRequest):
    """The fields of tasks that begin with a clip."""

    clip: str = clip("Clip", "The video to begin with: a file, an animated GIF or a folder of pictures.", section=CLIP)
    first_frame: int = integer(
        0, 0, 1_000_000, "First frame", "Where to begin in the clip, at the video's frames per second.", section=CLIP
    )
    size: Size | None = size(
        "Size",
        "Width x height in pixels, multiples of 8. Blank: the clip's proportions at about the model's own area.",
        section=BASICS,
    )
    noise_follows: bool = flag(
        default=False,
        label="Noise follows the clip",
        help="The noise that frames share goes with what moves in the clip. Off: it stays where it is on the screen.",
        section=CONSISTENCY,
    )
    keep_sound: bool = flag(
        default=False, label="Keep the sound", help="Copy the clip's sound into the video.", section=CLIP
    )

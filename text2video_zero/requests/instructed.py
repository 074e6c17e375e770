"""The request of Video Instruct-Pix2Pix (paper, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from text2video_zero.requests.fields import BASICS, CONSISTENCY, SAMPLING, choice, decimal, flag, text
from text2video_zero.requests.video import SAMPLERS, ClipRequest


@dataclass(frozen=True)
class InstructPix2PixRequest(ClipRequest):
    """An instruction that changes a clip."""

    task: ClassVar[str] = "instruct-pix2pix"
    title: ClassVar[str] = "Instruct-Pix2Pix"

    prompt: str = text(
        "", "Instruction", "What to change, such as: make it night.", section=BASICS, required=True, lines=2
    )
    sampler: str = choice(
        "Euler ancestral",
        ("Euler ancestral", *SAMPLERS),
        "Sampler",
        "Euler ancestral is the original's.",
        section=SAMPLING,
    )
    image_guidance_scale: float = decimal(
        1.5,
        1.0,
        10.0,
        "Image guidance scale",
        "How closely the video keeps to the clip.",
        section=SAMPLING,
        step=0.1,
    )
    shared_noise: bool = flag(
        default=True,
        label="Share the noise",
        help="All frames get the same noise, which steadies the video. Off: each its own, as in the original.",
        section=CONSISTENCY,
    )
    motion_smoothness: float = decimal(
        0.0,
        0.0,
        16.0,
        "Motion smoothness",
        "Over how many frames noise that is not shared turns into other noise. 0 is the original's: at once.",
        section=CONSISTENCY,
        step=0.5,
    )

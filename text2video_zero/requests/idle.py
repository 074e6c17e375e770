"""Settings that do nothing beside others; whoever has chosen one is told, on the page and on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from text2video_zero.requests.camera import read_camera_keys
from text2video_zero.requests.instructed import InstructPix2PixRequest
from text2video_zero.requests.movement import BY_THE_PROMPT
from text2video_zero.requests.text_to_video import STEADY, TextToVideoRequest, read_storyboard

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from text2video_zero.requests.video import VideoRequest

_SPEEDS = ("pan_x", "pan_y", "zoom", "rotation", "reach")
_PATH = (*_SPEEDS, "camera_keys", "camera_eased", "shake", "parallax")
_SHOWN_WHOLE = 20  # letters of a text
_LAYOUT = 700  # a timestep, from which on models draw details of what is there already


@dataclass(frozen=True)
class Idle:
    """Fields that do nothing because of what another field of the same request is.

    when: asked of requests that have that field.
    """

    fields: tuple[str, ...]
    other: str
    when: Callable[[Any], bool]


IDLE: tuple[Idle, ...] = (
    Idle((*_PATH, "restart", "resampling", "cell_step", "motion_from", "motion_to"), "motion", lambda r: not r.motion),
    Idle(("movement",), "start_picture", lambda r: r.start_picture),
    Idle(("motion_from", "restart", "motion_smoothness"), "movement", lambda r: r.movements and r.motion),
    Idle(_SPEEDS, "camera_keys", lambda r: r.camera_keys),
    Idle(("camera_eased",), "camera_keys", lambda r: not r.camera_keys),
    Idle(("cell_step",), "resampling", lambda r: r.resampling != STEADY),
    Idle(("start_strength",), "start_picture", lambda r: not r.start_picture),
    Idle(("shot_anchors",), "storyboard", lambda r: not r.storyboard),
    Idle(("reference_frames",), "cross_frame_attention", lambda r: not r.cross_frame_attention),
    Idle(("loop",), "shot_anchors", lambda r: len(r.shots) > 1),
    Idle(
        ("smoothing_strength", "foreground_detector", "foreground_words"),
        "smooth_background",
        lambda r: not r.smooth_background,
    ),
    Idle(("foreground_words",), "foreground_detector", lambda r: r.foreground_detector != "attention"),
    Idle(
        ("negative_prompt", "guidance_end"),
        "guidance_scale",
        lambda r: r.guidance_scale == 1 and not isinstance(r, InstructPix2PixRequest),  # whose picture is guided, too
    ),
    Idle(("motion_smoothness",), "shared_noise", lambda r: r.shared_noise),
    Idle(("noise_follows",), "shared_noise", lambda r: not r.shared_noise),
    Idle(
        ("canny_low", "canny_high", "pose_detector", "hands_and_face", "depth_detector"),
        "ready_made",
        lambda r: r.ready_made == "yes",
    ),
    Idle(("canny_low", "canny_high"), "control", lambda r: r.control != "edge"),
    Idle(("pose_detector", "hands_and_face"), "control", lambda r: r.control != "pose"),
    Idle(("depth_detector",), "control", lambda r: r.control != "depth"),
    Idle(("hands_and_face",), "pose_detector", lambda r: r.pose_detector != "OpenPose"),
)


def idle_settings(request: VideoRequest, chosen: Collection[str]) -> str:
    """What of the chosen fields does nothing in this request: a sentence for each reason; blank for none."""
    labels = {name: spec.label for name, _, spec in request.declarations()}
    sentences = []
    left = [name for name in labels if name in chosen]
    for idle in IDLE:
        if idle.other not in labels or not idle.when(request):
            continue
        if names := [name for name in left if name in idle.fields]:
            *first, last = (labels[name] for name in names)
            what = f"{', '.join(first)} and {last} do" if first else f"{last} does"
            sentences.append(f"{what} nothing while {labels[idle.other]} is {_told(getattr(request, idle.other))}.")
            left = [name for name in left if name not in names]
    return " ".join(sentences)


def unreached_keys(request: VideoRequest) -> str:
    """Which key frames come after the last frame of the video, in sentences; blank for none."""
    if not isinstance(request, TextToVideoRequest):
        return ""
    longest = max(map(len, request.shots))
    camera = "video has" if len(request.shots) == 1 else "camera begins anew in each shot, the longest of which has"
    keys = (
        ("Camera key frames", camera, longest, [key.frame for key in read_camera_keys(request.camera_keys)]),
        ("Storyboard", "video has", request.frames, [frame for frame, _ in read_storyboard(request.storyboard)]),
    )
    sentences = []
    for label, what, count, frames in keys:
        if behind := [str(frame) for frame in frames if frame >= count]:
            sentences.append(f"{label}: the {what} {count} frames and does not come to frame {', '.join(behind)}.")
    return " ".join(sentences)


def unsaid_movement(request: VideoRequest, chosen: Collection[str]) -> str:
    """That a subject does not do what was chosen, in a sentence; blank where it does."""
    if "movement" not in chosen or not isinstance(request, TextToVideoRequest) or request.start_picture:
        return ""
    if request.movement != BY_THE_PROMPT:
        others = [moving for moving in request.movements if moving.does != request.movement]
        return "".join(
            f"Movement of the subject: a {moving.kind} cannot {request.movement}; it is made to {moving.does}."
            for moving in others[:1]
        )
    if request.movements:
        return ""
    return (
        "Movement of the subject: the prompt names nobody who could move, or a storyboard's prompts do not agree, so "
        "that nothing but the camera moves."
    )


def copied_story(request: VideoRequest) -> str:
    """That copies of the first frame show little of other prompts, in a sentence; blank where they can."""
    if not (isinstance(request, TextToVideoRequest) and request.motion and read_storyboard(request.storyboard)):
        return ""
    if request.together_from > _LAYOUT or request.shot_anchors:
        return ""
    return (
        f"Storyboard: with Motion on, all frames are copies of the first one down to T = {request.together_from}, "
        "which has its place and subject by then: switch An anchor for each shot on, or Motion off."
    )


def _told(value: Any) -> str:
    match value:
        case bool():
            return "on" if value else "off"
        case "":
            return "blank"
        case str():
            return repr(value) if len(value) <= _SHOWN_WHOLE else "given"
        case _:
            return f"{value:g}"

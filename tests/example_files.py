"""Clips in the forms in which people bring them, all of the same moving square."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from text2video_zero.media.ffmpeg import run_ffmpeg
from text2video_zero.media.video import Video

FRAMES = 10


def moving_square() -> np.ndarray:
    """Ten frames (10, 64, 96, 3) of a bright square that walks over a dark ground."""
    frames = np.full((FRAMES, 64, 96, 3), 30, np.uint8)
    for number, frame in enumerate(frames):
        frame[16:48, 8 + 4 * number : 40 + 4 * number] = (240, 200, 60)
    return frames


def write_clip(folder: Path, form: str) -> Path:
    """Write the square as "mp4", "gif", "zip" of pictures, or "folder" of pictures; returns its path."""
    frames = moving_square()
    if form in {"mp4", "gif"}:
        return Video(frames, 8, {}).save(folder / f"square.{form}")
    if form == "folder":
        Video(frames, 8, {}).save_frames(folder / "square")
        return folder / "square"
    path = folder / "square.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, frame in enumerate(frames):
            picture = io.BytesIO()
            Image.fromarray(frame).save(picture, "PNG")
            archive.writestr(f"{number}.png", picture.getvalue())
    return path


def with_a_tone(clip: Path, folder: Path) -> Path:
    """An MP4 of a clip's pictures that sounds for 1.25 seconds."""
    loud = folder / "loud.mp4"
    tone = ["-f", "lavfi", "-i", "sine=frequency=440:duration=1.25"]
    run_ffmpeg(["-i", str(clip), *tone, "-pix_fmt", "yuv420p", "-c:a", "aac", "-shortest", str(loud)])
    return loud

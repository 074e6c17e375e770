"""How white noise stays when it moves with the camera: what the UNet was trained on is white, all else it paints."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import starmap

import numpy as np
import torch

from text2video_zero.requests.camera import CAMERA_PRESETS, CameraPose
from text2video_zero.sampling.motion.camera import CameraPath
from text2video_zero.sampling.motion.noise import NoiseScene
from text2video_zero.sampling.motion.warp import warp
from text2video_zero.sampling.noise import frame_noise

SHAPE = (4, 64, 64)  # of the latents of Stable Diffusion 1.5
BANDS = 3


@dataclass(frozen=True)
class Whiteness:
    """Of noise (n, c, h, w); white has 0, 1 and ones.

    lag: the larger of the mean products of neighbours in a row and in a column, its sign left out.
    deviation: standard deviation.  bands: that of equal shares of the frequencies, from low to high.
    """

    lag: float
    deviation: float
    bands: tuple[float, ...]

    @classmethod
    def of(cls, noise: np.ndarray) -> Whiteness:
        """Measure it."""
        below, beside = (noise[..., 1:, :] * noise[..., :-1, :]).mean(), (noise[..., 1:] * noise[..., :-1]).mean()
        power = np.square(np.abs(np.fft.fft2(noise, norm="ortho"))).mean((0, 1))
        height, width = noise.shape[-2:]
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
        edges = np.quantile(frequency, np.linspace(0, 1, BANDS + 1)[1:-1])
        band = np.digitize(frequency, edges)
        bands = tuple(float(np.sqrt(power[band == number].mean())) for number in range(BANDS))
        return cls(float(max(abs(below), abs(beside))), float(np.sqrt(np.square(noise).mean())), bands)


def whiteness_table(frames: int, seeds: int = 32) -> str:
    """Markdown: noise after the movement of the latents, at the worst frame of each camera, and what `white` costs."""
    lines = [
        "| camera | movement | lag-1 | std | std, low | std, middle | std, high | ms a frame |",
        "|---|---|" + "---|" * 6,
    ]
    for camera, speeds in CAMERA_PRESETS.items():
        path = replace(CameraPath(0, 0, 0, 0, reach=0.25), **speeds)
        for resampling in ("nearest", "smooth", "white"):
            moved = list(starmap(_moved, ((path.pose(frame + 1), resampling, seeds) for frame in range(frames))))
            found = [whiteness for whiteness, _ in moved]
            worst = max(found, key=lambda whiteness: whiteness.lag)
            far = [max((w.deviation for w in found), key=_off), *(max(band, key=_off) for band in _bands(found))]
            milliseconds = 1000 * float(np.mean([seconds for _, seconds in moved]))
            cells = [f"{worst.lag:.3f}", *(f"{value:.3f}" for value in far), f"{milliseconds:.1f}"]
            lines.append(f"| {camera} | {resampling} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _moved(pose: CameraPose, resampling: str, seeds: int) -> tuple[Whiteness, float]:
    """Noise of some seeds seen from a pose, and the seconds that it takes for one."""
    seen, seconds = [], 0.0
    for seed in range(seeds):
        noise, scene = frame_noise(seed, 0, SHAPE, "cpu"), NoiseScene(seed, SHAPE)
        if resampling == "white":
            scene.seen(noise, CameraPose(0, 0, 1.01, 0))  # what is drawn once for all frames does not count
        began = time.process_time()
        seen.append(scene.seen(noise, pose) if resampling == "white" else warp(noise, pose, resampling))
        seconds += time.process_time() - began
    return Whiteness.of(torch.stack(seen).numpy()), seconds / seeds


def _bands(found: list[Whiteness]) -> list[tuple[float, ...]]:
    return list(zip(*(whiteness.bands for whiteness in found), strict=True))


def _off(deviation: float) -> float:
    return abs(deviation - 1)

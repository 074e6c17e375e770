"""The anchor: the first frame on its way, from which all others depart."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

from text2video_zero.sampling.motion.warp import forward_noise, warp

if TYPE_CHECKING:
    import torch

    from text2video_zero.requests.camera import CameraPose
    from text2video_zero.sampling.motion.noise import NoisePath, NoiseScene


@dataclass(frozen=True)
class Anchor:
    """The first frame at T and at T', from which all others depart.

    at_to, at_from: its latents (c, h, w) at T and at T'.  clean: the estimate of its x_0 at T', (c, h, w).
    alpha_to, alpha_from: ᾱ at T and at T'.
    """

    at_to: torch.Tensor
    at_from: torch.Tensor
    clean: torch.Tensor
    alpha_to: float
    alpha_from: float

    def restarted(self, noise: torch.Tensor) -> Self:
        """The first frame gone back from T' to T with some noise (c, h, w) and not up its own way, as others go."""
        return replace(self, at_to=forward_noise(self.at_from, noise, self.alpha_from, self.alpha_to))

    def moved(self, frame: int, pose: CameraPose, path: NoisePath, scene: NoiseScene, resampling: str) -> torch.Tensor:
        """Latents (c, h, w) at T of frame k >= 1: the first frame seen from a pose, and gone its own way from T' to T.

        A path without smoothness is the paper's: what each frame adds is its own, and drawn where the frame sees it.
        One that is smooth belongs to the scene and moves with it, as all noise does where resampling is "white".
        Where T' is T there is no way to go.
        """
        is_copy = self.alpha_from == self.alpha_to
        if not is_copy and resampling != "white" and not path.smoothness:
            noise = path.leaving(self._way, frame)
            seen = self._seen(self.at_from, self.alpha_from, pose, resampling)
            return forward_noise(seen, noise, self.alpha_from, self.alpha_to)
        unmoved = self.at_to
        if not is_copy:
            unmoved = forward_noise(self.at_from, self._noise(frame, path), self.alpha_from, self.alpha_to)
        if resampling != "white":
            return self._seen(unmoved, self.alpha_to, pose, resampling)
        signal, sigma = math.sqrt(self.alpha_to) * self.clean, math.sqrt(1 - self.alpha_to)
        return warp(signal, pose, "signal") + sigma * scene.seen((unmoved - signal) / sigma, pose)

    def _seen(self, latents: torch.Tensor, alpha: float, pose: CameraPose, resampling: str) -> torch.Tensor:
        """Latents (c, h, w) at ᾱ from a pose, the picture in them as loud as it was.

        The weights of "smooth" keep the noise's deviation, and would make a picture that moves by half a cell a tenth
        louder, for each axis: every second frame of a slow pan.
        """
        seen = warp(latents, pose, resampling)
        if resampling == "nearest":
            return seen
        signal = math.sqrt(alpha) * self.clean
        # What is too loud is exactly nothing where the camera moves by whole cells.
        return seen - (warp(signal, pose, resampling) - warp(signal, pose, "signal"))

    @cached_property
    def _way(self) -> torch.Tensor:
        """The noise that makes `forward_noise` lead from T' to where the first frame itself is at T."""
        kept = self.alpha_to / self.alpha_from
        return (self.at_to - math.sqrt(kept) * self.at_from) / math.sqrt(1 - kept)

    def _noise(self, frame: int, path: NoisePath) -> torch.Tensor:
        """What a frame adds: the path that begins at the anchor's own way.

        That way is no fresh noise: the sampler has come down it, so that it is short, of mean square v < 1, and points
        where the noise at T' does. To leave the latents the variance that fresh noise gives them, the path's own part
        must have the square (1 - ρ)·(1 + ρ·v) in place of 1 - ρ².
        """
        shared, square = path.correlation(frame), self._way.square().mean().item()
        return path.leaving(self._way, frame, math.sqrt((1 + shared * square) / (1 + shared)))

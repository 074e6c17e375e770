"""Between frames and latents, one frame at a time, with an eye on memory and on numbers that are not finite."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from text2video_zero.device.offload import bring, send_away
from text2video_zero.device.precision import in_float32, not_imitated
from text2video_zero.errors import UserError, ran_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    import numpy as np
    from diffusers import AutoencoderKL


def decoded_frames(
    vae: AutoencoderKL, latents: torch.Tensor, others: Sequence[torch.nn.Module] = ()
) -> Iterator[np.ndarray]:
    """Decode latents (f, c, h, w) into frames, each (height, width, 3) uint8 RGB.

    Half precision overflows in the VAE of some models on some cards; such a frame is decoded again in
    float32. Where the device's memory is too small, `others` leave it for the CPU's; if that does not suffice, the
    frame is decoded on the CPU, slower but the same.
    Raises UserError, naming the frame, when that does not help: no black frame is ever returned.
    """
    for number, latent in enumerate(latents):
        picture = _computed(vae, lambda latent=latent: _decoded(vae, latent), others)
        if not picture.isfinite().all():
            raise UserError(
                f"Frame {number} came out with numbers that are not finite: "
                "use another seed or a lower guidance scale, or run in full precision (--device cpu)."
            )
        yield ((picture / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def encoded_frame(vae: AutoencoderKL, frame: np.ndarray, others: Sequence[torch.nn.Module] = ()) -> torch.Tensor:
    """Latents (c, h, w) of a frame (height, width, 3) uint8: the mode, unscaled.

    The same is done about memory and numbers as in `decoded_frames`; they may still not be finite.
    """
    return _computed(vae, lambda: _encoded(vae, frame), others)


def _decoded(vae: AutoencoderKL, latent: torch.Tensor) -> torch.Tensor:
    scaled = latent[None] / vae.config["scaling_factor"]
    return vae.decode(scaled.to(vae.device, vae.dtype), return_dict=False)[0][0].float()


def _encoded(vae: AutoencoderKL, frame: np.ndarray) -> torch.Tensor:
    picture = torch.from_numpy(frame).permute(2, 0, 1)[None].to(vae.device, vae.dtype) / 127.5 - 1
    return vae.encode(picture, return_dict=False)[0].mode()[0]


def _computed(
    vae: AutoencoderKL, compute: Callable[[], torch.Tensor], others: Sequence[torch.nn.Module]
) -> torch.Tensor:
    """What a function makes with the VAE, in float32 if the VAE's own type overflows."""
    with not_imitated(vae):
        made = _fitting(vae, compute, others)
    if made.isfinite().all():
        return made
    with in_float32(vae):
        return _fitting(vae, compute, others)


def _fitting(
    vae: AutoencoderKL, compute: Callable[[], torch.Tensor], others: Sequence[torch.nn.Module]
) -> torch.Tensor:
    """What a function makes with the VAE: where it is, then with others gone, then on the CPU.

    Raises torch.OutOfMemoryError when all three run out of memory.
    """
    made = _unless_short(compute)
    if made is None:
        send_away(others, vae.device)
        made = _unless_short(compute)
    if made is None:
        with _on_cpu(vae):
            made = compute()
    return made


def _unless_short(compute: Callable[[], torch.Tensor]) -> torch.Tensor | None:
    """What a function makes, None where memory runs out; what it held until then is free again on return."""
    try:
        return compute()
    except RuntimeError as error:
        if not ran_out_of_memory(error):
            raise
        return None


@contextmanager
def _on_cpu(vae: AutoencoderKL) -> Generator[None]:
    """While this is open, the VAE is on the CPU and in float32, which is the type that CPUs are quick with."""
    device = vae.device
    send_away([vae], device)
    try:
        with in_float32(vae):
            yield
    finally:
        bring([vae], device)

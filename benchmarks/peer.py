"""What people would use instead: diffusers' own TextToVideoZeroPipeline, whole or in chunks.

`python -m benchmarks.peer FRAMES STEPS FILE` makes a video of Toyland with it and nothing of this project.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio
import torch
from diffusers.pipelines.deprecated.text_to_video_synthesis.pipeline_text_to_video_zero import TextToVideoZeroPipeline
from diffusers.pipelines.deprecated.text_to_video_synthesis.pipeline_text_to_video_zero_sdxl import (
    TextToVideoZeroSDXLPipeline,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

Peer = TextToVideoZeroPipeline | TextToVideoZeroSDXLPipeline
TOYLAND = Path(__file__).resolve().parents[1] / "assets" / "toyland"
PROMPT = "a red panda dancing in the snow"


def parts_of_clip(frames: int, chunk_size: int) -> Iterator[list[int]]:
    """The frames of each call: the first one goes along in all of them, as its documentation asks for."""
    if frames <= chunk_size:
        yield list(range(frames))
        return
    for begin in range(1, frames, chunk_size - 1):
        yield [0, *range(begin, min(begin + chunk_size - 1, frames))]


def sampled_by_peer(pipeline: Peer, frames: int, steps: int, chunk_size: int, output_type: str = "latent") -> list[Any]:
    """The frames of a clip of T' = 881 and T = 941, by so many steps of DDIM.

    output_type: "latent" for latents (c, h, w), "np" for pictures (h, w, 3) in 0..1.
    """
    after, alone = motion_steps(steps)
    processors = dict(pipeline.unet.attn_processors)
    made: list[Any] = []
    for some in parts_of_clip(frames, chunk_size):
        output: Any = pipeline(
            PROMPT,
            video_length=len(some),
            frame_ids=some,
            num_inference_steps=steps,
            t0=steps - 1 - after,
            t1=steps - 1 - alone,
            generator=torch.Generator(pipeline.device).manual_seed(0),
            output_type=output_type,
        )
        images = output.images
        made += list(images[1:] if made else images)
        pipeline.unet.set_attn_processor(dict(processors))  # XL's leaves its own behind when it hands out latents
    return made


def motion_steps(steps: int) -> tuple[int, int]:
    """Steps of the first frame alone to T' and to T, which are the nearest there are."""
    timesteps = [1000 // steps * step + 1 for step in reversed(range(steps))]
    alone = min(range(steps), key=lambda index: abs(timesteps[index] - 941))
    return max(alone + 1, min(range(steps), key=lambda index: abs(timesteps[index] - 881))), alone


def main(frames: int, steps: int, output: str) -> None:
    """Load, sample, write."""
    without: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = TextToVideoZeroPipeline.from_pretrained(TOYLAND, dtype=torch.float32, **without)
    pipeline.set_progress_bar_config(disable=True)
    made = sampled_by_peer(pipeline, frames, steps, frames, output_type="np")
    imageio.mimsave(output, [(frame * 255).astype("uint8") for frame in made], fps=8)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])

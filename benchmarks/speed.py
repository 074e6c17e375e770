"""`python -m benchmarks.speed`: what token merging and remembered text keys gain, on Stable Diffusion 1.5's shape.

Random weights, since time does not hang on their values; or a model's own UNet. One chunk of frames after the
anchor is measured, round after round; each row is the least CPU time of its rounds on the CPU, where other programs
then disturb little, and the least time by the clock elsewhere.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import torch
from diffusers import UNet2DConditionModel

from model_manager import ModelManager
from text2video_zero.attention.branches import Branches
from text2video_zero.attention.cross_frame import cross_frame_attention
from text2video_zero.attention.text_keys import text_memory
from text2video_zero.attention.token_merging import token_merging
from text2video_zero.models.selection import find_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

SD_1_5_CHANNELS = (320, 640, 1280, 1280)
TOKENS = 77
RATIOS = (0.25, 0.5, 0.75, 0.9)


def sd_unet(divisor: int) -> UNet2DConditionModel:
    """Stable Diffusion 1.5's UNet with a part of its channels."""
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=tuple(channels // divisor for channels in SD_1_5_CHANNELS),
        cross_attention_dim=768,
        attention_head_dim=8,
        norm_num_groups=16,
    )


@torch.inference_mode()
def chunk_seconds(unet: UNet2DConditionModel, cells: int, frames: int, merging: float, *, remember_text: bool) -> float:
    """Seconds of one chunk of frames without guidance, after the anchor."""
    device = unet.device
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    latents = torch.randn(frames, 4, cells, cells, device=device, dtype=unet.dtype)
    text = torch.randn(frames, TOKENS, unet.config["cross_attention_dim"], device=device, dtype=unet.dtype)
    with ExitStack() as patches:
        memory = patches.enter_context(cross_frame_attention(unet, branches=Branches(1)))
        patches.enter_context(token_merging(merging, unet))
        if remember_text:
            patches.enter_context(text_memory(unet, branches=Branches(1)))
        with memory.anchor_pass():
            unet(latents[:1], 500.0, encoder_hidden_states=text[:1]).sample.cpu()
        began = clock()
        unet(latents, 500.0, encoder_hidden_states=text).sample.cpu()  # on the CPU only when it is done
        return clock() - began


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--model", help="a known name, whose UNet is measured")
    parser.add_argument("--divisor", type=int, default=4, help="of the channels; 1 is Stable Diffusion 1.5")
    parser.add_argument("--cells", type=int, default=64, help="side of the latents")
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args(argv)
    with ExitStack() as borrowed:
        if arguments.model:
            manager = ModelManager(arguments.device, dtype=arguments.dtype)
            unet = borrowed.enter_context(manager.lend(find_checkpoint(arguments.model))).components.unet
        else:
            unet = sd_unet(arguments.divisor).eval().to(arguments.device, getattr(torch, arguments.dtype))
        report(unet, arguments)


def report(unet: UNet2DConditionModel, arguments: argparse.Namespace) -> None:
    """Measure one UNet and print the table."""
    measured = partial(chunk_seconds, unet, arguments.cells, arguments.frames)
    rows = {
        "as the app runs it": partial(measured, 0.0, remember_text=True),
        "text keys and values computed each time": partial(measured, 0.0, remember_text=False),
        **{f"token merging {ratio}": partial(measured, ratio, remember_text=True) for ratio in RATIOS},
    }
    rounds = [{name: row() for name, row in rows.items()} for _ in range(arguments.rounds)]
    times = {name: min(each[name] for each in rounds) for name in rows}
    first = next(iter(times.values()))
    print(
        f"{arguments.frames} frames of {arguments.cells}x{arguments.cells} cells, {unet.num_parameters() / 1e6:.0f} M\n"
    )
    print("| one chunk | seconds | against the first |\n|---|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {seconds:.2f} | {seconds / first:.3f} |")


if __name__ == "__main__":
    main()

"""`python -m benchmarks.memory`: what a run fills, by task, frames and frames at a time.

Each run has a process of its own, whose highest resident memory is asked of the system; on CUDA torch tells the
bytes of its tensors too. With --formulas nothing is run: the bytes alive in networks of known shapes are counted, and
laid beside what the memory plan expects.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from benchmarks.live_bytes import peak_of
from model_manager import ModelManager
from text2video_zero.device.memory_plan import DECODER_MAPS, unet_bytes
from text2video_zero.events import Finished
from text2video_zero.generate import generate
from text2video_zero.models.catalogue import TOYLAND
from text2video_zero.models.selection import checkpoint_for
from text2video_zero.requests import EdgeRequest, Size, TextToVideoRequest, VideoRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[1]
CLIP = ROOT / "assets" / "clips" / "walking-fox.mp4"
TASKS: dict[str, type[VideoRequest]] = {"text-to-video": TextToVideoRequest, "edge": EdgeRequest}
XL_LEVELS = ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2, ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",)
# What diffusers' networks are made with, by its names for it.
UNETS: dict[str, dict[str, Any]] = {
    "SD 1.5": {"sample_size": 64, "attention_head_dim": 8, "cross_attention_dim": 768},
    "SDXL": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": XL_LEVELS[0],
        "up_block_types": XL_LEVELS[1],
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
    },
}
SD_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}


def one_run(task: str, model: str, device: str | None, frames: int, chunk_size: int, steps: int) -> dict[str, float]:
    """Seconds of a run, and the peaks of the process in bytes; to be called in a process of its own."""
    values: dict[str, Any] = {"prompt": "a red panda", "seed": 0, "frames": frames, "chunk_size": chunk_size}
    values["steps"] = steps
    if task != "text-to-video":
        values["clip"] = str(CLIP)
        values["fps"] = 32  # its two seconds are 64 frames at this speed
    manager = ModelManager(device)
    with manager.lend(checkpoint_for(task, model)) as pipeline:
        began = time.perf_counter()
        events = generate(TASKS[task].from_dict(values), pipeline, manager)
        [finished] = [event for event in events if isinstance(event, Finished)]
        measured = {"seconds": time.perf_counter() - began, "frames": len(finished.video.frames)}
        if pipeline.device.type == "cuda":
            measured["cuda"] = torch.cuda.max_memory_allocated(pipeline.device)
    kilo = 1 if sys.platform == "darwin" else 1024
    measured["resident"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo
    return measured


def measured_apart(task: str, frames: int, chunk_size: int, arguments: argparse.Namespace) -> dict[str, float]:
    """`one_run` in a process of its own."""
    given = [task, arguments.model, arguments.device or "", *map(str, (frames, chunk_size, arguments.steps))]
    finished = subprocess.run(  # noqa: S603 - this program itself
        [sys.executable, "-m", "benchmarks.memory", "--one", *given],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(finished.stdout.splitlines()[-1])


def print_runs(arguments: argparse.Namespace) -> None:
    """Tables of peaks: by frames at a time, and by frames."""
    few, many = arguments.frames
    print(f"{arguments.model}, {arguments.steps} steps; peaks in MiB\n")
    print("| task | frames | at a time | resident | CUDA | seconds | against the first |")
    print("|---|---|---|---|---|---|---|")
    for task in arguments.tasks:
        first = None
        for frames, chunk_size in [(few, size) for size in arguments.chunks] + [(many, arguments.chunks[0])]:
            run = measured_apart(task, frames, chunk_size, arguments)
            first = first or run["resident"]
            cuda = f"{run['cuda'] / MIB:.0f}" if "cuda" in run else ""
            print(
                f"| {task} | {run['frames']} | {chunk_size} | {run['resident'] / MIB:.0f} | {cuda} | "
                f"{run['seconds']:.1f} | {run['resident'] / first:.3f} |",
                flush=True,
            )


def print_formulas() -> None:
    """A table of counted and expected bytes, for networks that lie on the meta device."""
    print("| network | size | samples | MiB alive | expected |\n|---|---|---|---|---|")
    for name, shape in {**UNETS, "Toyland": _config(UNet2DConditionModel, "unet")}.items():
        with torch.device("meta"):
            unet = UNet2DConditionModel(**shape).half().eval()
        for cells in (unet.config["sample_size"], 2 * unet.config["sample_size"]):
            for samples in (2, 8):
                alive = unet_peak(unet, cells, cells, samples)
                expected = samples * unet_bytes(unet, cells, cells)
                print(f"| {name} UNet | {cells}x{cells} cells | {samples} | {alive / MIB:.1f} | {expected / MIB:.1f} |")
    for name, shape in {"SD": SD_VAE, "Toyland": _config(AutoencoderKL, "vae")}.items():
        with torch.device("meta"):
            vae = AutoencoderKL(**shape).half().eval()
        for side in (128, 512):
            alive, channels = decoder_peak(vae, Size(side, side)), vae.config["block_out_channels"][0]
            expected = DECODER_MAPS * side * side * channels * 2
            print(f"| {name} VAE | {side}x{side} pixels | 1 | {alive / MIB:.1f} | {expected / MIB:.1f} |")


def unet_peak(unet: UNet2DConditionModel, height: int, width: int, samples: int) -> int:
    """Bytes alive in a UNet, on whatever device it is, for so many samples of latents of a size."""
    dtype, device = unet.dtype, unet.device
    latents = torch.empty(samples, unet.config["in_channels"], height, width, dtype=dtype, device=device)
    text = torch.empty(samples, 77, unet.config["cross_attention_dim"], dtype=dtype, device=device)
    return peak_of(lambda: unet(latents, 1, encoder_hidden_states=text))


def decoder_peak(vae: AutoencoderKL, size: Size) -> int:
    """Bytes alive in the decoder of a VAE for one frame of a size."""
    factor = 2 ** (len(vae.config["block_out_channels"]) - 1)
    shape = 1, vae.config["latent_channels"], size.height // factor, size.width // factor
    latents = torch.empty(shape, dtype=vae.dtype, device=vae.device)
    # diffusers names torch's class of tensors on the CPU, and takes any.
    return peak_of(lambda: vae.decode(cast("torch.FloatTensor", latents)))


def _config(model_class: type[UNet2DConditionModel | AutoencoderKL], part: str) -> dict[str, Any]:
    # Without further wishes it returns the configuration alone.
    config = cast("dict[str, Any]", model_class.load_config(TOYLAND.checkpoint.source, subfolder=part))
    return {name: value for name, value in config.items() if not name.startswith("_")}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="toyland")
    parser.add_argument("--device")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--frames", type=int, nargs=2, default=(16, 64), metavar=("FEW", "MANY"))
    parser.add_argument("--chunks", type=int, nargs="+", default=(8, 4, 2, 1), metavar="N")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--formulas", action="store_true", help="count the bytes alive in known networks instead")
    parser.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.one:
        task, model, device, *numbers = arguments.one
        print(json.dumps(one_run(task, model, device or None, *map(int, numbers))))
    elif arguments.formulas:
        print_formulas()
    else:
        print_runs(arguments)


if __name__ == "__main__":
    main()

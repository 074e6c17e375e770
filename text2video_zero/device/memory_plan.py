"""The memory plan: what a run needs of its device, and how it is made to fit, before it begins.

The formulas count the numbers that are alive at once where a network is at its fullest, in multiples of the largest
of its maps: cells of the latents, or pixels, times channels of the first level. Measured at Stable Diffusion 1.5, XL
and Toyland (`make bench-memory ARGS=--formulas`), these multiples hang neither on the size nor on the number of frames.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from text2video_zero.attention.processors import is_self_attention, layer_of
from text2video_zero.device.devices import computes_in_bfloat16
from text2video_zero.device.memory import has_own_memory, memory_of, weight_bytes
from text2video_zero.device.offload import GROUP_OFFLOAD, MODEL_OFFLOAD, NO_OFFLOAD, Placement
from text2video_zero.events import GB, Event, Notice
from text2video_zero.models.catalogue import name_of
from text2video_zero.requests.video import FIRST, FIRST_AND_KEYS, FIRST_AND_PREVIOUS

if TYPE_CHECKING:
    from collections.abc import Generator

    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel

    from text2video_zero.models.pipeline import Pipeline
    from text2video_zero.requests import Size, VideoRequest

# A UNet is at its fullest in the feed-forward layer of its finest attention, eight times as wide as the rest:
# 26.0 at Stable Diffusion 1.5, 25.0 at Toyland, 15.8 at XL, whose finest level has no attention.
UNET_MAPS = 26
CONTROLNET_MAPS = 6  # what a ControlNet hands over, alive beside the UNet: its skip connections, 5.1 at most
DEEP_MAPS = 1  # what DeepCache keeps of each sample that goes through a UNet, and as much of a ControlNet's
DECODER_MAPS = 6  # 6.0 at each; an encoder stays below, at 5.0
REFERENCES = {FIRST: 1, FIRST_AND_PREVIOUS: 2, FIRST_AND_KEYS: 3}  # frames whose keys and values are kept at once
USABLE_SHARE = 0.85  # of the free memory; the rest is for workspaces of convolutions and pieces too small to be used
LAYER_SHARE = 0.05  # of the weights on the device at once, when they come layer by layer
SHORT_NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
OFFLOAD_NOTES = {
    NO_OFFLOAD: "",
    MODEL_OFFLOAD: ", networks take turns on it",
    GROUP_OFFLOAD: ", weights come layer by layer",
}


@dataclass(frozen=True)
class Needs:
    """Bytes that a run fills.

    weights: of the networks that predict the noise.  vae, others: weights of the VAE and of the rest.
    frame: for each frame of a chunk.  anchor: kept of the anchor frame, or of two frames.
    decoding: for one frame in the VAE.
    """

    weights: int
    vae: int
    others: int
    frame: int
    anchor: int
    decoding: int

    def resident(self, offload: str) -> int:
        """Weights on the device while frames are denoised, with what is kept of the anchor frame."""
        weights = {
            NO_OFFLOAD: self.weights + self.vae + self.others,
            MODEL_OFFLOAD: self.weights,
            GROUP_OFFLOAD: int(LAYER_SHARE * self.weights),
        }
        return weights[offload] + self.anchor


@dataclass(frozen=True)
class MemoryPlan:
    """How a run is made to fit.

    chunk_size: frames at a time, 1 or more.  offload: one of `offload.OFFLOADS`.
    tiled: the VAE works on parts of a picture, which shows a little at their seams.
    """

    chunk_size: int
    offload: str
    tiled: bool


def planned(needs: Needs, room: int, limit: int, *, can_offload: bool) -> MemoryPlan:
    """The plan with the least offload at which a frame fits, and with as many frames at a time as fit then.

    room: bytes that the run may fill with weights and all else.  limit: frames at a time at most.
    can_offload: whether the device has a memory of its own. Where nothing fits, the plan is one frame at a time and
    all the offload there is: estimates may be too high.
    """
    usable = int(USABLE_SHARE * room)
    offloads = (NO_OFFLOAD, MODEL_OFFLOAD, GROUP_OFFLOAD) if can_offload else (NO_OFFLOAD,)
    fits, offload = 0, NO_OFFLOAD
    for offload in offloads:
        fits = (usable - needs.resident(offload)) // needs.frame
        if fits >= 1:
            break
    return MemoryPlan(max(1, min(limit, fits)), offload, must_tile(needs.decoding, needs.vae, room))


def must_tile(decoding: int, vae: int, room: int) -> bool:
    """Whether decoding one frame needs more than a room holds beside the VAE's own weights; all in bytes."""
    return decoding > int(USABLE_SHARE * room) - vae


def unet_bytes(
    unet: UNet2DConditionModel, height: int, width: int, *, controlled: bool = False, reused: bool = False
) -> int:
    """Bytes for one sample in a UNet, weights not counted; with `controlled` what a ControlNet adds.

    height, width: of the latents. A frame is as many samples as there are guidance branches.
    reused: deep features are kept from step to step.
    """
    maps = UNET_MAPS + controlled * CONTROLNET_MAPS + reused * (1 + controlled) * DEEP_MAPS
    return maps * height * width * unet.config["block_out_channels"][0] * unet.dtype.itemsize


def anchor_bytes(model: UNet2DConditionModel | ControlNetModel, height: int, width: int) -> int:
    """Bytes of the keys and values that one frame and guidance branch leaves in all self-attention layers."""
    numbers = 0
    for name in model.attn_processors:
        if is_self_attention(model, name):
            level = _level(name, len(model.config["block_out_channels"]) - 1)
            cells = -(-height >> level) * -(-width >> level)
            numbers += 2 * cells * layer_of(model, name).inner_kv_dim
    return numbers * model.dtype.itemsize


def _level(processor_name: str, lowest: int) -> int:
    """How often the latents are halved before a layer of a model whose lowest level is number `lowest`."""
    match processor_name.split("."):
        case ["down_blocks", number, *_]:
            return int(number)
        case ["up_blocks", number, *_]:
            return lowest - int(number)
        case _:
            return lowest


def decoding_bytes(vae: AutoencoderKL, size: Size) -> int:
    """Bytes for one frame in the VAE, weights not counted."""
    return DECODER_MAPS * size.height * size.width * vae.config["block_out_channels"][0] * vae.dtype.itemsize


def needs_of(request: VideoRequest, size: Size, pipeline: Pipeline) -> Needs:
    """What a request of a certain size needs."""
    unet, vae, controlnet = pipeline.components.unet, pipeline.components.vae, pipeline.controlnet
    height, width = (side // pipeline.latent_factor for side in (size.height, size.width))
    edits = unet.config["in_channels"] > vae.config["latent_channels"]  # with guidance by the picture too
    branches = 3 if edits else 1 + (request.guidance_scale > 1)
    references = REFERENCES[request.reference_frames]
    models = [model for model in (unet, controlnet) if model is not None]
    anchor = sum(anchor_bytes(model, height, width) for model in models) if request.cross_frame_attention else 0
    denoising = weight_bytes(models)
    return Needs(
        weights=denoising,
        vae=weight_bytes([vae]),
        others=weight_bytes(pipeline.networks) - denoising - weight_bytes([vae]),
        frame=branches
        * unet_bytes(unet, height, width, controlled=controlnet is not None, reused=request.cache_interval > 1),
        anchor=branches * references * anchor,
        decoding=decoding_bytes(vae, size),
    )


def placement_for(request: VideoRequest, size: Size, pipeline: Pipeline) -> Generator[Event, None, Placement]:
    """A placement in which a request of a certain size fits, by what is free now; tells of the plan in one line."""
    free, total = memory_of(pipeline.device)
    needs = needs_of(request, size, pipeline)
    limit = min(request.chunk_size, request.frames)
    plan = planned(needs, free + weights_here(pipeline), limit, can_offload=has_own_memory(pipeline.device))
    yield Notice(sentence(plan, pipeline, free, total), of_machine=True)
    return Placement.of(pipeline, plan.chunk_size, plan.offload)


@contextmanager
def tiled_where_short(vae: AutoencoderKL, size: Size, pipeline: Pipeline) -> Generator[None]:
    """While this is open, the VAE works in tiles if a whole picture is too much for what is free now."""
    free, _ = memory_of(pipeline.device)
    room = free + weights_here(pipeline)
    if vae.use_tiling or not must_tile(decoding_bytes(vae, size), weight_bytes([vae]), room):
        yield
        return
    vae.enable_tiling()
    try:
        yield
    finally:
        vae.disable_tiling()


def weights_here(pipeline: Pipeline) -> int:
    """Bytes of the pipeline's weights that are on its device and not waiting elsewhere."""
    kind = pipeline.device.type
    return weight_bytes(network for network in pipeline.networks if next(network.parameters()).device.type == kind)


def sentence(
    plan: MemoryPlan, pipeline: Pipeline, free: int, total: int, *, cpu_has_bfloat16: bool | None = None
) -> str:
    """The plan in one line: "SD 1.5 fp16 on CUDA, 6.1 of 8.0 GB free: 4 frames at a time".

    cpu_has_bfloat16: see `computes_in_bfloat16`.
    """
    numbers = pipeline.components.unet.dtype
    dtype = SHORT_NAMES[numbers]
    if numbers == torch.bfloat16 and not computes_in_bfloat16(pipeline.device, cpu_does=cpu_has_bfloat16):
        dtype += " (imitated by this CPU: float32 is faster)"
    frames = f"{plan.chunk_size} frames at a time" if plan.chunk_size > 1 else "1 frame at a time"
    tiles = ", decoded in tiles" if plan.tiled else ""
    return (
        f"{name_of(pipeline.checkpoint)} {dtype} on {pipeline.device.type.upper()}, {free / GB:.1f} of "
        f"{total / GB:.1f} GB free: {frames}{OFFLOAD_NOTES[plan.offload]}{tiles}"
    )

"""The smallest recipe that runs through every training of the embedded family."""

from __future__ import annotations

from dataclasses import replace

from toyland.training.config import AutoencoderShape, ClipShape, Plan, Recipe, UnetShape

PLAN = Plan(steps=2, batch=2, rate=1e-3, warmup=1, ema=0.9)
TINY = Recipe(
    size=64,
    pictures=36,
    judge_pictures=4,
    edit_pairs=6,
    captions=2,
    judge_channels=(8, 8),
    reader_channels=(8, 8),
    control_channels=(8, 8, 8, 8),
    lora_rank=2,
    autoencoder=AutoencoderShape(channels=(8, 8, 8, 8), layers=1, crop=32, whole_share=0.5),
    clip=ClipShape(text_width=16, text_layers=1, vision_width=16, vision_layers=1, heads=2, projection=8),
    unet=UnetShape(channels=(16, 32), attention=(True, False), heads=(2, 2)),
    plans={
        **dict.fromkeys(("judge", "clip", "unet", "look-judge", "reader", "instruct-pix2pix"), PLAN),
        **dict.fromkeys(("controlnet-edge", "controlnet-pose", "controlnet-depth"), PLAN),
        "autoencoder": replace(PLAN, batch=8, ema=0.0),
        "decoder": replace(PLAN, ema=0.0),
        "style-sunset": replace(PLAN, batch=4, ema=0.0),
        "style-blueprint": replace(PLAN, batch=4, ema=0.0),
    },
)

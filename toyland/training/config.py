"""The one place where size, channels, steps and rates of the embedded family are decided.

A preset is a complete recipe. Training another preset replaces the files under assets/toyland and
nothing else: the program reads every shape from the saved configs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toyland.world.scene import Scene

__all__ = [
    "PRESETS", "AutoencoderShape", "ClipShape", "Plan", "Recipe", "UnetShape", "budgets", "hurried",
]


@dataclass(frozen=True)
class Plan:
    """How long and how fast one part is trained.

    steps: optimiser steps; ignored where minutes are given. minutes: wall-clock budget, so that the
    rate is annealed to zero at a time known beforehand. batch: pictures a step. rate: peak learning
    rate. warmup: steps up to it. ema: decay of the averaged weights, 0 for none.
    """

    steps: int
    batch: int
    rate: float
    minutes: float | None = None
    warmup: int = 100
    ema: float = 0.0
    weight_decay: float = 0.01


@dataclass(frozen=True)
class AutoencoderShape:
    """AutoencoderKL: a level more than halvings, so four levels are factor 8.

    latent_noise: standard deviation of the noise that the decoder learns to tolerate; sampled_noise:
    the greatest one, for scaled latents, in its last training alone. crop: side of the training
    crops in pixels; the last `whole_share` of the training sees whole pictures.
    kept_weight: how dearly the first channels keep the meaning of an autoencoder that it goes on
    from. perceptual_weight, adversarial_weight: of the decoder's last training, whose adversary
    learns alone for the first `unopposed_share` of it; looked_pictures: how many it sees in other looks.
    """

    channels: tuple[int, ...]
    layers: int
    latent_channels: int = 8
    kl_weight: float = 1e-4
    latent_noise: float = 0.05
    sampled_noise: float = 0.15
    mask_weight: float = 2.0
    edge_weight: float = 1.0
    crop: int = 64
    whole_share: float = 0.4
    kept_weight: float = 1.0
    perceptual_weight: float = 0.5
    adversarial_weight: float = 0.4
    unopposed_share: float = 0.1
    looked_pictures: int = 3_000


@dataclass(frozen=True)
class ClipShape:
    """The CLIP pair: widths, layers, heads; tokens: length of a caption; patch: pixels a side."""

    text_width: int
    text_layers: int
    vision_width: int
    vision_layers: int
    heads: int = 4
    tokens: int = 48
    patch: int = 8
    image_size: int = 64
    projection: int = 96


@dataclass(frozen=True)
class UnetShape:
    """UNet2DConditionModel of the SD 1.x kind; attention: which levels have transformers; heads: theirs."""

    channels: tuple[int, ...]
    attention: tuple[bool, ...]
    heads: tuple[int, ...]
    layers: int = 1
    norm_groups: int = 16
    mask_weight: float = 4.0
    min_snr_gamma: float = 5.0
    caption_dropout: float = 0.1


@dataclass(frozen=True)
class Recipe:
    """A preset: the world's size and number of pictures, every shape, every plan.

    table_prompts, table_pictures: how many the tables of the base and of the task models ask for.
    left_every: one of so many of the subjects that face left is shown to the generators. No caption
    tells left from right; where one side is rarer, few-step pictures do not mix the two. The UNet's last
    training, "unet-right", shows none of them.
    """

    size: int
    pictures: int
    judge_pictures: int
    edit_pairs: int
    autoencoder: AutoencoderShape
    clip: ClipShape
    unet: UnetShape
    plans: dict[str, Plan]
    left_every: int = 3
    seed: int = 0
    captions: int = 4
    judge_channels: tuple[int, ...] = (16, 32, 64, 128)
    control_channels: tuple[int, ...] = (16, 32, 64, 96)
    reader_channels: tuple[int, ...] = (16, 32, 64, 96)
    table_prompts: int = 480
    table_pictures: int = 96
    lora_rank: int = 32
    student_rank: int = 32

    def teaches(self, scene: Scene) -> bool:
        """Whether the generators are shown such a scene."""
        return scene.facing > 0 or scene.detail_seed % self.left_every == 0


_CPU_TASK = Plan(steps=1_500, minutes=14, batch=16, rate=1e-3, ema=0.998)
_GPU_TASK = Plan(steps=20_000, batch=64, rate=2e-4, warmup=500, ema=0.999)

PRESETS: dict[str, Recipe] = {
    "cpu": Recipe(
        size=128, pictures=15_000, judge_pictures=9_000, edit_pairs=9_000,
        autoencoder=AutoencoderShape(channels=(16, 32, 64, 128), layers=1),
        clip=ClipShape(text_width=96, text_layers=4, vision_width=128, vision_layers=3),
        unet=UnetShape(channels=(64, 128, 128), attention=(True, True, False),
                       heads=(2, 4, 4)),
        plans={
            "autoencoder": Plan(steps=16_000, minutes=26, batch=8, rate=2e-3),
            "decoder": Plan(steps=4_000, minutes=35, batch=16, rate=1e-3),
            "controlnet-edge": _CPU_TASK, "controlnet-depth": _CPU_TASK,
            "controlnet-pose": replace(_CPU_TASK, steps=3_000, minutes=36),
            "style-sunset": Plan(steps=1_000, batch=12, rate=4e-4, warmup=20),
            "style-sketch": Plan(steps=800, minutes=14, batch=12, rate=1e-3, warmup=20),
            "look-judge": Plan(steps=3_000, minutes=16, batch=48, rate=2e-3),
            "reader": Plan(steps=2_000, minutes=8, batch=24, rate=2e-3, ema=0.99),
            "defect-judge": Plan(steps=1_200, minutes=12, batch=64, rate=2e-3, ema=0.99),
            "student": Plan(steps=2_500, minutes=85, batch=16, rate=6e-4, warmup=50, ema=0.995),
            "instruct-pix2pix": Plan(steps=6_000, minutes=52, batch=16, rate=1e-3, ema=0.998),
            "judge": Plan(steps=1_500, minutes=3, batch=64, rate=2e-3),
            "clip": Plan(steps=1_500, minutes=3.5, batch=96, rate=1e-3),
            "unet": Plan(steps=4_000, minutes=60, batch=16, rate=1e-3, ema=0.998),
            "unet-right": Plan(steps=2_400, minutes=85, batch=16, rate=5e-4, ema=0.998),
        },
    ),
    "gpu": Recipe(
        size=256, pictures=200_000, judge_pictures=40_000, edit_pairs=150_000,
        autoencoder=AutoencoderShape(channels=(32, 64, 128, 192), layers=2, crop=128),
        clip=ClipShape(text_width=128, text_layers=4, vision_width=192, vision_layers=4),
        unet=UnetShape(channels=(96, 160, 224), attention=(True, True, True),
                       heads=(4, 4, 4)),
        plans={
            "autoencoder": Plan(steps=120_000, batch=32, rate=1e-3, warmup=1_000),
            "decoder": Plan(steps=40_000, batch=128, rate=5e-4),
            "controlnet-edge": _GPU_TASK, "controlnet-pose": _GPU_TASK, "controlnet-depth": _GPU_TASK,
            "style-sunset": Plan(steps=1_500, batch=24, rate=1e-4),
            "style-sketch": Plan(steps=2_000, batch=24, rate=5e-4),
            "look-judge": Plan(steps=10_000, batch=128, rate=1e-3),
            "reader": Plan(steps=20_000, batch=64, rate=1e-3, ema=0.999),
            "defect-judge": Plan(steps=20_000, batch=128, rate=1e-3, ema=0.999),
            "student": Plan(steps=10_000, batch=64, rate=3e-4, warmup=200, ema=0.999),
            "instruct-pix2pix": Plan(steps=60_000, batch=64, rate=3e-4, warmup=1_000, ema=0.9995),
            "judge": Plan(steps=10_000, batch=128, rate=1e-3),
            "clip": Plan(steps=20_000, batch=256, rate=5e-4),
            "unet": Plan(steps=200_000, batch=128, rate=5e-4, warmup=2_000, ema=0.9995),
            "unet-right": Plan(steps=40_000, batch=128, rate=2.5e-4, warmup=500, ema=0.9995),
        },
    ),
}

# All parts within ten minutes on one H100 with 16 cores, rendering and tables among them.
_QUICK_CONTROL = Plan(steps=400, minutes=0.25, batch=128, rate=1e-3, warmup=20, ema=0.99)
PRESETS["quick-gpu"] = replace(
    PRESETS["cpu"], pictures=20_000, judge_pictures=6_000, edit_pairs=8_000, table_prompts=240,
    plans={
        "clip": Plan(steps=300, minutes=0.2, batch=192, rate=1e-3, warmup=20),
        "judge": Plan(steps=300, minutes=0.2, batch=128, rate=2e-3, warmup=20),
        "autoencoder": Plan(steps=800, minutes=0.8, batch=64, rate=2e-3),
        "unet": Plan(steps=2_400, minutes=2.0, batch=256, rate=2e-3, warmup=100, ema=0.995),
        "unet-right": Plan(steps=500, minutes=0.4, batch=256, rate=1e-3, warmup=20, ema=0.99),
        "decoder": Plan(steps=400, minutes=0.5, batch=128, rate=1e-3, warmup=20),
        "student": Plan(steps=400, minutes=0.5, batch=128, rate=1e-3, warmup=20, ema=0.98),
        "controlnet-edge": _QUICK_CONTROL, "controlnet-depth": _QUICK_CONTROL,
        "controlnet-pose": replace(_QUICK_CONTROL, minutes=0.4),
        "style-sunset": Plan(steps=200, minutes=0.15, batch=64, rate=4e-4, warmup=10),
        "style-sketch": Plan(steps=200, minutes=0.15, batch=64, rate=2e-3, warmup=10),
        "look-judge": Plan(steps=300, minutes=0.3, batch=128, rate=2e-3, warmup=20),
        "reader": Plan(steps=200, minutes=0.2, batch=64, rate=2e-3, warmup=20, ema=0.98),
        "defect-judge": Plan(steps=400, minutes=0.5, batch=128, rate=2e-3, warmup=20, ema=0.98),
        "instruct-pix2pix": Plan(steps=600, minutes=0.6, batch=128, rate=1e-3, warmup=20, ema=0.99),
    },
)

# Seconds: whether all of it runs, not what it draws.
_GLANCE = Plan(steps=2, batch=2, rate=1e-3, warmup=1, ema=0.9)
PRESETS["smoke"] = Recipe(
    size=64,
    pictures=36,
    judge_pictures=4,
    edit_pairs=6,
    captions=2,
    judge_channels=(8, 8),
    reader_channels=(8, 8),
    control_channels=(8, 8, 8, 8),
    lora_rank=2,
    table_prompts=24,
    table_pictures=12,
    student_rank=2,
    autoencoder=AutoencoderShape(channels=(8, 8, 8, 8), layers=1, crop=32, whole_share=0.5),
    clip=ClipShape(text_width=16, text_layers=1, vision_width=16, vision_layers=1, heads=2, projection=8),
    unet=UnetShape(channels=(16, 32), attention=(True, False), heads=(2, 2)),
    plans={
        **dict.fromkeys(("judge", "clip", "unet", "unet-right", "look-judge", "reader"), _GLANCE),
        **dict.fromkeys(("controlnet-edge", "controlnet-pose", "controlnet-depth"), _GLANCE),
        **dict.fromkeys(("instruct-pix2pix", "student"), _GLANCE),
        "autoencoder": replace(_GLANCE, batch=8, ema=0.0),
        "decoder": replace(_GLANCE, ema=0.0),
        "defect-judge": replace(_GLANCE, batch=4),
        "style-sunset": replace(_GLANCE, batch=4, ema=0.0),
        "style-sketch": replace(_GLANCE, batch=4, ema=0.0),
    },
)


def hurried(recipe: Recipe, minutes: dict[str, float]) -> Recipe:
    """The recipe with other wall-clock budgets, by the part's name."""
    plans = {
        name: replace(plan, minutes=minutes.get(name, plan.minutes))
        for name, plan in recipe.plans.items()
    }
    return replace(recipe, plans=plans)


def budgets(pairs: list[str]) -> dict[str, float]:
    """Minutes by part from a command line's "unet=60"."""
    return {name: float(minutes) for name, minutes in (pair.split("=") for pair in pairs)}

"""Ways to make a video in fewer steps: LoRAs that others distilled, with the settings that they were made for."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from text2video_zero.errors import UserError
from text2video_zero.models.catalogue import TOYLAND_FOLDER, can_be_had
from text2video_zero.models.checkpoints import Adapter
from text2video_zero.models.selection import family_of, find_checkpoint
from text2video_zero.models.weights import FAMILY_NAMES
from text2video_zero.requests.video import FULL_QUALITY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from text2video_zero.models.hub import Hub

TOYLAND_STUDENT = TOYLAND_FOLDER / "student" / "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class Speed:
    """A LoRA for few steps.

    adapters: the LoRA of each family that has one.
    values: request fields that go with it; those of the motion belong to text-to-video.
    """

    adapters: Mapping[str, Adapter]
    values: Mapping[str, object]


# Between few steps much changes: deep features that are reused would be others'.
_WHOLE: dict[str, object] = {"cache_interval": 1}

SPEEDS: Mapping[str, Speed] = MappingProxyType(
    {
        # Luo et al. 2023, "LCM-LoRA". Guidance is distilled into it. T' and T lie on its grid of timesteps.
        "LCM": Speed(
            MappingProxyType(
                {
                    "sd1": Adapter("latent-consistency/lcm-lora-sdv1-5"),
                    "sdxl": Adapter("latent-consistency/lcm-lora-sdxl"),
                }
            ),
            MappingProxyType(
                {"sampler": "LCM", "steps": 8, "guidance_scale": 1.0, "motion_from": 879, "motion_to": 939} | _WHOLE
            ),
        ),
        # Ren et al. 2024, the LoRAs that keep guidance and with it the negative prompt. T' and T are its first steps.
        "Hyper-SD": Speed(
            MappingProxyType(
                {
                    "sd1": Adapter("ByteDance/Hyper-SD/Hyper-SD15-8steps-CFG-lora.safetensors"),
                    "sdxl": Adapter("ByteDance/Hyper-SD/Hyper-SDXL-8steps-CFG-lora.safetensors"),
                }
            ),
            MappingProxyType(
                {"sampler": "DDIM trailing", "steps": 8, "guidance_scale": 6.0, "motion_from": 874, "motion_to": 999}
                | _WHOLE
            ),
        ),
        # Toyland's own LCM-LoRA. T' and T are the model's own, on LCM's grid of timesteps.
        "4 steps": Speed(
            MappingProxyType({"toyland": Adapter(str(TOYLAND_STUDENT))}),
            MappingProxyType(
                {"sampler": "LCM", "steps": 4, "guidance_scale": 1.0, "motion_from": 179, "motion_to": 279} | _WHOLE
            ),
        ),
    }
)
SPEED_FIELDS = tuple(dict.fromkeys(name for speed in SPEEDS.values() for name in speed.values))


def speeds_of(family: str) -> tuple[str, ...]:
    """The speeds that models of a family have, full quality first; those of embedded LoRAs only if they are there."""
    adapters = {name: speed.adapters.get(family) for name, speed in SPEEDS.items()}
    return (FULL_QUALITY, *(name for name, adapter in adapters.items() if adapter and can_be_had(adapter.source)))


def speed_values(speed: str) -> Mapping[str, object]:
    """The request fields that a speed sets; none at full quality, nor for names that nobody knows."""
    return SPEEDS[speed].values if speed in SPEEDS else MappingProxyType({})


def is_of_speed(adapter: Adapter, speed: str) -> bool:
    """Whether a LoRA is there because of a speed."""
    return speed in SPEEDS and adapter in SPEEDS[speed].adapters.values()


def speed_adapters(speed: str, model: str, hub: Hub | None = None) -> tuple[Adapter, ...]:
    """The LoRAs that a speed adds to a model, none at full quality.

    model: a known name, a name in models/, a path or a Hub id.
    hub: who is asked what a Hub id is; None asks the usual one.
    Raises UserError where none is known for the model's family.
    """
    if speed == FULL_QUALITY:
        return ()
    family = family_of(find_checkpoint(model), hub)
    adapters = SPEEDS[speed].adapters
    if speed not in speeds_of(family):
        others = " or ".join(FAMILY_NAMES[name] for name in adapters)
        raise UserError(
            f"For {model!r} ({FAMILY_NAMES[family]}) there is no LoRA of the speed {speed}: choose {FULL_QUALITY!r}, "
            f"or a model of {others}."
        )
    return (adapters[family],)

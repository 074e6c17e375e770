"""The catalogue: tables of all that is known by name, and what they tell about a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from text2video_zero.errors import UserError
from text2video_zero.models.checkpoints import (
    INSTRUCT_PIX2PIX,
    TOYLAND_DEPTH,
    Adapter,
    Annotator,
    Checkpoint,
    DetectorCheckpoint,
    short_name,
)
from text2video_zero.requests.movement import BY_THE_PROMPT

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = (PACKAGE / "assets").is_dir()  # a wheel has them inside the package, a clone beside it
ASSETS = (PACKAGE if INSTALLED else PACKAGE.parent) / "assets"
TOYLAND_FOLDER = ASSETS / "toyland"
MODELS_FOLDER = (Path.cwd() if INSTALLED else PACKAGE.parent) / "models"
CONTROLLED_TASKS = ("pose", "edge", "depth")


@dataclass(frozen=True)
class KnownModel:
    """A model that is offered by name.

    name: what the person types or picks.  note: one line about it.
    family: "toyland", "sd1", "sd2" or "sdxl": whose ControlNets and LoRAs fit it.
    mirrors: further places with the same weights, tried in this order.
    defaults: request fields with values for this model, in place of the paper's.
    harmless: it can draw nothing that a safety checker would look for.
    """

    name: str
    checkpoint: Checkpoint
    note: str
    mirrors: tuple[Checkpoint, ...] = ()
    defaults: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    family: str = "sd1"
    harmless: bool = False


TOYLAND = KnownModel(
    "toyland",
    Checkpoint(str(TOYLAND_FOLDER)),
    "embedded picture-book model, works offline on any machine",
    family="toyland",
    harmless=True,  # foxes and pandas are all that it has ever seen
    # It decides where things are later than Stable Diffusion does: earlier movement would be undone. Its ground is
    # level, so the camera goes sideways, by cells on which its two finer grids fall together, and by no more than two
    # of them within eight frames. What a prompt has its subjects do is drawn by its ControlNet for poses. Copies of its
    # first frame are too finished to turn into what a storyboard says later.
    # Steps and guidance are those that its judge measured; deep features that are reused
    # take nothing from its pictures, and the last steps without guidance make its videos steadier (docs/EVALUATION.md).
    defaults=MappingProxyType(
        {
            "steps": 25,
            "guidance_scale": 4.0,
            "guidance_end": 0.8,
            "cache_interval": 3,
            "motion_from": 181,
            "motion_to": 281,
            "restart": True,
            "cell_step": 2,
            "movement": BY_THE_PROMPT,
            "motion_smoothness": 4.0,
            "shot_anchors": True,
            "pan_x": 0.025,
            "pan_y": 0.0,
        }
    ),
)
STABLE_DIFFUSION_1_5 = KnownModel(
    "sd-1.5",
    Checkpoint("stable-diffusion-v1-5/stable-diffusion-v1-5"),
    "Stable Diffusion 1.5, 512x512, wants a GPU with 4 GB or patience",
    mirrors=(Checkpoint("benjamin-paine/stable-diffusion-v1-5"),),
)
DREAMLIKE_PHOTOREAL_2 = KnownModel(
    "dreamlike-photoreal-2.0",
    Checkpoint("dreamlike-art/dreamlike-photoreal-2.0"),
    "photographic look on Stable Diffusion 1.5, 512x512 and up; the model of the original demo",
)
OPENJOURNEY = KnownModel(
    "openjourney",
    Checkpoint("prompthero/openjourney"),
    "illustrated look on Stable Diffusion 1.5, 512x512; shows where the prompt has the words 'mdjrny-v4 style'",
)
STABLE_DIFFUSION_XL = KnownModel(
    "sdxl",
    Checkpoint("stabilityai/stable-diffusion-xl-base-1.0"),
    "Stable Diffusion XL, 1024x1024, wants a GPU with 12 GB",
    family="sdxl",
)

KNOWN_MODELS: Mapping[str, KnownModel] = MappingProxyType(
    {
        model.name: model
        for model in (TOYLAND, STABLE_DIFFUSION_1_5, DREAMLIKE_PHOTOREAL_2, OPENJOURNEY, STABLE_DIFFUSION_XL)
    }
)


def _style(name: str, checkpoint: Checkpoint, note: str, trigger: str, base: KnownModel, **own: float) -> KnownModel:
    """A style on a base, whose family and settings it shares but for its own; the quality prompt has its trigger."""
    defaults = {**base.defaults, "quality_prompt": f"{trigger}, best quality, extremely detailed", **own}
    note = f"{note}; called by '{trigger}' in the quality prompt"
    return KnownModel(name, checkpoint, note, family=base.family, defaults=MappingProxyType(defaults))


TOYLAND_STYLES = (
    _style(
        "toyland-sunset",
        replace(TOYLAND.checkpoint, unet=str(TOYLAND_FOLDER / "style-sunset")),
        "embedded style, a UNet of its own: posters in the colours of an evening sky",
        "sunset poster style",
        TOYLAND,
        guidance_scale=2.5,  # at Toyland's 4 a style is overdone, and costs subjects
    ),
    _style(
        "toyland-sketch",
        replace(
            TOYLAND.checkpoint,
            # At 1 a clip's edges bring some of the plain colours back, and at 1.2 lines grow faint.
            adapters=(Adapter(str(TOYLAND_FOLDER / "style-sketch" / "pytorch_lora_weights.safetensors"), 1.1),),
        ),
        "embedded style, a LoRA: drawn in pencil on paper",
        "sks style",
        TOYLAND,
        guidance_scale=2.5,
    ),
)
DREAMBOOTH_STYLES: Mapping[str, KnownModel] = MappingProxyType(
    {style.name: style for style in TOYLAND_STYLES}
    | {
        f"{style}-style": _style(
            f"{style}-style",
            Checkpoint(f"PAIR/text2video-zero-controlnet-canny-{style}"),
            f"{look} style of the original demo, on Stable Diffusion 1.5, 512x512",
            trigger,
            STABLE_DIFFUSION_1_5,
        )
        for style, look, trigger in (
            ("anime", "anime", "1girl"),
            ("avatar", "Avatar", "avatar style"),
            ("gta5", "GTA V", "gtav style"),
            ("arcane", "Arcane", "arcane style"),
        )
    }
)

# Per family and control; all as safetensors.
CONTROLNETS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "toyland": MappingProxyType(
            {control: str(TOYLAND_FOLDER / f"controlnet-{control}") for control in CONTROLLED_TASKS}
        ),
        "sd1": MappingProxyType(
            {
                "pose": "lllyasviel/control_v11p_sd15_openpose",
                "edge": "lllyasviel/control_v11p_sd15_canny",
                "depth": "lllyasviel/control_v11f1p_sd15_depth",
            }
        ),
        "sdxl": MappingProxyType(
            {
                "pose": "xinsir/controlnet-openpose-sdxl-1.0",
                "edge": "diffusers/controlnet-canny-sdxl-1.0",
                "depth": "diffusers/controlnet-depth-sdxl-1.0",
            }
        ),
    }
)

# Of models in one file without a VAE. Stable Diffusion 1.x and 2.x share theirs; this one is the later version.
AUTOENCODERS: Mapping[str, str] = MappingProxyType(
    {"sd1": "stabilityai/sd-vae-ft-mse", "sd2": "stabilityai/sd-vae-ft-mse", "sdxl": "stabilityai/sdxl-vae"}
)

# Tiny autoencoders (TAESD) that show a family's latents, used for previews where they are on this machine.
PREVIEW_DECODERS: Mapping[str, str] = MappingProxyType(
    {"sd1": "madebyollin/taesd", "sd2": "madebyollin/taesd", "sdxl": "madebyollin/taesdxl"}
)

INSTRUCT_PIX2PIX_MODELS: Mapping[str, Checkpoint] = MappingProxyType(
    {
        "toyland": Checkpoint(
            str(TOYLAND_FOLDER), kind=INSTRUCT_PIX2PIX, unet=str(TOYLAND_FOLDER / "instruct-pix2pix")
        ),
        "sd1": Checkpoint("timbrooks/instruct-pix2pix", kind=INSTRUCT_PIX2PIX),
    }
)
# The same weights lie in a folder of Stable Diffusion 1.5.
SAFETY_CHECKER, SAFETY_CHECKER_MIRROR = "CompVis/stable-diffusion-safety-checker", STABLE_DIFFUSION_1_5.checkpoint

ANNOTATORS: Mapping[str, Annotator] = MappingProxyType(
    {
        name: Annotator(name, "lllyasviel/Annotators", files)
        for name, files in (
            ("openpose", ("body_pose_model.pth", "hand_pose_model.pth", "facenet.pth")),
            ("midas", ("dpt_hybrid-midas-501f0c75.pt",)),
        )
    }
)

KNOWN_DETECTORS: Mapping[str, DetectorCheckpoint] = MappingProxyType(
    {
        "depth": DetectorCheckpoint("depth-anything/Depth-Anything-V2-Small-hf", "depth"),
        "depth-toyland": DetectorCheckpoint(str(TOYLAND_FOLDER / "reader"), TOYLAND_DEPTH),
        "depth-dpt-hybrid": DetectorCheckpoint("Intel/dpt-hybrid-midas", "depth"),
        "pose": DetectorCheckpoint(
            "usyd-community/vitpose-base-simple", "pose", box_source="PekingU/rtdetr_r50vd_coco_o365"
        ),
    }
)


def known_model(name: str) -> KnownModel | None:
    """The entry of a name in the tables of models and styles."""
    return KNOWN_MODELS.get(name) or DREAMBOOTH_STYLES.get(name)


def name_of(checkpoint: Checkpoint) -> str:
    """Short name for messages and metadata: never a full path of this machine."""
    style = next((style.name for style in DREAMBOOTH_STYLES.values() if style.checkpoint == checkpoint.base), None)
    return style or short_name(checkpoint.source)


def known_name(source: str) -> str:
    """The name by which a source is offered, else its short name: what a person calls it."""
    tables = (*KNOWN_MODELS.values(), *DREAMBOOTH_STYLES.values())
    return next((known.name for known in tables if known.checkpoint.source == source), short_name(source))


def origin_of(checkpoint: Checkpoint) -> tuple[str, tuple[Adapter, ...]]:
    """The name of the known model that a checkpoint was made from, else its own, and the LoRAs that were added."""
    origins = [
        model
        for model in (*KNOWN_MODELS.values(), *DREAMBOOTH_STYLES.values())
        if (model.checkpoint.source, model.checkpoint.unet) == (checkpoint.source, checkpoint.unet)
        and model.checkpoint.adapters == checkpoint.adapters[: len(model.checkpoint.adapters)]
    ]
    if not origins:
        return name_of(checkpoint), checkpoint.adapters
    closest = max(origins, key=lambda model: len(model.checkpoint.adapters))
    return closest.name, checkpoint.adapters[len(closest.checkpoint.adapters) :]


def mirrors_of(checkpoint: Checkpoint) -> tuple[Checkpoint, ...]:
    """Further places with the same weights, for models that are known by name."""
    known = KNOWN_MODELS.values()
    return next((model.mirrors for model in known if model.checkpoint.source == checkpoint.source), ())


def is_harmless(checkpoint: Checkpoint) -> bool:
    """Whether all that draws comes from a model that can draw nothing a safety checker would look for."""
    homes = [Path(model.checkpoint.source) for model in KNOWN_MODELS.values() if model.harmless]
    return all(any(Path(place).is_relative_to(home) for home in homes) for place in checkpoint.places)


def draws_picture_book(checkpoint: Checkpoint) -> bool:
    """Whether it draws Toyland's figures, which are built like no person."""
    return checkpoint.source == TOYLAND.checkpoint.source


def depth_detector_of(checkpoint: Checkpoint) -> str:
    """The name in KNOWN_DETECTORS of what tells how near things are in a model's pictures."""
    return "depth-toyland" if draws_picture_book(checkpoint) else "depth"


def controlnet_of(family: str, control: str) -> str | None:
    """Folder or Hub id of a family's ControlNet; an embedded one only if it is there."""
    source = CONTROLNETS.get(family, {}).get(control)
    return source if source and can_be_had(source) else None


def editor_of(family: str) -> Checkpoint | None:
    """The Instruct-Pix2Pix model of a family; an embedded one only if it is there."""
    editor = INSTRUCT_PIX2PIX_MODELS.get(family)
    return editor if editor and is_whole(editor) else None


def find_detector(name: str) -> DetectorCheckpoint | Annotator:
    """The detector of a known name; raises UserError for other names."""
    known = {**KNOWN_DETECTORS, **ANNOTATORS}
    if name not in known:
        raise UserError(f"The detector {name!r} is not known: choose one of {', '.join(known)}.")
    return known[name]


def is_whole(checkpoint: Checkpoint) -> bool:
    """Whether all that a checkpoint without its ControlNet is read from can be had."""
    return all(can_be_had(place) for place in checkpoint.places)


def can_be_had(source: str) -> bool:
    """True of Hub ids; what is embedded has an absolute path, and is there or not."""
    return not Path(source).is_absolute() or Path(source).exists()

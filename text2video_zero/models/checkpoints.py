"""Checkpoints: what to load. The key of the model manager's cache, and the tables of known models."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from text2video_zero.errors import UserError
from text2video_zero.models.weights import family_of_file, is_lora_file, read_shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROOT = Path(__file__).resolve().parents[2]
TOYLAND_FOLDER = ROOT / "assets" / "toyland"
MODELS_FOLDER = ROOT / "models"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(?:/.+\.safetensors)?")  # a model, or a file of one

TEXT_TO_IMAGE, INSTRUCT_PIX2PIX = "text-to-image", "instruct-pix2pix"
CONTROLLED_TASKS = ("pose", "edge", "depth")
TASKS = ("text-to-video", *CONTROLLED_TASKS, "dreambooth", "instruct-pix2pix")
FAMILY_NAMES: Mapping[str, str] = MappingProxyType(
    {"sd1": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "Stable Diffusion XL", "toyland": "Toyland"}
)


@dataclass(frozen=True)
class Adapter:
    """A LoRA that is added to a model.

    source: a .safetensors file, a folder that holds one, a Hub id, or a file of one.
    weight: its strength, 1 is as trained.
    revision: branch, tag or commit of a Hub id; None is its default branch.
    """

    source: str
    weight: float = 1.0
    revision: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """What to load; equal checkpoints share one loaded pipeline, those of one base share its components.

    source: a local diffusers folder, a single .safetensors file, a Hub id ("owner/name"), or a file of one
        ("owner/name/file.safetensors").
    revision: branch, tag or commit of a Hub id; None is its default branch.
    kind: what its UNet takes: "text-to-image" (noise) or "instruct-pix2pix" (noise and a picture).
    controlnet: a folder, .safetensors file or Hub id of the ControlNet that goes with it.
    unet: a folder or Hub id of a UNet that replaces the base's, as full fine-tunings of the UNet alone have it.
    adapters: LoRAs, added up.
    """

    source: str
    revision: str | None = None
    kind: str = TEXT_TO_IMAGE
    controlnet: str | None = None
    controlnet_revision: str | None = None
    unet: str | None = None
    unet_revision: str | None = None
    adapters: tuple[Adapter, ...] = ()

    @property
    def name(self) -> str:
        """Short name for messages and metadata: never a full path of this machine."""
        style = next((style.name for style in DREAMBOOTH_STYLES.values() if style.checkpoint == self.base), None)
        return style or short_name(self.source)

    @property
    def base(self) -> Checkpoint:
        """The same checkpoint without its ControlNet: what pose, edge, depth and text share."""
        return replace(self, controlnet=None, controlnet_revision=None)

    @property
    def controlnet_key(self) -> tuple[str | None, str | None]:
        """What tells its ControlNet from others."""
        return self.controlnet, self.controlnet_revision


def short_name(source: str) -> str:
    """A source as messages show it: a file's or folder's own name, a Hub id as it is."""
    path = Path(source)
    return path.stem if path.suffix == ".safetensors" or path.exists() else source


@dataclass(frozen=True)
class KnownModel:
    """A model that is offered by name.

    name: what the person types or picks.  note: one line about it.
    family: "toyland", "sd1", "sd2" or "sdxl": whose ControlNets and LoRAs fit it.
    trigger: words that a prompt needs for the style to show.
    mirrors: further places with the same weights, tried in this order.
    defaults: request fields that suit this model better than the paper's values.
    speed: the one that is chosen at first, where its LoRA is there; None is full quality.
    harmless: it can draw nothing that a safety checker would look for.
    """

    name: str
    checkpoint: Checkpoint
    note: str
    mirrors: tuple[Checkpoint, ...] = ()
    defaults: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    family: str = "sd1"
    trigger: str = ""
    speed: str | None = None
    harmless: bool = False


TOYLAND = KnownModel(
    "toyland",
    Checkpoint(str(TOYLAND_FOLDER)),
    "embedded picture-book model, works offline on any machine",
    family="toyland",
    speed="4 steps",
    harmless=True,  # foxes and pandas are all that it has ever seen
    # It decides where things are later than Stable Diffusion does: earlier movement would be undone. Its ground
    # is level, so the camera goes sideways. Steps and guidance are those that its judge measured.
    defaults=MappingProxyType(
        {"steps": 25, "guidance_scale": 4.0, "motion_from": 681, "motion_to": 781, "pan_x": 0.03, "pan_y": 0.0}
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
    "illustrated look on Stable Diffusion 1.5, 512x512",
    trigger="mdjrny-v4 style",
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


def _style(name: str, checkpoint: Checkpoint, note: str, trigger: str, base: KnownModel) -> KnownModel:
    """A style on a base, whose family and settings it shares; its trigger words stand in the quality prompt."""
    defaults = {**base.defaults, "quality_prompt": f"{trigger}, best quality, extremely detailed"}
    return KnownModel(name, checkpoint, note, family=base.family, trigger=trigger, defaults=MappingProxyType(defaults))


TOYLAND_STYLES = (
    _style(
        "toyland-sunset",
        replace(TOYLAND.checkpoint, unet=str(TOYLAND_FOLDER / "style-sunset")),
        "embedded style, a UNet of its own: posters in the colours of an evening sky",
        "sunset poster style",
        TOYLAND,
    ),
    _style(
        "toyland-blueprint",
        replace(
            TOYLAND.checkpoint,
            adapters=(Adapter(str(TOYLAND_FOLDER / "style-blueprint" / "pytorch_lora_weights.safetensors")),),
        ),
        "embedded style, a LoRA: light lines on blue paper",
        "blueprint style",
        TOYLAND,
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

# Per family and control, the default first; the others are offered as alternatives. All on safetensors.
CONTROLNETS: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "toyland": MappingProxyType(
            {control: (str(TOYLAND_FOLDER / f"controlnet-{control}"),) for control in CONTROLLED_TASKS}
        ),
        "sd1": MappingProxyType(
            {
                "pose": ("lllyasviel/control_v11p_sd15_openpose", "lllyasviel/sd-controlnet-openpose"),
                "edge": ("lllyasviel/control_v11p_sd15_canny", "lllyasviel/sd-controlnet-canny"),
                "depth": ("lllyasviel/control_v11f1p_sd15_depth", "lllyasviel/sd-controlnet-depth"),
            }
        ),
        "sdxl": MappingProxyType(
            {
                "pose": ("xinsir/controlnet-openpose-sdxl-1.0", "thibaud/controlnet-openpose-sdxl-1.0"),
                "edge": ("diffusers/controlnet-canny-sdxl-1.0",),
                "depth": ("diffusers/controlnet-depth-sdxl-1.0",),
            }
        ),
    }
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


@dataclass(frozen=True)
class DetectorCheckpoint:
    """What to load to see poses or depth in a clip.

    source: folder or Hub id of the network.  task: "depth" or "pose".
    box_source: for poses, folder or Hub id of the network that finds the people first.
    """

    source: str
    task: str
    revision: str | None = None
    box_source: str | None = None
    box_revision: str | None = None


@dataclass(frozen=True)
class Annotator:
    """A detector of controlnet-aux, as the paper's authors used them. Its weights are pickles of plain tensors.

    name: "openpose" or "midas".  source: folder or Hub id.  files: those that it needs of it.
    """

    name: str
    source: str
    files: tuple[str, ...]

    def pick(self, offered: Iterable[str]) -> list[str]:
        """Its files among those that are offered."""
        return sorted(set(self.files) & set(offered))


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
        "depth-dpt-hybrid": DetectorCheckpoint("Intel/dpt-hybrid-midas", "depth"),
        "pose": DetectorCheckpoint(
            "usyd-community/vitpose-base-simple", "pose", box_source="PekingU/rtdetr_r50vd_coco_o365"
        ),
    }
)


def find_checkpoint(name: str, models_folder: Path = MODELS_FOLDER) -> Checkpoint:
    """The text-to-video checkpoint of a known name, a name in models/, a path or a Hub id; nothing is loaded.

    A Hub id may name its branch, tag or commit: "owner/name@revision".
    """
    name = name.strip()
    known = known_model(name)
    return known.checkpoint if known else local_models(models_folder).get(name) or Checkpoint(*at_revision(name))


def at_revision(name: str) -> tuple[str, str | None]:
    """A Hub id, or a file of one, without its revision, and the revision; of a path there is none."""
    source, at, revision = name.rpartition("@")
    if not at or Path(name).expanduser().exists() or not HUB_ID.fullmatch(source):
        return name, None
    return source, revision


def origin_of(checkpoint: Checkpoint) -> tuple[str, tuple[Adapter, ...]]:
    """The name of the known model that a checkpoint was made from, else its own, and the LoRAs that were added."""
    origins = [
        model
        for model in (*KNOWN_MODELS.values(), *DREAMBOOTH_STYLES.values())
        if (model.checkpoint.source, model.checkpoint.unet) == (checkpoint.source, checkpoint.unet)
        and model.checkpoint.adapters == checkpoint.adapters[: len(model.checkpoint.adapters)]
    ]
    if not origins:
        return checkpoint.name, checkpoint.adapters
    closest = max(origins, key=lambda model: len(model.checkpoint.adapters))
    return closest.name, checkpoint.adapters[len(closest.checkpoint.adapters) :]


def known_model(name: str) -> KnownModel | None:
    """The entry of a name in the tables of models and styles."""
    return KNOWN_MODELS.get(name) or DREAMBOOTH_STYLES.get(name)


def known_name(source: str) -> str:
    """The name by which a source is offered, else its short name: what a person calls it."""
    tables = (*KNOWN_MODELS.values(), *DREAMBOOTH_STYLES.values())
    return next((known.name for known in tables if known.checkpoint.source == source), short_name(source))


def mirrors_of(checkpoint: Checkpoint) -> tuple[Checkpoint, ...]:
    """Further places with the same weights, for models that are known by name."""
    known = KNOWN_MODELS.values()
    return next((model.mirrors for model in known if model.checkpoint.source == checkpoint.source), ())


def is_harmless(checkpoint: Checkpoint) -> bool:
    """Whether all that draws comes from a model that can draw nothing a safety checker would look for."""
    homes = [Path(model.checkpoint.source) for model in KNOWN_MODELS.values() if model.harmless]
    drawing = (checkpoint.source, checkpoint.unet, *(adapter.source for adapter in checkpoint.adapters))
    return all(any(Path(source).is_relative_to(home) for home in homes) for source in drawing if source)


def find_detector(name: str) -> DetectorCheckpoint | Annotator:
    """The detector of a known name; raises UserError for other names."""
    known = {**KNOWN_DETECTORS, **ANNOTATORS}
    if name not in known:
        raise UserError(f"The detector {name!r} is not known: choose one of {', '.join(known)}.")
    return known[name]


def checkpoint_for(
    task: str,
    model: str,
    *,
    control: str = "edge",
    controlnet: str | None = None,
    adapters: Iterable[Adapter] = (),
    models_folder: Path = MODELS_FOLDER,
) -> Checkpoint:
    """What a task needs of a model: the model itself with its family's ControlNet, or the family's editor.

    task: one of TASKS.  model: a known name, a name in models/, a path or a Hub id.
    control: which ControlNet "dreambooth" takes: "pose", "edge" or "depth"; the three tasks of these names
        take their own.
    controlnet: a folder, file or Hub id instead of the family's default.
    adapters: LoRAs on top.

    For instruct-pix2pix a model that is offered for text-to-video stands for the editor of its family;
    any other is taken as an editor itself. Raises UserError where the family has nothing for the task.
    """
    if task not in TASKS:
        raise UserError(f"The task {task!r} is not known: choose one of {', '.join(TASKS)}.")
    base = find_checkpoint(model, models_folder)
    base = replace(base, adapters=base.adapters + tuple(adapters))
    if task == "text-to-video":
        return base
    if task == "instruct-pix2pix":
        return _editor_for(model.strip(), base)
    control = control if task == "dreambooth" else task
    return replace(base, controlnet=controlnet or _controlnet_for(model, base, control))


def family_of(checkpoint: Checkpoint) -> str:
    """The family as far as it can be told without loading: from the tables, then from a file or a folder.

    A Hub id that nobody has heard of is taken for Stable Diffusion 1.x; whether that is so turns out when it is
    loaded. Raises UserError for a file that is no whole model.
    """
    for known in (*KNOWN_MODELS.values(), *DREAMBOOTH_STYLES.values()):
        if known.checkpoint.source == checkpoint.source:
            return known.family
    path = Path(checkpoint.source)
    if path.suffix == ".safetensors" and path.is_file():
        return family_of_file(path, read_shapes(path))
    config = path / "unet" / "config.json"
    return family_of_unet(json.loads(config.read_text(encoding="utf-8"))) if config.is_file() else "sd1"


def family_of_unet(config: Mapping[str, object]) -> str:
    """Tell "sd1", "sd2" or "sdxl" by the configuration of a UNet or a ControlNet."""
    if config.get("addition_embed_type") == "text_time":
        return "sdxl"
    return "sd2" if config.get("cross_attention_dim") == 1024 else "sd1"


def local_models(folder: Path = MODELS_FOLDER) -> dict[str, Checkpoint]:
    """Whole models that lie in a folder, by name: diffusers folders and .safetensors files; none if it is missing."""
    if not folder.is_dir():
        return {}
    found = [path for path in sorted(folder.iterdir()) if _looks_like_a_model(path)]
    return {path.stem if path.is_file() else path.name: Checkpoint(str(path)) for path in found}


def _looks_like_a_model(path: Path) -> bool:
    if path.is_file():
        return path.suffix == ".safetensors" and not is_lora_file(path)
    return (path / "model_index.json").is_file()


def offered_models(task: str) -> tuple[KnownModel, ...]:
    """The known models that a task can be run with; for dreambooth the styles come first."""
    styles = DREAMBOOTH_STYLES.values() if task == "dreambooth" else ()
    models = (*(style for style in styles if _is_whole(style.checkpoint)), *KNOWN_MODELS.values())
    if task == "instruct-pix2pix":
        return tuple(model for model in models if editor_of(model.family))
    if task == "text-to-video":
        return models
    control = "edge" if task == "dreambooth" else task
    return tuple(model for model in models if controlnets_of(model.family, control))


def controlnets_of(family: str, control: str) -> tuple[str, ...]:
    """Folders and Hub ids of the ControlNets of a family, the default first; embedded ones only if they are there."""
    return tuple(source for source in CONTROLNETS.get(family, {}).get(control, ()) if can_be_had(source))


def editor_of(family: str) -> Checkpoint | None:
    """The Instruct-Pix2Pix model of a family; an embedded one only if it is there."""
    editor = INSTRUCT_PIX2PIX_MODELS.get(family)
    return editor if editor and can_be_had(editor.unet or editor.source) else None


def _is_whole(checkpoint: Checkpoint) -> bool:
    parts = (checkpoint.source, checkpoint.unet, *(adapter.source for adapter in checkpoint.adapters))
    return all(can_be_had(part) for part in parts if part)


def can_be_had(source: str) -> bool:
    """True of Hub ids; what is embedded has an absolute path, and is there or not."""
    return not Path(source).is_absolute() or Path(source).exists()


def _controlnet_for(model: str, base: Checkpoint, control: str) -> str:
    family = family_of(base)
    offered = controlnets_of(family, control)
    if not offered:
        raise UserError(
            f"For {control} control of {model!r} ({FAMILY_NAMES[family]}) no ControlNet is known: choose a model of "
            f"{' or '.join(FAMILY_NAMES[name] for name in CONTROLNETS if controlnets_of(name, control))}."
        )
    return offered[0]


def _editor_for(model: str, base: Checkpoint) -> Checkpoint:
    if model not in KNOWN_MODELS and model not in DREAMBOOTH_STYLES:
        return replace(base, kind=INSTRUCT_PIX2PIX)
    family = family_of(base)
    editor = editor_of(family)
    if editor is None:
        raise UserError(
            f"For edits by {model!r} ({FAMILY_NAMES[family]}) no Instruct-Pix2Pix model is known: choose "
            f"{' or '.join(known.name for known in offered_models('instruct-pix2pix'))}."
        )
    return replace(editor, adapters=base.adapters)

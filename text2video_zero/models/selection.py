"""The selection of a checkpoint: from the name of a model and a task to what is loaded. Nothing is loaded here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from text2video_zero.errors import UserError
from text2video_zero.models.catalogue import (
    CONTROLLED_TASKS,
    CONTROLNETS,
    DREAMBOOTH_STYLES,
    KNOWN_MODELS,
    MODELS_FOLDER,
    controlnet_of,
    editor_of,
    is_whole,
    known_model,
)
from text2video_zero.models.checkpoints import (
    HUB_ID,
    INSTRUCT_PIX2PIX,
    Checkpoint,
    at_revision,
    checked_name,
    file_on_hub,
    path_of,
    short_name,
)
from text2video_zero.models.files.configurations import check_configurations
from text2video_zero.models.weights import (
    FAMILY_NAMES,
    check_whole,
    family_at,
    index_of,
    is_inversion_file,
    is_lora_file,
    only_file_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from text2video_zero.models.catalogue import KnownModel
    from text2video_zero.models.checkpoints import Adapter
    from text2video_zero.models.hub import Hub

TASKS = ("text-to-video", *CONTROLLED_TASKS, "dreambooth", "instruct-pix2pix")


def find_checkpoint(name: str, models_folder: Path = MODELS_FOLDER) -> Checkpoint:
    """The text-to-video checkpoint of a known name, a name in models/, a path or a Hub id; nothing is loaded.

    A Hub id may name its branch, tag or commit: "owner/name@revision".
    """
    name = checked_name(name.strip())
    known = known_model(name)
    if known:
        return known.checkpoint
    local = local_models(models_folder).get(name)
    file = models_folder / name  # by its own name, as people see it
    if local is None and not Path(name).exists() and file.parent == models_folder and _looks_like_a_model(file):
        local = Checkpoint(str(file))
    return local or Checkpoint(*at_revision(name))


def checkpoint_for(
    task: str,
    model: str,
    *,
    control: str | None = None,
    controlnet: str | None = None,
    adapters: Iterable[Adapter] = (),
    models_folder: Path = MODELS_FOLDER,
    hub: Hub | None = None,
) -> Checkpoint:
    """What a task needs of a model: the model itself with its family's ControlNet, or the family's editor.

    task: one of TASKS.  model: a known name, a name in models/, a path or a Hub id.
    control: which ControlNet "text-to-video" and "dreambooth" take: "pose", "edge" or "depth"; by itself the former
        takes none and the latter edges. The three tasks of these names take their own.
    controlnet: a folder, file or Hub id instead of the family's default.
    adapters: LoRAs on top.
    hub: who is asked what a Hub id is; None asks the usual one.

    For instruct-pix2pix a model that is offered for text-to-video stands for the editor of its family (see
    `edited_instead`); any other is taken as an editor itself. Raises UserError where the family has nothing for the
    task.
    """
    if task not in TASKS:
        raise UserError(f"The task {task!r} is not known: choose one of {', '.join(TASKS)}.")
    base = find_checkpoint(model, models_folder)
    base = replace(base, adapters=base.adapters + tuple(adapters))
    if task == "text-to-video" and control is None:
        return base
    if task == "instruct-pix2pix":
        return _editor_for(model.strip(), base)
    control = task if task in CONTROLLED_TASKS else control or "edge"
    source, revision = at_revision(checked_name(controlnet)) if controlnet else (None, None)
    return replace(base, controlnet=source or _controlnet_for(model, base, control, hub), controlnet_revision=revision)


def _controlnet_for(model: str, base: Checkpoint, control: str, hub: Hub | None) -> str:
    family = family_of(base, hub)
    controlnet = controlnet_of(family, control)
    if controlnet is None:
        raise UserError(
            f"For {control} control of {model!r} ({FAMILY_NAMES[family]}) no ControlNet is known: choose a model of "
            f"{' or '.join(FAMILY_NAMES[name] for name in CONTROLNETS if controlnet_of(name, control))}."
        )
    return controlnet


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


def check_on_disk(checkpoint: Checkpoint) -> None:
    """Raises UserError for a part that is named by a path where nothing is, or nothing whole; the Hub is not asked."""
    for source in filter(None, (*checkpoint.places, checkpoint.controlnet)):
        if path := path_of(source):
            check_whole(path)
            check_configurations(short_name(source), path)
            if source == checkpoint.source and only_file_of(path).is_dir():
                index_of(path)


def edited_instead(model: str) -> str:
    """A sentence where edits are made by a network that has nothing of the model that is named; blank elsewhere."""
    known, offered = known_model(model.strip()), offered_models("instruct-pix2pix")
    bases = {(other.checkpoint.source, other.checkpoint.unet) for other in offered}
    if known is None or (known.checkpoint.source, known.checkpoint.unet) in bases:
        return ""
    names = [other.name for other in offered if other.family == known.family]
    return f"Edits are made by the editor of {names[0]}, so nothing of {known.name} will show." if names else ""


def family_of(checkpoint: Checkpoint, hub: Hub | None = None) -> str:
    """The family without loading or downloading: from the tables, then from a file or a folder, then from the Hub.

    hub: who is asked what a Hub id is; None asks the usual one. Where nobody can tell, as without a network, it is
    taken for Stable Diffusion 1.x; whether that is so turns out when it is loaded. Raises UserError for a file that
    is no whole model, and for a folder whose configuration cannot be read.
    """
    for known in (*KNOWN_MODELS.values(), *DREAMBOOTH_STYLES.values()):
        if known.checkpoint.source == checkpoint.source:
            return known.family
    path = Path(checkpoint.source).expanduser()
    if path.exists() or not HUB_ID.fullmatch(checkpoint.source):
        return family_at(path) or "sd1"
    # Imported here because the Hub's client takes its time, and most runs do not ask it.
    from text2video_zero.models.hub import Hub
    from text2video_zero.models.hub.peek import family_on_hub

    single = file_on_hub(checkpoint.source)
    source, file = (single.repository, single.name) if single else (checkpoint.source, None)
    return family_on_hub(hub or Hub(), source, checkpoint.revision, file) or "sd1"


def local_models(folder: Path = MODELS_FOLDER) -> dict[str, Checkpoint]:
    """Whole models that lie in a folder, by name: folders of diffusers, .safetensors and .ckpt files.

    Of two files that differ in their suffix alone the .safetensors goes by its stem, the other one by its whole name.
    """
    if not folder.is_dir():
        return {}
    found = [path for path in sorted(folder.iterdir()) if _looks_like_a_model(path)]
    return {short_name(str(path)): Checkpoint(str(path)) for path in found}


def _looks_like_a_model(path: Path) -> bool:
    if path.is_file() and path.suffix == ".ckpt":  # reading it takes torch, which the page does not wait for
        return True
    if path.is_file():
        return path.suffix == ".safetensors" and not is_lora_file(path) and not is_inversion_file(path)
    return (path / "model_index.json").is_file()


def offered_models(task: str) -> tuple[KnownModel, ...]:
    """The known models that a task can be run with; for dreambooth the styles come first, of editors each once."""
    styles = DREAMBOOTH_STYLES.values() if task == "dreambooth" else ()
    models = (*(style for style in styles if is_whole(style.checkpoint)), *KNOWN_MODELS.values())
    if task == "instruct-pix2pix":
        editors = {editor: model for model in reversed(models) if (editor := editor_of(model.family))}
        return tuple(reversed(editors.values()))
    if task == "text-to-video":
        return models
    control = "edge" if task == "dreambooth" else task
    return tuple(model for model in models if controlnet_of(model.family, control))

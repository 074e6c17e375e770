"""Jobs: what page, API and command line make of given values, all by the same rules."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from text2video_zero.errors import UserError
from text2video_zero.media.settings import read_settings
from text2video_zero.models.adapters import read_adapters
from text2video_zero.models.catalogue import DREAMBOOTH_STYLES, KNOWN_MODELS, TOYLAND, known_model, name_of
from text2video_zero.models.selection import checkpoint_for
from text2video_zero.models.speeds import SPEED_FIELDS, speed_adapters, speed_values
from text2video_zero.requests import REQUESTS, ControlledRequest, FewStepRequest
from text2video_zero.requests.presets import find_preset, preset_fields
from text2video_zero.requests.video import FULL_QUALITY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from text2video_zero.models.checkpoints import Checkpoint
    from text2video_zero.requests import VideoRequest


def _unguessable() -> str:
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Job:
    """One request for one model.

    maps_only: end with the control maps, before anything is sampled.
    id: names the job in the log and to its owner; it cannot be guessed.
    """

    request: VideoRequest
    checkpoint: Checkpoint
    maps_only: bool = False
    id: str = field(default_factory=_unguessable)


@dataclass(frozen=True)
class Settings:
    """How an earlier video was made, as its file or a .json file tells.

    values: of the request's fields.  model: a name that is known; None where the file names no such one.
    loras: as `read_adapter` reads them.
    """

    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    model: str | None = None
    loras: Sequence[str] = ()

    @classmethod
    def read(cls, path: Path, task: str) -> Self:
        """Read a file; raises UserError for one that cannot be read or was made by another task."""
        settings = read_settings(path)
        if settings.get("task", task) != task:
            raise UserError(f"{path.name} was made by {settings['task']}: run that task with it.")
        values = settings.get("request", settings)
        if not isinstance(values, dict):
            raise UserError(f"{path.name} holds no request: choose a video that this app has saved.")
        loras = settings.get("loras", [])
        if not isinstance(loras, list) or not all(isinstance(lora, str) for lora in loras):
            raise UserError(f"{path.name} names its LoRAs in an unknown way: give them yourself.")
        return cls(values, _known_by_checkpoint(settings.get("model")), loras)


NO_SETTINGS = Settings()


def build_job(
    task: str,
    given: Mapping[str, Any],
    *,
    model: str | None = None,
    loras: Sequence[str] = (),
    controlnet: str | None = None,
    settings: Settings = NO_SETTINGS,
    preset: str | None = None,
    maps_only: bool = False,
) -> Job:
    """The job that values of a task's fields ask for, with a concrete seed; nothing is loaded.

    given: field -> value. What it leaves out comes from the preset, else from the settings of an earlier video, else
        from the speed, the model or the field's declaration (`defaults_of`). A speed that is given goes before what
        settings say of the fields that it sets.
    preset: the name of one, None for none.
    model: a known name, a name in models/, a path or a Hub id; else the one of the settings, else Toyland.
    loras: as `read_adapter` reads them; where none are given, those of the settings.
    controlnet: a folder, file or Hub id instead of the one of the model's family.
    Raises UserError for whatever the person can put right.
    """
    model = (model or settings.model or TOYLAND.name).strip()
    if maps_only:
        given = {**given, "prompt": given.get("prompt") or "control map"}  # maps do not depend on it
    values = defaults_of(task, model)
    for nearer in (settings.values, preset_values(task, model, preset) if preset else {}, given):
        values |= {**_set_by_speed(task, model, nearer), **nearer}
    request = REQUESTS[task].from_dict(values).with_concrete_seed()
    adapters = read_adapters(loras or settings.loras)
    if isinstance(request, FewStepRequest):
        adapters = speed_adapters(request.speed, model) + adapters
    control = request.control if isinstance(request, ControlledRequest) else "edge"
    checkpoint = checkpoint_for(task, model, control=control, controlnet=controlnet, adapters=adapters)
    return Job(request, checkpoint, maps_only)


def defaults_of(task: str, model: str, speed: str = FULL_QUALITY) -> dict[str, Any]:
    """Field -> its value where nobody gives one: what the speed sets, else the model's default, else the declared one.

    model: as `build_job` takes it; those that are not known by name have no defaults of their own.
    """
    known = known_model(model.strip())
    set_by_them = {**(known.defaults if known else {}), **speed_values(speed)}
    return {name: set_by_them.get(name, default) for name, default, _ in REQUESTS[task].declarations()}


def preset_values(task: str, model: str, preset: str) -> dict[str, Any]:
    """The fields that presets set for a task, with the values that one of them has for a model.

    Raises UserError for a preset that nobody knows.
    """
    values, defaults = find_preset(preset).values.get(task, {}), defaults_of(task, model)
    return {name: values.get(name, defaults[name]) for name in preset_fields(task)}


def fields_with_defaults(task: str) -> list[str]:
    """The fields whose default depends on the model or on its speed, in the order of their declaration."""
    names = [name for name, _, _ in REQUESTS[task].declarations()]
    models = (*KNOWN_MODELS.values(), *DREAMBOOTH_STYLES.values())
    by_speed = SPEED_FIELDS if "speed" in names else ()
    return [name for name in names if name in by_speed or any(name in model.defaults for model in models)]


def _set_by_speed(task: str, model: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What the speed among the values sets; full quality takes that back to the defaults."""
    if "speed" not in values:
        return {}
    defaults = defaults_of(task, model, str(values["speed"]))
    return {name: defaults[name] for name in SPEED_FIELDS if name in defaults}


def _known_by_checkpoint(name: object) -> str | None:
    """The known model that a video names, or whose checkpoint it names."""
    models = (*KNOWN_MODELS.values(), *DREAMBOOTH_STYLES.values())
    return next((model.name for model in models if name in {model.name, name_of(model.checkpoint)}), None)

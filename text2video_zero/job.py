"""Jobs: what page, API and command line make of given values, all by the same rules."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from text2video_zero.errors import UserError
from text2video_zero.media.settings import read_settings
from text2video_zero.models.adapters import read_adapters
from text2video_zero.models.catalogue import (
    DREAMBOOTH_STYLES,
    KNOWN_MODELS,
    MODELS_FOLDER,
    TOYLAND,
    draws_picture_book,
    known_model,
    name_of,
    origin_of,
)
from text2video_zero.models.checkpoints import HUB_ID, at_revision, checked_name, short_name
from text2video_zero.models.selection import check_on_disk, checkpoint_for, edited_instead, find_checkpoint
from text2video_zero.models.speeds import SPEED_FIELDS, speed_adapters, speed_values, speeds_of
from text2video_zero.prompts.loras import prompts_of, tagged_adapters
from text2video_zero.requests import (
    REQUESTS,
    ControlledRequest,
    FewStepRequest,
    InstructPix2PixRequest,
    TextToVideoRequest,
)
from text2video_zero.requests.idle import copied_story, idle_settings, unreached_keys, unsaid_movement
from text2video_zero.requests.movement import NO_MOVEMENT, PERSON
from text2video_zero.requests.presets import BALANCED, DRAFT, PRESETS, find_preset, preset_fields
from text2video_zero.requests.video import FULL_QUALITY
from text2video_zero.sampling.share import WHOLE, Share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from text2video_zero.models.catalogue import KnownModel
    from text2video_zero.models.checkpoints import Checkpoint
    from text2video_zero.requests import VideoRequest


def _unguessable() -> str:
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Job:
    """One request for one model.

    maps_only: end with the control maps, before anything is sampled.
    weights, picture: short hashes of the weights and of the start picture that an earlier video of these settings was
        made with, blank where none is told.
    id: names the job in the log and to its owner; it cannot be guessed.
    kept_in: folder of this job alone, where its steps are kept, so that it goes on after it was cut off; None for none.
    share: the part of the clip that is wanted, where several workers make it.
    remarks: sentences on what the person should know of her choices before it runs; blank for none.
    """

    request: VideoRequest
    checkpoint: Checkpoint
    maps_only: bool = False
    weights: str = ""
    picture: str = ""
    id: str = field(default_factory=_unguessable)
    kept_in: Path | None = None
    share: Share = WHOLE
    remarks: str = ""


@dataclass(frozen=True)
class Settings:
    """How an earlier video was made, as its file or a .json file tells.

    values: of the request's fields.  model: a name that is known, or as the file has it; None where it names none.
    loras: as `read_adapter` reads them.  prompt_loras: those that the prompt named.  controlnet: as the file has it.
    weights, picture: their short hashes, the latter of the start picture.
    file: where all this was read, for messages.
    """

    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    model: str | None = None
    loras: Sequence[str] = ()
    prompt_loras: Sequence[str] = ()
    controlnet: str | None = None
    weights: str = ""
    picture: str = ""
    file: str = ""

    @classmethod
    def read(cls, path: Path, task: str) -> Self:
        """Read a file; raises UserError for one that cannot be read or was made by another task."""
        settings = read_settings(path)
        if settings.get("task", task) != task:
            raise UserError(f"{path.name} was made by {settings['task']}: run that task with it.")
        values = settings.get("request", settings)
        if not isinstance(values, dict):
            raise UserError(f"{path.name} holds no request: choose a video that this app has saved.")
        if "request" in settings:  # a whole one: what its version had no field for is off, whatever the model's default
            values = {name: default for name, default, _ in REQUESTS[task].declarations()} | values
        loras, prompt_loras = settings.get("loras", []), settings.get("prompt_loras", [])
        for named in (loras, prompt_loras):
            if not isinstance(named, list) or not all(isinstance(lora, str) for lora in named):
                raise UserError(f"{path.name} names its LoRAs in an unknown way: give them yourself.")
        model, revision, controlnet, weights, picture = (
            told if isinstance(told := settings.get(name), str) else None
            for name in ("model", "revision", "controlnet", "weights", "picture")
        )
        known = _known_by_checkpoint(model)
        named = known.name if known else model
        if named and revision and not (known and known.checkpoint.revision == revision):
            named = f"{known.checkpoint.source if known else model}@{revision}"
        return cls(values, named, loras, prompt_loras, controlnet, weights or "", picture or "", path.name)

    def usable_model(self) -> str | None:
        """The model, as `build_job` takes it; raises UserError where it names one that is not here."""
        if self.model is None or _can_be_found(self.model):
            return self.model
        raise UserError(
            f"{self.file} was made with the model {self.model!r}, which is not here: put it into models/, or name "
            "another model."
        )

    def has_controlnet(self, source: str | None) -> bool:
        """Whether it names this ControlNet, a folder, a file or a Hub id."""
        return source is not None and self.controlnet == short_name(source)

    def usable_controlnet(self, usual: str | None) -> str | None:
        """The ControlNet, as `build_job` takes it; raises UserError where it names one that is not here.

        usual: the one that the model has without being asked.
        """
        if self.controlnet is None or self.has_controlnet(usual):
            return usual
        local = next((path for path in MODELS_FOLDER.glob("*") if short_name(str(path)) == self.controlnet), None)
        if local is None and not HUB_ID.fullmatch(at_revision(checked_name(self.controlnet))[0]):
            raise UserError(
                f"{self.file} was made with the ControlNet {self.controlnet!r}, which is not here: put it into "
                "models/, or name another one."
            )
        return str(local or self.controlnet)


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
    lora_tags: bool = True,
    maps_only: bool = False,
) -> Job:
    """The job that values of a task's fields ask for, with a concrete seed; nothing is loaded.

    given: field -> value. What it leaves out comes from the preset, else from the settings of an earlier video, else
        from the speed, the model or the field's declaration (`defaults_of`). A speed that is given goes before what
        settings say of the fields that it sets.
    preset: the name of one, None for none.
    model: a known name, a name in models/, a path or a Hub id; else the one of the settings, else Toyland.
    loras: as `read_adapter` reads them; where none are given, those of the settings.
    controlnet: a folder, file or Hub id instead of the one of the settings, else of the model's family.
    lora_tags: whether LoRAs in models/ may be named in the prompt; else those are taken that settings say it named.
    Raises UserError for whatever the person can put right.
    """
    same_model = not model or model == settings.model
    model = (model or settings.usable_model() or TOYLAND.name).strip()
    if maps_only:
        given = {**given, "prompt": given.get("prompt") or "control map"}  # maps do not depend on it
    values = defaults_of(task, model)
    for nearer in (settings.values, preset_values(task, model, preset) if preset else {}, given):
        values |= {**_set_by_speed(task, model, nearer), **nearer}
    request, unfollowed = _followed(REQUESTS[task].from_dict(values).with_concrete_seed(), model)
    adapters = read_adapters(loras or settings.loras)
    if isinstance(request, FewStepRequest):
        adapters = speed_adapters(request.speed, model) + adapters
    if lora_tags:
        adapters += tagged_adapters(prompts_of(request), adapters)
    else:
        adapters += read_adapters(settings.prompt_loras)
    control = control_of(request)
    checkpoint = checkpoint_for(task, model, control=control, controlnet=controlnet, adapters=adapters)
    if settings.controlnet and not controlnet and same_model and checkpoint.controlnet:
        source, revision = at_revision(settings.usable_controlnet(checkpoint.controlnet) or "")
        checkpoint = replace(checkpoint, controlnet=source, controlnet_revision=revision)
    check_on_disk(checkpoint)
    weights = settings.weights if same_model else ""
    remarks = " ".join(filter(None, (unfollowed, _remarks(request, model))))
    return Job(request, checkpoint, maps_only, weights, settings.picture, remarks=remarks)


def changed_job(job: Job, **changes: Any) -> Job:
    """A job of its own on the same model, with other values of some fields; raises UserError where one is amiss."""
    request = replace(job.request, **changes)
    model, _ = origin_of(job.checkpoint)
    return Job(request, job.checkpoint, remarks=_remarks(request, model))


def _followed(request: VideoRequest, model: str) -> tuple[VideoRequest, str]:
    """The request without movements that the model's ControlNet does not know, and a sentence that says so.

    All know people; Toyland's knows animals and things as well.
    """
    others = [m.kind for m in request.movements if m.kind != PERSON] if isinstance(request, TextToVideoRequest) else []
    if not others or draws_picture_book(find_checkpoint(model)):
        return request, ""
    unfollowed = (
        f"Movement of the subject: ControlNets for poses know people, not how a {others[0]} moves, so that nothing but "
        "the camera does."
    )
    return replace(request, movement=NO_MOVEMENT), unfollowed


def control_of(request: VideoRequest) -> str | None:
    """Which control shapes a request's video, "pose", "edge" or "depth"; None for none."""
    if isinstance(request, TextToVideoRequest):
        return "pose" if request.movements else None
    return request.control if isinstance(request, ControlledRequest) else None


def _remarks(request: VideoRequest, model: str) -> str:
    """What of the choices does nothing, or is another than it seems, in sentences; blank for none."""
    chosen = _chosen(request, model)
    remarks = [
        unreached_keys(request),
        copied_story(request),
        idle_settings(request, chosen),
        unsaid_movement(request, chosen),
    ]
    if isinstance(request, InstructPix2PixRequest):
        remarks.append(edited_instead(model))
    return " ".join(filter(None, remarks))


def _chosen(request: VideoRequest, model: str) -> list[str]:
    """The fields that somebody has set: neither model nor speed nor any preset gives them their value."""
    speed = request.speed if isinstance(request, FewStepRequest) else FULL_QUALITY
    usual = [preset.values.get(request.task, {}) for preset in PRESETS.values()]
    usual += [defaults_of(request.task, model), defaults_of(request.task, model, speed)]
    return [
        name
        for name, default, _ in request.declarations()
        if (value := getattr(request, name)) != default and value not in [values.get(name) for values in usual]
    ]


def defaults_of(task: str, model: str, speed: str = FULL_QUALITY) -> dict[str, Any]:
    """Field -> its value where nobody gives one: what the speed sets, else the model's default, else the declared one.

    model: as `build_job` takes it; those that are not known by name have no defaults of their own.
    """
    known = known_model(model.strip())
    set_by_them = {**(known.defaults if known else {}), **speed_values(speed)}
    return {name: set_by_them.get(name, default) for name, default, _ in REQUESTS[task].declarations()}


def preset_values(task: str, model: str, preset: str) -> dict[str, Any]:
    """The fields that presets set for a task, with the values that one of them has for a model.

    A model that is not known by name gets no speed: nobody is asked here what it is. Raises UserError for a preset that
    nobody knows.
    """
    chosen, known = find_preset(preset), known_model(model.strip())
    offered = speeds_of(known.family) if known and issubclass(REQUESTS[task], FewStepRequest) else ()
    speed = next((speed for speed in chosen.speeds if speed in offered), FULL_QUALITY)
    values = defaults_of(task, model, speed) | {"speed": speed}
    if speed == FULL_QUALITY:
        values["steps"] = round(float(values["steps"]) * chosen.steps)
    values |= chosen.values.get(task, {})
    return {name: values[name] for name in preset_fields(task)}


def first_preset(task: str, model: str) -> str:
    """The preset to begin with: a draft where it is drawn in few steps that come with the model, which look as good."""
    few_steps = preset_values(task, model, DRAFT).get("speed", FULL_QUALITY) != FULL_QUALITY
    return DRAFT if few_steps else BALANCED


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


def _can_be_found(model: str) -> bool:
    """Whether a model's name is known, in models/, a path or a Hub id."""
    name, _ = at_revision(checked_name(model.strip()))
    here = known_model(name) or Path(name).expanduser().exists() or find_checkpoint(name).source != name
    return bool(here or HUB_ID.fullmatch(name))


def _known_by_checkpoint(name: str | None) -> KnownModel | None:
    """The known model that a video names, or whose checkpoint it names."""
    models = (*KNOWN_MODELS.values(), *DREAMBOOTH_STYLES.values())
    return next((model for model in models if name in {model.name, name_of(model.checkpoint)}), None)

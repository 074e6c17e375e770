"""The models that are offered, and the one place that decides whether a name may be loaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from text2video_zero.errors import UserError
from text2video_zero.job import first_preset
from text2video_zero.models.adapters import local_loras
from text2video_zero.models.catalogue import DREAMBOOTH_STYLES, KNOWN_MODELS, KnownModel, known_name, mirrors_of
from text2video_zero.models.native_size import FAMILY_SIDES
from text2video_zero.models.selection import checkpoint_for, family_of, find_checkpoint, local_models, offered_models
from text2video_zero.models.speeds import speeds_of
from text2video_zero.models.vocabulary import Vocabulary
from text2video_zero.requests import InstructPix2PixRequest
from text2video_zero.requests.presets import DRAFT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from text2video_zero.models.checkpoints import Checkpoint
    from text2video_zero.models.hub import Hub
    from text2video_zero.prompts.counting import TokenCount

EDITING = InstructPix2PixRequest.task


def lacking(checkpoint: Checkpoint, hub: Hub) -> list[str]:
    """What of a checkpoint would be downloaded. hub: whose cache is looked into."""
    own, *others = checkpoint.parts
    homes = [own, *((mirror.source, mirror.revision) for mirror in mirrors_of(checkpoint))]
    if checkpoint.controlnet:
        others.append((checkpoint.controlnet, checkpoint.controlnet_revision))

    def is_here(place: tuple[str, str | None]) -> bool:
        return Path(place[0]).exists() or hub.is_here(*place)

    missing = [] if any(map(is_here, homes)) else [own[0]]
    return missing + [part[0] for part in others if not is_here(part)]


@dataclass(frozen=True)
class Offer:
    """What strangers may have: what is on this machine already, and the models for which its owner downloads the rest.

    named: known models and styles by name.  hub: whose cache is looked into.  Raises UserError for an unknown name.
    """

    named: frozenset[str]
    hub: Hub

    def __post_init__(self) -> None:
        known = {*KNOWN_MODELS, *DREAMBOOTH_STYLES}
        if unknown := sorted(self.named - known):
            raise UserError(f"The model {unknown[0]!r} is not offered here: choose one of {', '.join(sorted(known))}.")

    def takes(self, model: KnownModel) -> bool:
        """Whether a model is named or here."""
        return model.name in self._taken

    @cached_property
    def _taken(self) -> frozenset[str]:
        """The names of those that are; looked up once, for all menus."""
        known = {**KNOWN_MODELS, **DREAMBOOTH_STYLES}
        return self.named | {name for name, model in known.items() if not lacking(model.checkpoint, self.hub)}

    def check(self, model: str, checkpoint: Checkpoint) -> None:
        """Raise UserError where a job with a model would download what its owner did not offer."""
        if model.strip() not in self.named and (missing := lacking(checkpoint, self.hub)):
            raise UserError(
                f"{known_name(missing[0])}, which this takes, is not on this server: choose another model or task, or "
                f"ask whoever runs the page to start it with --offer {model.strip()}."
            )


@dataclass(frozen=True)
class ModelMenu:
    """What a person may choose from.

    default: the name that is chosen at first; on a free menu also a folder, a file or a Hub id.
    free: whether any folder, .safetensors file or Hub id may be typed. Strangers must not: a path
        would let them read this machine's files, an id would let them fill its disk.
    models: the known models that are offered by name.
    task: what they are offered for.
    offer: what of it strangers may have; None is all of it.
    hurried: whether a draft is chosen at first, whatever the model.
    """

    default: str
    free: bool
    models: tuple[KnownModel, ...] = tuple(KNOWN_MODELS.values())
    task: str = "text-to-video"
    offer: Offer | None = None
    hurried: bool = False

    def __post_init__(self) -> None:
        # The record is frozen for everybody else.
        object.__setattr__(self, "models", self._taken(self.models))
        self.check(self.default)

    def _taken(self, models: Iterable[KnownModel]) -> tuple[KnownModel, ...]:
        return tuple(model for model in models if self.offer is None or self.offer.takes(model))

    def of_task(self, task: str) -> ModelMenu:
        """The menu of another task: of the known models those that can do it, and a first one among them."""
        models = self._taken(offered_models(task))
        known = self._known(self.default)
        if known is None:
            default = self.default
        else:
            kin = (model for model in models if model.family == known.family)
            stays = task != "dreambooth" and known in models  # who opens that tab wants a style
            default = known.name if stays else next(kin, models[0]).name
        return ModelMenu(default, self.free, models, task, self.offer, self.hurried)

    def names(self) -> list[str]:
        """Names to choose from, the default among them; on a free menu also those in models/."""
        names = [model.name for model in self.models]
        if self.free:
            names += local_models()
        return names if self.default in names else [self.default, *names]

    def loras(self) -> list[str]:
        """Names of the LoRA files that lie in models/ now; none where strangers choose."""
        return list(local_loras()) if self.free else []

    def check(self, name: str | None, loras: Sequence[str] = ()) -> None:
        """Raise UserError where a name is blank or not on offer.

        loras: those on top of the model, which may be named on a free menu alone.
        """
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"Model is empty: choose one of {', '.join(model.name for model in self.models)}.")
        if not self.free and self._known(name) is None:
            raise UserError(
                f"The model {name!r} is not offered here: choose one of "
                f"{', '.join(model.name for model in self.models)}."
            )
        if not self.free and any(lora.strip() for lora in loras):
            raise UserError("LoRAs of your own are not offered here: leave the field empty, or choose another model.")

    def check_parts(self, name: str, checkpoint: Checkpoint) -> None:
        """Raise UserError where something that a job takes would have to be downloaded, and is not offered."""
        if self.offer is not None:
            self.offer.check(name, checkpoint)

    def finds(self, name: str | None) -> bool:
        """Whether a name stands for a model that may be chosen."""
        return self._checkpoint(name) is not None

    def first_preset(self, name: str | None) -> str:
        """The settings that are chosen at first with a model."""
        return DRAFT if self.hurried else first_preset(self.task, name or "")

    def note(self, name: str | None) -> str:
        """One line about a model, blank where nothing is known."""
        model = self._known(name)
        return model.note if model else ""

    def speeds(self, name: str | None) -> tuple[str, ...]:
        """The speeds that a model has, full quality first; what is not on offer has no other."""
        return speeds_of(self._family(name))

    def native_side(self, name: str | None) -> int:
        """The side of the square that models of the same family are trained at, in pixels."""
        return FAMILY_SIDES[self._family(name) or "sd1"]

    def vocabulary(self, name: str | None) -> Vocabulary | None:
        """The words that a model knows, where somebody wrote them down."""
        checkpoint = self._checkpoint(name)
        places = [place for place in (checkpoint.unet, checkpoint.source) if place] if checkpoint else []
        return next((found for place in places if (found := Vocabulary.read(Path(place)))), None)

    def token_count(self, name: str | None, prompt: str) -> TokenCount | None:
        """How long a prompt is for a model, None where its tokenizer is not on this machine."""
        from text2video_zero.prompts.counting import token_count, tokenizer_here

        checkpoint = self._checkpoint(name)
        tokenizer = tokenizer_here(checkpoint) if checkpoint else None
        return None if tokenizer is None else token_count(prompt, tokenizer)

    def _family(self, name: str | None) -> str:
        """The family of a model, blank for what is none."""
        model, checkpoint = self._known(name), self._checkpoint(name)
        return model.family if model else family_of(checkpoint) if checkpoint else ""

    def _checkpoint(self, name: str | None) -> Checkpoint | None:
        """What a name stands for in the task; None for what is no model, and for what is not on offer."""
        if not (name and name.strip() and (self.free or self._known(name))):
            return None
        try:
            return checkpoint_for(self.task, name) if self.task == EDITING else find_checkpoint(name)
        except UserError:
            return None

    def _known(self, name: str | None) -> KnownModel | None:
        return next((model for model in self.models if name and model.name == name.strip()), None)

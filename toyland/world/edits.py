"""Edits of scenes: an instruction, and the picture before and after it, from the renderer.

What an instruction does not speak of (pose, place in the frame, backdrop) is the same before and
after, to the pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from toyland.training.dataset import is_held_out
from toyland.world.bipeds import BIPEDS
from toyland.world.captions import VOCABULARY, with_article
from toyland.world.looks import LOOKS
from toyland.world.scene import COLORS, PLACES, Scene, render

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

__all__ = ["EDITS", "Edit", "instruction_vocabulary", "instructions", "random_edit", "render_edit", "snowed"]

_DARK_PLACES = ("moon", "city")
_FOUR_LEGGED = ("cat", "horse", "fox")
_PHRASES: dict[str, tuple[str, ...]] = {
    "night": ("make it night", "turn it into night", "make it a night scene", "at night"),
    "pencil sketch": (
        "make it a pencil sketch", "turn it into a pencil sketch", "as a pencil sketch", "pencil sketch"),
    "snowfall": ("make it snow", "let it snow", "add snow", "make it snowing"),
    "color": ("make it {new}", "make the {subject} {new}", "turn the {subject} {new}", "paint it {new}"),
    "subject": (
        "turn the {old} into {new}", "make it {new}", "replace the {old} with {new}",
        "make the {old} {new}"),
    "place": ("put it {new}", "move it {new}", "put the {subject} {new}", "bring it {new}"),
}
_WHERE = {
    "meadow": "in the meadow", "street": "on the street", "beach": "on the beach",
    "desert": "in the desert", "snow": "in the snow", "ocean": "in the ocean",
    "moon": "on the moon", "city": "in the city",
}


@dataclass(frozen=True)
class Edit:
    """A scene before and after.

    kind: one of EDITS. look: one of LOOKS that the picture after is in, or "" for none.
    words: what the phrases of the kind are filled with.
    """

    kind: str
    before: Scene
    after: Scene
    look: str = ""
    words: tuple[tuple[str, str], ...] = ()


def instructions(edit: Edit) -> tuple[str, ...]:
    """All ways to ask for an edit, the plainest first."""
    return tuple(phrase.format(**dict(edit.words)) for phrase in _PHRASES[edit.kind])


def instruction_vocabulary() -> dict[str, dict[str, tuple[str, ...]]]:
    """The words of instructions by role, as vocabulary.json has them: whole phrases, and what fills them."""
    filled = {
        "color": {"subject": "fox", "new": "purple"},
        "subject": {"old": "cat", "new": "a horse"},
        "place": {"subject": "fox", "new": _WHERE["beach"]},
    }
    phrases = [
        tuple(phrase.format(**filled.get(kind, {})) for phrase in several)
        for kind, several in _PHRASES.items()]
    shared = ("subjects", "colors", "places", "other")
    return {"instructions": {several[0]: several for several in phrases}} | {
        role: VOCABULARY[role] for role in shared}


def render_edit(edit: Edit, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The picture after, uint8 (h, w, 3), and the mask of its subject, float32 (h, w)."""
    made = render(edit.after, size)
    image = LOOKS[edit.look](made.image, made.mask) if edit.look else made.image
    return image, made.mask


def random_edit(scene: Scene, rng: np.random.Generator) -> Edit:
    """An edit of any kind that suits the scene; never towards a held-out combination."""
    while True:
        kind = EDITS[int(rng.choice(len(EDITS), p=_SHARES))]
        edit = _EDITORS[kind](scene, rng)
        if edit is not None and not is_held_out(edit.after):
            return edit


def _at_night(scene: Scene, _rng: np.random.Generator) -> Edit | None:
    return None if scene.place in _DARK_PLACES else Edit("night", scene, scene, look="night")


def _sketched(scene: Scene, _rng: np.random.Generator) -> Edit:
    return Edit("pencil sketch", scene, scene, look="pencil sketch")


def snowed(scene: Scene) -> Scene | None:
    """The scene in snowfall; None where it cannot be added."""
    if scene.weather == "snowy" or scene.place in {*_DARK_PLACES, "ocean"}:
        return None
    return replace(scene, weather="snowy")


def _snowing(scene: Scene, _rng: np.random.Generator) -> Edit | None:
    after = snowed(scene)
    return after and Edit("snowfall", scene, after)


def _recolored(scene: Scene, rng: np.random.Generator) -> Edit:
    color = _another(rng, COLORS, scene.color)
    words = (("subject", scene.subject), ("new", color))
    return Edit("color", scene, replace(scene, color=color), words=words)


def _transformed(scene: Scene, rng: np.random.Generator) -> Edit | None:
    kin = next((group for group in (tuple(BIPEDS), _FOUR_LEGGED) if scene.subject in group), None)
    if kin is None:
        return None
    subject = _another(rng, kin, scene.subject)
    words = (("old", scene.subject), ("new", with_article(subject)))
    return Edit("subject", scene, replace(scene, subject=subject), words=words)


def _moved(scene: Scene, rng: np.random.Generator) -> Edit:
    place = _another(rng, PLACES, scene.place)
    words = (("subject", scene.subject), ("new", _WHERE[place]))
    return Edit("place", scene, replace(scene, place=place, weather="clear"), words=words)


def _another(rng: np.random.Generator, choices: tuple[str, ...], than: str) -> str:
    others = [choice for choice in choices if choice != than]
    return others[int(rng.integers(len(others)))]


_EDITORS: dict[str, Callable[[Scene, np.random.Generator], Edit | None]] = {
    "night": _at_night, "pencil sketch": _sketched, "snowfall": _snowing, "color": _recolored,
    "subject": _transformed, "place": _moved,
}
EDITS = tuple(_EDITORS)
# Few scenes can have snowfall added, and another subject is the hardest to draw.
_SHARES = (0.1, 0.1, 0.3, 0.1, 0.25, 0.15)

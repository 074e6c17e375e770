"""Scenes in words, and words back to attributes.

Every caption names subject, colour and place; action and weather are named by most templates.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from toyland.world.scene import Scene

VOCABULARY: dict[str, dict[str, tuple[str, ...]]] = {
    "subjects": {
        "panda": ("panda", "panda bear"), "bear": ("bear", "teddy bear", "teddy"),
        "robot": ("robot", "android"), "astronaut": ("astronaut", "spaceman", "cosmonaut"),
        "person": ("person", "child", "kid"), "cat": ("cat", "kitten", "kitty"),
        "horse": ("horse", "pony"), "fox": ("fox",), "fish": ("fish",),
        "car": ("car", "automobile"), "rocket": ("rocket", "spaceship"), "ball": ("ball",),
    },
    "colors": {
        "red": ("red", "scarlet"), "orange": ("orange",), "yellow": ("yellow", "golden"),
        "green": ("green", "emerald"), "blue": ("blue", "azure"), "purple": ("purple", "violet"),
        "pink": ("pink", "rosy"), "white": ("white",),
    },
    "places": {
        "meadow": ("meadow", "field", "grass"), "street": ("street", "road"),
        "beach": ("beach", "seaside", "shore"), "desert": ("desert", "dunes"),
        "snow": ("snow", "snowy field", "winter"), "ocean": ("ocean", "sea", "underwater"),
        "moon": ("moon", "lunar surface"), "city": ("city", "town"),
    },
    "actions": {
        "standing": ("standing", "posing", "waiting"), "walking": ("walking", "strolling"),
        "dancing": ("dancing",), "jumping": ("jumping", "leaping", "hopping"),
        "flying": ("flying", "soaring"),
    },
    "weather": {
        "clear": ("clear",), "sunny": ("sunny", "sunshine"),
        "cloudy": ("cloudy", "clouds"), "rainy": ("rainy", "rain", "raining"),
        "snowy": ("snowy", "snowfall", "snowing"),
    },
    "other": {
        "a": ("a", "an", "the"), "in": ("in", "on", "at", "under"),
        "is": ("is", "it", "while", "of"), "day": ("day", "night"),
        "picture": ("picture", "drawing"),
    },
}
"""role -> canonical word -> the words that mean it, the canonical one first."""

_ROLE_KEYS = {
    "subjects": "subject", "colors": "color", "places": "place", "actions": "action",
    "weather": "weather",
}

_PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "meadow": ("in the meadow", "in a meadow", "on a field", "on the grass"),
    "street": ("on the street", "in the street", "on a road"),
    "beach": ("on the beach", "at the beach", "at the seaside", "on the shore"),
    "desert": ("in the desert", "in a desert", "in the dunes"),
    "snow": ("in the snow", "in a snowy field", "in winter", "on the snow"),
    "ocean": ("in the ocean", "in the sea", "underwater"),
    "moon": ("on the moon", "on the lunar surface"),
    "city": ("in the city", "in the city at night", "in a town at night"),
}
_WEATHER_PHRASES: dict[str, tuple[str, ...]] = {
    "sunny": ("on a sunny day", "in the sunshine"), "cloudy": ("on a cloudy day", "under clouds"),
    "rainy": ("on a rainy day", "in the rain"), "snowy": ("in the snowfall", "while it is snowing"),
}
_SENTENCES = (
    "{a_color} {subject} {action} {where}",
    "{a_color} {subject} {action} {where}",
    "{a_color} {subject} {action} {where}",
    "{a_color} {subject} is {action} {where}",
    "a picture of {a_color} {subject} {action} {where}",
    "{where}, {a_color} {subject} {action}",
    "{a_subject} in {color} {action} {where}",
    "the {color} {subject} {action} {where}",
    "{a_color} {subject} {where}",
    "a drawing of {a_color} {subject} {where}",
    "{color} {subject}, {place}",
    "{color} {subject} {action}, {place}",
)

_MEANINGS = {
    phrase: (_ROLE_KEYS[role], word)
    for role, words in VOCABULARY.items() if role in _ROLE_KEYS
    for word, phrases in words.items() for phrase in phrases
}
# Longest first, so that "teddy bear" and "snowy field" are taken whole.
_PATTERN = re.compile(
    r"\b(" + "|".join(re.escape(p) for p in sorted(_MEANINGS, key=len, reverse=True)) + r")\b"
)


def with_article(words: str) -> str:
    """The words behind "a" or "an"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    """The first (canonical) of the words half of the time."""
    return words[0] if rng.random() < 0.5 else words[int(rng.integers(len(words)))]


def plain_caption(scene: Scene) -> str:
    """The canonical caption, for example "a red panda dancing in the snow"."""
    subject = with_article(f"{scene.color} {scene.subject}")
    return f"{subject} {scene.action} {_PLACE_PHRASES[scene.place][0]}"


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One of many captions of a scene; always names subject, colour and place."""
    words = {
        "color": _pick(rng, VOCABULARY["colors"][scene.color]),
        "subject": _pick(rng, VOCABULARY["subjects"][scene.subject]),
        "action": _pick(rng, VOCABULARY["actions"][scene.action]),
        "where": _pick(rng, _PLACE_PHRASES[scene.place]),
        "place": _pick(rng, VOCABULARY["places"][scene.place]),
    }
    words["a_color"] = with_article(words["color"])
    words["a_subject"] = with_article(words["subject"])
    text = _SENTENCES[int(rng.integers(len(_SENTENCES)))].format(**words)
    if scene.weather in _WEATHER_PHRASES and rng.random() < 0.4:
        text += " " + _pick(rng, _WEATHER_PHRASES[scene.weather])
    return text


def parse(text: str) -> dict[str, str]:
    """The attributes that a text names: any of subject, color, place, action, weather.

    The first word of a kind counts; words outside the vocabulary are ignored.
    """
    found: dict[str, str] = {}
    for phrase in _PATTERN.findall(text.lower()):
        key, word = _MEANINGS[phrase]
        found.setdefault(key, word)
    return found

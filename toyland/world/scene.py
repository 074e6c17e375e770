"""Toyland's scenes: what is in a picture, drawn at random, and the picture with its ground truth.

A ``Scene`` is a small record of attributes; ``render`` turns it into pixels at any size. The
backdrop depends on place, weather, detail_seed and pan only, so a clip is a row of scenes that
differ in phase and position: ``dataclasses.replace(scene, phase=..., x=...)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from toyland.world.bipeds import BIPEDS, draw_cape
from toyland.world.canvas import Canvas
from toyland.world.creatures import CREATURES
from toyland.world.palette import COLOR_VALUES
from toyland.world.places import PLACE_TABLE, PLACES, draw_falling, draw_place, ground_depth
from toyland.world.skeleton import MIRRORED_ORDER, creature_joints, pose

if TYPE_CHECKING:
    from toyland.world.defects import Defect

__all__ = [
    "ACTIONS", "ACTIONS_OF", "COLORS", "DEFECTS_OF", "PLACES", "SUBJECTS", "WEATHER", "WEATHER_OF",
    "Rendering", "Scene", "random_scene", "render", "render_backdrop",
]

SUBJECTS = (
    "panda", "bear", "robot", "astronaut", "person", "cat", "horse", "fox", "fish", "car",
    "rocket", "ball",
)
COLORS = tuple(COLOR_VALUES)
ACTIONS = ("standing", "walking", "dancing", "jumping", "flying")
WEATHER = ("clear", "sunny", "cloudy", "rainy", "snowy")

WEATHER_OF: dict[str, tuple[str, ...]] = {name: row.weathers for name, row in PLACE_TABLE.items()}
"""The weathers each place knows."""

_FOUR_LEGGED_ACTIONS = ("standing", "walking", "jumping", "flying")
ACTIONS_OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(BIPEDS, ACTIONS),
    **dict.fromkeys(("cat", "horse", "fox"), _FOUR_LEGGED_ACTIONS),
    "fish": ("dancing", "jumping", "flying"),
    **dict.fromkeys(("car", "rocket", "ball"), ("standing", "jumping", "flying")),
}
"""The actions each subject can do."""

_BY_EYES, _BY_LIMBS = ("eye missing", "eye added"), ("limb doubled",)
DEFECTS_OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("panda", "bear", "cat", "fox"), (*_BY_EYES, "nose moved", *_BY_LIMBS)),
    **dict.fromkeys(("robot", "person", "horse"), _BY_EYES + _BY_LIMBS),
    "fish": _BY_EYES, **dict.fromkeys(("astronaut", "car"), _BY_LIMBS), "rocket": (), "ball": (),
}
"""What of `toyland.world.defects.DRAWN` each subject can be drawn with."""


@dataclass(frozen=True)
class _Stature:
    """heights: least and greatest, fractions of the frame; reach: half its width over height."""

    heights: tuple[float, float]
    reach: float


_STATURES: dict[str, _Stature] = {
    **dict.fromkeys(BIPEDS, _Stature((0.58, 0.8), 0.46)),
    "cat": _Stature((0.54, 0.7), 0.62),
    "horse": _Stature((0.58, 0.76), 0.58),
    "fox": _Stature((0.5, 0.66), 0.68),
    "fish": _Stature((0.42, 0.54), 0.84),
    "car": _Stature((0.42, 0.55), 0.82),
    "rocket": _Stature((0.6, 0.8), 0.38),
    "ball": _Stature((0.46, 0.66), 0.52),
}
# Tilted, a subject is wider or higher than it is when it stands.
_TILTED_REACH = 0.12
_TILTED_RISE = 0.08

_FLIGHT_TILT = {**dict.fromkeys(BIPEDS, 48.0), "rocket": 38.0, "car": -10.0, "fish": 0.0,
                 "ball": 0.0}
_JUMP_TILT = {"fish": -32.0, "car": -14.0, "horse": -12.0, "cat": -12.0, "fox": -12.0}
_MARGIN = 0.04
_JUMP_GAP = 0.09
_BOUNCE = 0.03


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows.

    x, y: centre of the subject; height: its height; pan: shift of the camera; all in fractions of
    the frame. facing: 1 right, -1 left. phase: 0..1, periodic time of the action. detail_seed: all
    the rest (clouds, houses, skin).
    """

    subject: str
    color: str
    place: str
    action: str = "standing"
    weather: str = "clear"
    x: float = 0.5
    y: float = 0.58
    height: float = 0.7
    facing: int = 1
    phase: float = 0.0
    detail_seed: int = 0
    pan: float = 0.0


@dataclass(frozen=True)
class Rendering:
    """A picture and its ground truth.

    image: uint8 (h, w, 3) RGB. mask: float32 (h, w), 1 = subject. depth: float32 (h, w), 1 = near.
    skeleton: float32 (18, 3) with x, y in fractions of the frame and 1 = visible, OpenPose order.
    face: its middle x, y and radius in fractions of the frame, or None.
    """

    image: np.ndarray
    mask: np.ndarray
    depth: np.ndarray
    skeleton: np.ndarray
    face: tuple[float, float, float] | None


def random_scene(rng: np.random.Generator, **fixed: Any) -> Scene:
    """Draw a scene in which the whole subject is in the frame; ``fixed`` sets any of its fields."""
    subject = fixed.get("subject") or _one_of(rng, _able_subjects(fixed.get("action")))
    place = fixed.get("place") or _one_of(rng, _weathered_places(fixed.get("weather")))
    action = fixed.get("action") or _one_of(rng, ACTIONS_OF[subject])
    stature = _STATURES[subject]
    height = float(fixed.get("height") or rng.uniform(*stature.heights))
    reach = stature.reach + (_TILTED_REACH if subject in _FLIGHT_TILT and action == "flying" else 0)
    half_width = min(reach * height + _MARGIN, 0.5)
    drawn: dict[str, Any] = {
        "subject": subject, "color": _one_of(rng, COLORS), "place": place, "action": action,
        "weather": _one_of(rng, WEATHER_OF[place]),
        "x": float(np.clip(rng.normal(0.5, 0.14), half_width, 1 - half_width)),
        "y": _random_row(rng, subject, action, height), "height": height,
        "facing": int(rng.choice((-1, 1))), "phase": float(rng.random()),
        "detail_seed": int(rng.integers(2**31)),
    }
    return Scene(**(drawn | fixed))


def _one_of(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _able_subjects(action: object) -> tuple[str, ...]:
    return tuple(name for name in SUBJECTS if action is None or action in ACTIONS_OF[name])


def _weathered_places(weather: object) -> tuple[str, ...]:
    return tuple(name for name in PLACES if weather is None or weather in WEATHER_OF[name])


def _random_row(rng: np.random.Generator, subject: str, action: str, height: float) -> float:
    """The row of the subject's centre: feet on the near ground, or in the air."""
    highest, lowest = height / 2 + _MARGIN, 0.95 - height / 2
    if action == "jumping":
        rise = _BOUNCE + (_TILTED_RISE * height if subject in _JUMP_TILT else 0)
        highest, lowest = highest + rise, 0.88 - height / 2
    elif action == "flying":
        highest, lowest = highest + _BOUNCE, 0.9 - height / 2
    else:
        highest = max(highest, 0.86 - height / 2)
    return float(rng.uniform(min(highest, lowest), lowest))


def _supersampling(size: int) -> int:
    return max(2, -(-256 // size))


def _foot_row(scene: Scene) -> float:
    """The row of the ground under the subject."""
    bottom = scene.y + scene.height / 2
    if scene.action == "flying":
        return max(0.93, min(bottom + _JUMP_GAP, 0.97))
    return min(bottom + _JUMP_GAP, 0.97) if scene.action == "jumping" else bottom


def _draw_shadow(canvas: Canvas, scene: Scene) -> None:
    half = _STATURES[scene.subject].reach * scene.height * 0.85
    strength = {"flying": 0.3, "jumping": 0.38}.get(scene.action, 0.62)
    if scene.action in ("flying", "jumping"):
        half *= 0.85
    canvas.at_depth(0.0).glow(scene.x, _foot_row(scene) - 0.005, half * 1.25, 0.05 + 0.035 * half,
                              (24, 20, 48), strength)


def _backdrop(scene: Scene, size: int) -> tuple[Canvas, np.ndarray]:
    """The backdrop with shadow, supersampled, and its depth uint8 (size, size)."""
    canvas = Canvas.blank(size * _supersampling(size), scene.pan)
    draw_place(canvas, scene.place, scene.weather, scene.detail_seed)
    depth = cv2.extractChannel(canvas.pixels, 3)
    draw_falling(canvas, scene.weather, scene.detail_seed)
    _draw_shadow(canvas, scene)
    return canvas, cv2.resize(depth, (size, size), interpolation=cv2.INTER_AREA)


def _subject_canvas(backdrop: Canvas, scene: Scene, defect: Defect | None) -> Canvas:
    """A canvas in the subject's own units, moved and tilted by its action."""
    wave = np.sin(2 * np.pi * scene.phase)
    lift = {"jumping": _BOUNCE, "flying": _BOUNCE / 2}.get(scene.action, 0.0) * wave
    tilt = 0.0
    if scene.action == "flying":
        tilt = _FLIGHT_TILT.get(scene.subject, 0.0)
    elif scene.action == "jumping":
        tilt = _JUMP_TILT.get(scene.subject, 0.0)
    elif scene.subject == "fish":
        tilt = -6 + 22 * wave
    canvas = Canvas(backdrop.pixels, backdrop.matrix, level=1.0, defect=defect)
    return canvas.placed(scene.x, scene.y - lift, scene.height, tilt * scene.facing,
                         mirrored=scene.facing < 0)


def _skeleton(canvas: Canvas, joints: np.ndarray, mirrored: bool) -> np.ndarray:
    """Keypoints (18, 3) in the subject's own units as those of the frame, zeros where there is none."""
    points = canvas.to_frame(joints[:, :2])
    seen = np.concatenate([points, np.ones((len(points), 1))], axis=1) * joints[:, 2:]
    return (seen[list(MIRRORED_ORDER)] if mirrored else seen).astype(np.float32)


def _draw_subject(canvas: Canvas, scene: Scene) -> np.ndarray:
    """Paint the subject; the skeleton (18, 3) of it."""
    color, mirrored = COLOR_VALUES[scene.color], scene.facing < 0
    if scene.subject in CREATURES:
        CREATURES[scene.subject](canvas, color, scene.action, scene.phase, scene.detail_seed)
        return _skeleton(canvas, creature_joints(scene.subject, scene.action, scene.phase), mirrored)
    figure = pose(scene.action, scene.phase)
    if scene.action == "flying":
        draw_cape(canvas, figure, color, scene.phase)
    BIPEDS[scene.subject](canvas, figure, color, scene.detail_seed)
    return _skeleton(canvas, np.column_stack([figure.joints, np.ones(len(figure.joints))]), mirrored)


def render(scene: Scene, size: int = 128, defect: Defect | None = None) -> Rendering:
    """Draw a scene at size x size pixels, the same picture at every size; defect: one of DEFECTS_OF its subject."""
    canvas, depth = _backdrop(scene, size)
    canvas.pixels[..., 3] = 0
    drawing = _subject_canvas(canvas, scene, defect)
    skeleton = _draw_subject(drawing, scene)
    picture = cv2.resize(canvas.pixels, (size, size), interpolation=cv2.INTER_AREA)
    mask = picture[..., 3].astype(np.float32) / 255
    near = min(ground_depth(PLACE_TABLE[scene.place].horizon, _foot_row(scene)) + 0.1, 1.0)
    depth = depth.astype(np.float32) / 255
    return Rendering(np.ascontiguousarray(picture[..., :3]), mask, depth + (near - depth) * mask,
                     skeleton, drawing.faces[0] if drawing.faces else None)


def render_backdrop(scene: Scene, size: int = 128) -> np.ndarray:
    """The same picture without the subject but with its shadow, uint8 (size, size, 3)."""
    canvas, _ = _backdrop(scene, size)
    picture = cv2.resize(canvas.pixels, (size, size), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(picture[..., :3])

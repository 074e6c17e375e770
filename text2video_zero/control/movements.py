"""Movements that repeat themselves: how a figure holds itself at each moment of them, by who it is and what it does.

Poses of each frame's own are what the paper's fresh noise makes; these follow a motion in time, and a ControlNet draws
the subject in them. Many are near to what Toyland's renderer draws, which its ControlNet knows; the renderer has its
own, so that a dance can be changed without another world to be trained on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from text2video_zero.control.creatures import Bearing
from text2video_zero.control.figure import Posture

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Movement:
    """A movement that repeats itself.

    held: (sin, cos) of its phase -> how the figure holds itself, a Posture of persons, a Bearing of others.
    seconds: of one period.
    goes: it leads on, to where the figure faces, so that a camera that pans goes along with it.
    """

    held: Callable[[float, float], Posture | Bearing]
    seconds: float
    goes: bool = False


def _standing(wave: float, swing: float) -> Posture:
    return Posture(
        r_arm=(-32 - 5 * wave, -18 - 3 * wave),
        l_arm=(32 + 5 * wave, 18 + 3 * wave),
        r_leg=(-3, -2),
        l_leg=(3, 2),
        lean=1.5 * wave,
        head=3 * swing,
        sway=0.012 * wave,
    )


def _walking(wave: float, swing: float) -> Posture:
    # The leg that comes forward bends its knee: the right one while `wave` rises.
    right, left = 34 * wave, -34 * wave
    return Posture(
        r_arm=(-30 - 22 * wave, -16 - 20 * wave),
        l_arm=(30 + 24 * wave, 44 + 34 * wave),
        r_leg=(right, right - 8 - 46 * max(swing, 0)),
        l_leg=(left, left - 8 - 46 * max(-swing, 0)),
        lean=3,
        head=2 * wave,
        stance=0.05,
    )


def _running(wave: float, swing: float) -> Posture:
    right, left = 40 * wave, -40 * wave
    return Posture(
        r_arm=(-28 - 32 * wave, 16 - 36 * wave),
        l_arm=(34 + 32 * wave, 84 + 36 * wave),
        r_leg=(right + 8, right - 22 - 50 * max(swing, 0)),
        l_leg=(left + 8, left - 22 - 50 * max(-swing, 0)),
        lean=6,
        head=-3,
        stance=0.05,
        lift=0.04 * abs(wave),
    )


def _dancing(wave: float, swing: float) -> Posture:
    right, left = max(wave, 0), max(-wave, 0)
    return Posture(
        r_arm=(-112 - 18 * wave, -165 - 25 * wave),
        l_arm=(112 - 18 * wave, 165 - 25 * wave),
        r_leg=(-10 - 45 * right, -4 + 35 * right),
        l_leg=(10 + 45 * left, 4 - 35 * left),
        lean=-7 * wave,
        head=-5 * wave,
        sway=0.05 * wave,
        lift=0.01 * (1 - abs(swing)),
    )


def _jumping(wave: float, _swing: float) -> Posture:
    up, down = max(wave, 0), max(-wave, 0)
    return Posture(
        r_arm=(-35 - 90 * up + 10 * down, -20 - 135 * up),
        l_arm=(35 + 90 * up - 10 * down, 20 + 135 * up),
        r_leg=(-5 - 48 * up - 30 * down, -3 + 20 * up + 32 * down),
        l_leg=(5 + 48 * up + 30 * down, 3 - 20 * up - 32 * down),
        lift=0.14 * up,
    )


def _waving(wave: float, swing: float) -> Posture:
    return Posture(
        r_arm=(-32 - 4 * wave, -18),
        l_arm=(108 + 6 * wave, 150 + 34 * wave),
        r_leg=(-3, -2),
        l_leg=(3, 2),
        lean=-2,
        head=3 * swing,
        sway=0.01 * swing,
    )


def _flying(wave: float, swing: float) -> Posture:
    return Posture(
        r_arm=(-75 - 5 * wave, -60),
        l_arm=(125 + 4 * wave, 140),
        r_leg=(-52 + 7 * wave, -50),
        l_leg=(-36 - 7 * wave, -40),
        lean=46,
        head=-42 + 2 * swing,
        sway=-0.12,
        stance=0.07,
        lift=0.22 + 0.025 * wave,
    )


def _animal_standing(_wave: float, swing: float) -> Bearing:
    return Bearing(head=4 * swing)


def _animal_walking(wave: float, _swing: float) -> Bearing:
    return Bearing((26 * wave, -26 * wave), (-26 * wave, 26 * wave), head=3 * wave)


def _animal_running(wave: float, swing: float) -> Bearing:
    # Legs of a side reach out and come together, the far ones a little later.
    later = 0.8 * wave - 0.6 * swing
    return Bearing(
        (-40 * wave, 40 * wave), (-40 * later, 40 * later), head=-3 * wave, lean=-4 * swing, lift=0.03 + 0.03 * wave
    )


def _animal_jumping(wave: float, _swing: float) -> Bearing:
    up, down = max(wave, 0), max(-wave, 0)
    legs = (-52 * up + 8 * down, 52 * up - 8 * down)
    return Bearing(legs, legs, lean=-12 * min(2 * up, 1), lift=0.14 * up)  # level, it would seem to fly


def _animal_flying(wave: float, swing: float) -> Bearing:
    return Bearing(
        (-52 + 6 * wave, 52 + 6 * wave),
        (-52 + 6 * swing, 52 + 6 * swing),
        head=3 * wave,
        lift=0.2 + 0.025 * wave,
        wing=wave,
    )


def _swimming(wave: float, _swing: float) -> Bearing:
    return Bearing(wag=wave, lean=-3 + 8 * wave, lift=0.2)


def _leaping(wave: float, swing: float) -> Bearing:
    return Bearing(wag=wave, lean=-8 - 20 * swing, lift=0.12 + 0.18 * max(wave, 0))


def _fish_flying(wave: float, _swing: float) -> Bearing:
    return Bearing(wag=wave, lift=0.3 + 0.025 * wave, wing=wave)


def _resting(_wave: float, _swing: float) -> Bearing:
    return Bearing()


def _driving(wave: float, swing: float) -> Bearing:
    return Bearing(turn=_degrees(wave, swing), bob=0.012 * swing)


def _car_jumping(wave: float, swing: float) -> Bearing:
    up = max(wave, 0)
    return Bearing(turn=_degrees(wave, swing), lean=-14 * up, lift=0.14 * up)


def _car_flying(wave: float, swing: float) -> Bearing:
    return Bearing(turn=_degrees(wave, swing), bob=0.012 * swing, lean=-10, lift=0.24 + 0.025 * wave, wing=wave)


def _rocket_jumping(wave: float, _swing: float) -> Bearing:
    return Bearing(flame=True, lift=0.04 + 0.14 * max(wave, 0))


def _rocket_flying(wave: float, _swing: float) -> Bearing:
    return Bearing(flame=True, lean=38, lift=0.16 + 0.025 * wave)


def _ball_resting(wave: float, _swing: float) -> Bearing:
    return Bearing(turn=20 + 20 * wave)


def _rolling(wave: float, swing: float) -> Bearing:
    return Bearing(turn=_degrees(wave, swing))


def _bouncing(wave: float, swing: float) -> Bearing:
    # Twice a turn it is on the ground, and in between on a parabola.
    return Bearing(turn=_degrees(wave, swing), lift=0.3 * (1 - swing * swing))


def _ball_flying(wave: float, swing: float) -> Bearing:
    return Bearing(turn=_degrees(wave, swing), lift=0.3 + 0.025 * wave, wing=wave)


def _degrees(wave: float, swing: float) -> float:
    return math.degrees(math.atan2(wave, swing))


_ANIMAL = {
    "stand": Movement(_animal_standing, 2.0),
    "walk": Movement(_animal_walking, 1.0, goes=True),
    "run": Movement(_animal_running, 0.6, goes=True),
    "jump": Movement(_animal_jumping, 1.0),
    "fly": Movement(_animal_flying, 1.0, goes=True),
}

MOVED: Mapping[str, Mapping[str, Movement]] = MappingProxyType(
    {
        "person": {
            "stand": Movement(_standing, 2.0),
            "walk": Movement(_walking, 1.0, goes=True),
            "run": Movement(_running, 0.5, goes=True),
            "dance": Movement(_dancing, 1.0),
            "jump": Movement(_jumping, 1.0),
            "wave": Movement(_waving, 1.0),
            "fly": Movement(_flying, 1.0, goes=True),
        },
        "cat": _ANIMAL,
        "fox": _ANIMAL,
        "horse": _ANIMAL,
        "fish": {
            "swim": Movement(_swimming, 1.0, goes=True),
            "jump": Movement(_leaping, 1.0),
            "fly": Movement(_fish_flying, 1.0, goes=True),
        },
        "car": {
            "stand": Movement(_resting, 1.0),
            "drive": Movement(_driving, 2.0, goes=True),
            "jump": Movement(_car_jumping, 1.0),
            "fly": Movement(_car_flying, 1.0, goes=True),
        },
        "rocket": {
            "stand": Movement(_resting, 1.0),
            "jump": Movement(_rocket_jumping, 1.0),
            "fly": Movement(_rocket_flying, 1.0, goes=True),
        },
        "ball": {
            "stand": Movement(_ball_resting, 2.0),
            "roll": Movement(_rolling, 1.0, goes=True),
            "jump": Movement(_bouncing, 1.6),
            "fly": Movement(_ball_flying, 1.0, goes=True),
        },
    }
)
"""By who it is and by what it does, as requests/movement.py calls both."""

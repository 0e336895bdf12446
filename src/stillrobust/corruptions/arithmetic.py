"""Sine, arctangent and powers of whole images: numpy's own, or the same bits on every processor.

Exact draws need numpy's functions, as the reference. Fast draws must not depend on the processor.
They read sines and arctangents from tables, which also takes less time, and compute powers from
:mod:`stillrobust.corruptions.elementary`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from stillrobust.corruptions import elementary
from stillrobust.samples import Array

TURN = 2**16
"""Entries of the sine's table for a full turn. The nearest entry is off by 5e-5 at most."""
RATIOS = 2**16
"""Entries of the arctangent's table for ratios from 0 to 1. It is off by 8e-6 at most."""


@dataclass(frozen=True)
class Arithmetic:
    """The functions of one kind of draws. Arrays are float64 of any shape."""

    sin: Callable[[Array], Array]
    cos: Callable[[Array], Array]
    arctan2: Callable[[Array, Array], Array]
    hypot: Callable[[Array, Array], Array]
    power: Callable[[Array, float], Array]
    """Of numbers from 0."""


@lru_cache(maxsize=1)
def _sines() -> Array:
    quarter = [elementary.sin_cos(90 * step / (TURN // 4))[0] for step in range(TURN // 4 + 1)]
    half = np.array([*quarter, *quarter[-2:0:-1]])
    return np.concatenate([half, -half])


def _turn_index(x: Array) -> Array:
    steps: Array = np.floor(x * (TURN / (2 * math.pi)) + 0.5)
    return steps.astype(np.int64) & (TURN - 1)


def _sin(x: Array) -> Array:
    values: Array = _sines()[_turn_index(x)]
    return values


def _cos(x: Array) -> Array:
    values: Array = _sines()[(_turn_index(x) + TURN // 4) & (TURN - 1)]
    return values


@lru_cache(maxsize=1)
def _arctangents() -> Array:
    """The arctangent at i / RATIOS, from Taylor's series after halving the angle twice."""
    x = np.arange(RATIOS + 1) / RATIOS
    for _ in range(2):
        x = x / (1 + np.sqrt(1 + x * x))
    square = x * x
    series = np.full_like(x, 1 / 25)
    for odd in range(23, 0, -2):
        series = 1 / odd - series * square
    return 4 * x * series


def _arctan2(y: Array, x: Array) -> Array:
    above, across = np.broadcast_arrays(np.abs(y), np.abs(x))
    larger = np.maximum(above, across)
    ratio = np.minimum(above, across) / np.where(larger > 0, larger, 1.0)
    angle = _arctangents()[np.floor(ratio * RATIOS + 0.5).astype(np.int64)]
    angle = np.where(above > across, math.pi / 2 - angle, angle)
    angle = np.where(x < 0, math.pi - angle, angle)
    signed: Array = np.where(y < 0, -angle, angle)
    return signed


def _hypot(x: Array, y: Array) -> Array:
    root: Array = np.sqrt(x * x + y * y)
    return root


def _power(x: Array, exponent: float) -> Array:
    # e**-700 is 0 in any image
    logarithms = np.maximum(exponent * elementary.log(np.maximum(x, 1e-300)), -700.0)
    powers = elementary.exp(np.minimum(logarithms, 700.0))
    return np.where(x > 0, powers, 0.0)


EXACT = Arithmetic(np.sin, np.cos, np.arctan2, np.hypot, np.power)
FAST = Arithmetic(_sin, _cos, _arctan2, _hypot, _power)

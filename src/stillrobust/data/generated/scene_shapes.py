"""The shapes of the ten things in scenes.

A shape is a list of polygons in the square from -1 to 1 (y down), painted back to front. Every part
has one of three fills, 0 to 2. Fills are drawn for each object, so that only the shape, and
not colour or texture, depends on the class.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from stillrobust.samples import Array

Part = tuple[Array, int]
"""A polygon, float64 (N, 2) x, y, and the number of its fill."""


def polygon(*corners: tuple[float, float]) -> Array:
    """Corners as float64 (N, 2)."""
    return np.array(corners, np.float64)


def ellipse(
    x: float,
    y: float,
    across: float,
    down: float,
    tilt: float = 0,
    start: float = 0,
    end: float = 2 * np.pi,
) -> Array:
    """Points on an ellipse, float64 (40, 2), or on its arc between two angles."""
    angle = np.linspace(start, end, 40)
    dx, dy = across * np.cos(angle), down * np.sin(angle)
    return np.stack(
        [x + dx * np.cos(tilt) - dy * np.sin(tilt), y + dx * np.sin(tilt) + dy * np.cos(tilt)],
        axis=1,
    )


def fish(rng: Generator) -> list[Part]:
    """Tail, body, back fin, eye; the head on the left."""
    height, tail = rng.uniform(0.3, 0.5), rng.uniform(0.35, 0.55)
    return [
        (polygon((0.45, 0), (1, -tail), (0.85, 0), (1, tail)), 1),
        (ellipse(-0.15, 0, 0.75, height), 0),
        (polygon((-0.2, -0.8 * height), (0.1, -height - 0.25), (0.25, -0.7 * height)), 1),
        (ellipse(-0.6, -0.08, 0.07, 0.07), 2),
    ]


def tree(rng: Generator) -> list[Part]:
    """A trunk with a round crown, or with the three tiers of a fir."""
    width = rng.uniform(0.1, 0.18)
    parts: list[Part] = [
        (polygon((-width, 0.2), (width, 0.2), (1.3 * width, 1), (-1.3 * width, 1)), 1)
    ]
    if rng.random() < 0.5:
        for _ in range(5):
            x, y = rng.uniform(-0.3, 0.3), rng.uniform(-0.6, -0.1)
            parts.append((ellipse(x, y, rng.uniform(0.35, 0.5), rng.uniform(0.3, 0.5)), 0))
        return parts
    for tier in range(3):
        half, bottom = 0.7 - 0.12 * tier, 0.35 - 0.4 * tier
        parts.append((polygon((-half, bottom), (half, bottom), (0, -0.25 - 0.4 * tier)), 0))
    return parts


def house(rng: Generator) -> list[Part]:
    """Wall, gable roof, door, window."""
    width, eaves = rng.uniform(0.6, 0.85), rng.uniform(-0.25, 0)
    ridge = eaves - rng.uniform(0.5, 0.8)
    return [
        (polygon((-width, eaves), (width, eaves), (width, 0.9), (-width, 0.9)), 0),
        (polygon((-width - 0.15, eaves), (0, ridge), (width + 0.15, eaves)), 1),
        (polygon((-0.15, 0.35), (0.15, 0.35), (0.15, 0.9), (-0.15, 0.9)), 2),
        (polygon((0.3, 0.1), (0.55, 0.1), (0.55, 0.4), (0.3, 0.4)), 2),
    ]


def car(rng: Generator) -> list[Part]:
    """Cabin, body, side window, two wheels with hubs."""
    roof, front = rng.uniform(-0.55, -0.35), rng.uniform(0.3, 0.5)
    back = 0.8 * front
    parts = [
        (polygon((-0.6, -0.02), (-front, roof), (back, roof), (0.6, -0.02)), 0),
        (polygon((-1, 0), (0.95, -0.02), (1, 0.45), (-1, 0.45)), 0),
        (polygon((-0.45, -0.03), (-back, roof + 0.1), (0.75 * back, roof + 0.1), (0.42, -0.03)), 2),
    ]
    for radius, fill in ((0.24, 1), (0.1, 2)):
        parts += [(ellipse(x, 0.47, radius, radius), fill) for x in (-0.55, 0.55)]
    return parts


def mug(rng: Generator) -> list[Part]:
    """Handle, cup, and the opening on top."""
    width = rng.uniform(0.45, 0.6)
    outer = ellipse(width, 0.05, 0.42, 0.42, start=-1.4, end=1.4)
    inner = ellipse(width, 0.05, 0.24, 0.24, start=1.4, end=-1.4)
    return [
        (np.concatenate([outer, inner]), 1),
        (polygon((-width, -0.7), (width, -0.7), (0.9 * width, 0.75), (-0.9 * width, 0.75)), 0),
        (ellipse(0, -0.7, width, 0.14), 2),
    ]


def flower(rng: Generator) -> list[Part]:
    """Stem, leaf, five to eight petals around a centre."""
    parts: list[Part] = [
        (polygon((-0.05, 0), (0.05, 0), (0.08, 1), (-0.02, 1)), 1),
        (ellipse(0.25, 0.7, 0.25, 0.1, tilt=-0.5), 1),
    ]
    petals = int(rng.integers(5, 9))
    for angle in 2 * np.pi * np.arange(petals) / petals:
        parts.append(
            (ellipse(0.42 * np.cos(angle), -0.35 + 0.42 * np.sin(angle), 0.3, 0.17, tilt=angle), 0)
        )
    parts.append((ellipse(0, -0.35, 0.22, 0.22), 2))
    return parts


def bird(rng: Generator) -> list[Part]:
    """Tail, body, head, beak, wing, legs, eye; looking left."""
    return [
        (polygon((0.4, 0), (1, -0.15), (1, 0.2), (0.5, 0.25)), 1),
        (ellipse(0, 0.1, 0.6, 0.38, tilt=0.2), 0),
        (ellipse(-0.5, -0.3, 0.28, 0.26), 0),
        (polygon((-0.75, -0.38), (-1.05, -0.25), (-0.74, -0.2)), 2),
        (ellipse(0.1, 0.02, 0.38, 0.2, tilt=rng.uniform(0.2, 0.9)), 1),
        (polygon((-0.05, 0.4), (0.02, 0.4), (0, 0.85), (-0.06, 0.85)), 2),
        (polygon((0.15, 0.4), (0.22, 0.4), (0.2, 0.85), (0.14, 0.85)), 2),
        (ellipse(-0.57, -0.35, 0.05, 0.05), 2),
    ]


def boat(rng: Generator) -> list[Part]:
    """Hull, mast, main sail and a smaller sail in front."""
    main, front = rng.uniform(0.6, 0.85), rng.uniform(0.45, 0.65)
    return [
        (polygon((-1, 0.4), (1, 0.4), (0.65, 0.85), (-0.65, 0.85)), 0),
        (polygon((-0.04, -1), (0.04, -1), (0.04, 0.4), (-0.04, 0.4)), 2),
        (polygon((0.08, -0.95), (main, 0.28), (0.08, 0.28)), 1),
        (polygon((-0.08, -0.75), (-front, 0.28), (-0.08, 0.28)), 1),
    ]


def mushroom(rng: Generator) -> list[Part]:
    """Stalk, domed cap, four spots."""
    height = rng.uniform(0.6, 0.8)
    dome = ellipse(0, 0, 0.9, height, start=np.pi, end=2 * np.pi)
    rim = ellipse(0, 0, 0.9, 0.15, start=0, end=np.pi)
    parts: list[Part] = [
        (polygon((-0.2, -0.1), (0.2, -0.1), (0.28, 0.9), (-0.28, 0.9)), 1),
        (np.concatenate([dome, rim]), 0),
    ]
    for _ in range(4):
        parts.append((ellipse(rng.uniform(-0.5, 0.5), rng.uniform(-0.5, -0.15), 0.1, 0.09), 2))
    return parts


def umbrella(rng: Generator) -> list[Part]:
    """Stick, hook, and a canopy whose lower edge has five arcs."""
    arcs, width = 5, 0.95
    along = np.linspace(0, arcs, 6 * arcs)
    edge = np.stack(
        [-width + 2 * width * along / arcs, 0.05 - 0.12 * np.abs(np.sin(np.pi * along))], axis=1
    )
    dome = ellipse(0, 0.05, width, rng.uniform(0.75, 0.9), start=np.pi, end=2 * np.pi)
    hook = np.concatenate(
        [
            ellipse(0.12, 0.8, 0.16, 0.16, start=0, end=np.pi),
            ellipse(0.12, 0.8, 0.09, 0.09, start=np.pi, end=0),
        ]
    )
    return [
        (polygon((-0.035, -0.9), (0.035, -0.9), (0.035, 0.8), (-0.035, 0.8)), 1),
        (hook, 1),
        (np.concatenate([dome, edge[::-1]]), 0),
    ]


SCENE_SHAPES: dict[str, Callable[[Generator], list[Part]]] = {
    "fish": fish,
    "tree": tree,
    "house": house,
    "car": car,
    "mug": mug,
    "flower": flower,
    "bird": bird,
    "boat": boat,
    "mushroom": mushroom,
    "umbrella": umbrella,
}

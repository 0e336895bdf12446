"""The shapes of the source set's twenty classes, as in ``scene_shapes``; no scene has them."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from stillrobust.data.generated.scene_shapes import Part, ellipse, polygon
from stillrobust.samples import Array


def bar(x: float, y: float, across: float, down: float) -> Array:
    """A rectangle with its centre and half sides."""
    return polygon(
        (x - across, y - down),
        (x + across, y - down),
        (x + across, y + down),
        (x - across, y + down),
    )


def ring(
    x: float, y: float, radius: float, thickness: float, start: float = 0, end: float = 2 * np.pi
) -> Array:
    """A band along a circle, or along the part of it between two angles."""
    inner = radius - thickness
    outer, back = (
        ellipse(x, y, radius, radius, start=start, end=end),
        ellipse(x, y, inner, inner, start=end, end=start),
    )
    return np.concatenate([outer, back])


def spokes(count: int, outer: float, inner: float) -> Array:
    """A star of ``count`` points, the first one upwards."""
    angle = np.pi * np.arange(2 * count) / count - np.pi / 2
    radius = np.where(np.arange(2 * count) % 2 == 0, outer, inner)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def star(rng: Generator) -> list[Part]:
    """Five points."""
    return [(spokes(5, 1, rng.uniform(0.38, 0.5)), 0)]


def sun(rng: Generator) -> list[Part]:
    """Nine to twelve thin rays behind a disc."""
    return [(spokes(int(rng.integers(9, 13)), 1, 0.55), 1), (ellipse(0, 0, 0.52, 0.52), 0)]


def heart(rng: Generator) -> list[Part]:
    """Two lobes and a point."""
    angle = np.linspace(0, 2 * np.pi, 60)
    x = np.sin(angle) ** 3
    y = (
        -(13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle))
        / 16
    )
    return [(np.stack([x, y * rng.uniform(0.85, 1.05)], axis=1), 0)]


def key(rng: Generator) -> list[Part]:
    """Ring, shaft, two teeth."""
    reach = rng.uniform(0.2, 0.32)
    return [
        (ring(-0.55, 0, 0.43, 0.2), 0),
        (bar(0.42, 0, 0.56, 0.08), 0),
        (bar(0.85, reach / 2 + 0.05, 0.09, reach / 2), 1),
        (bar(0.55, reach / 2 + 0.05, 0.09, reach / 2), 1),
    ]


def hammer(rng: Generator) -> list[Part]:
    """Handle and head, with a claw on the right."""
    width = rng.uniform(0.45, 0.6)
    claw = polygon((0.15, -0.85), (0.55, -0.8), (0.9, -0.4), (0.5, -0.55), (0.15, -0.5))
    return [
        (bar(0, 0.25, 0.1, 0.75), 1),
        (bar(-width / 2 + 0.1, -0.68, width / 2 + 0.1, 0.2), 0),
        (claw, 0),
    ]


def ladder(rng: Generator) -> list[Part]:
    """Two rails and four to six rungs."""
    half, rungs = rng.uniform(0.35, 0.5), int(rng.integers(4, 7))
    steps = [(bar(0, y, half, 0.055), 1) for y in np.linspace(-0.8, 0.8, rungs)]
    return [*steps, (bar(-half, 0, 0.08, 1), 0), (bar(half, 0, 0.08, 1), 0)]


def bottle(rng: Generator) -> list[Part]:
    """Body with shoulders, neck, cap, label."""
    width, neck = rng.uniform(0.36, 0.48), rng.uniform(0.12, 0.17)
    body = polygon(
        (-width, 1),
        (-width, -0.1),
        (-neck, -0.45),
        (-neck, -0.85),
        (neck, -0.85),
        (neck, -0.45),
        (width, -0.1),
        (width, 1),
    )
    return [(body, 0), (bar(0, -0.92, neck + 0.05, 0.08), 1), (bar(0, 0.45, width, 0.25), 2)]


def lamp(rng: Generator) -> list[Part]:
    """Shade, pole, foot."""
    top = rng.uniform(0.25, 0.4)
    shade = polygon((-top, -0.95), (top, -0.95), (0.75, -0.15), (-0.75, -0.15))
    return [(bar(0, 0.35, 0.06, 0.5), 1), (ellipse(0, 0.88, 0.45, 0.13), 1), (shade, 0)]


def chair(rng: Generator) -> list[Part]:
    """Back, seat, legs; from the side."""
    seat = rng.uniform(0.0, 0.15)
    legs = [(bar(x, (seat + 1) / 2, 0.07, (1 - seat) / 2), 1) for x in (-0.48, 0.48)]
    return [
        *legs,
        (bar(-0.48, seat / 2 - 0.5, 0.09, 0.5 + seat / 2), 0),
        (bar(0, seat, 0.57, 0.1), 0),
    ]


def airplane(rng: Generator) -> list[Part]:
    """From above: two swept wings, a tail, a body; nose up."""
    sweep = rng.uniform(0.1, 0.4)
    wings = polygon(
        (0, -0.25), (1, sweep), (1, sweep + 0.2), (0, 0.2), (-1, sweep + 0.2), (-1, sweep)
    )
    tail = polygon((0, 0.6), (0.4, 0.85), (0.4, 0.97), (0, 0.85), (-0.4, 0.97), (-0.4, 0.85))
    return [(wings, 1), (tail, 1), (ellipse(0, 0, 0.15, 1), 0)]


def rocket(rng: Generator) -> list[Part]:
    """Flame, fins, body with a pointed nose, window."""
    width = rng.uniform(0.26, 0.36)
    body = polygon((0, -1), (width, -0.45), (width, 0.5), (-width, 0.5), (-width, -0.45))
    fins = polygon((-width, 0.05), (width, 0.05), (2.2 * width, 0.65), (-2.2 * width, 0.65))
    flame = polygon((-0.6 * width, 0.5), (0, 1), (0.6 * width, 0.5))
    return [(flame, 2), (fins, 1), (body, 0), (ellipse(0, -0.25, 0.13, 0.13), 2)]


def clock(rng: Generator) -> list[Part]:
    """A disc in a ring, with two hands at any time."""
    hands = []
    for length, angle in (
        (0.4, rng.uniform(0, 2 * np.pi)),
        (0.62, rng.uniform(0, 2 * np.pi)),
    ):
        along = length * np.array([np.cos(angle), np.sin(angle)])
        aside = 0.07 * np.array([-np.sin(angle), np.cos(angle)])
        hands.append((np.stack([aside, along, -aside]), 2))
    return [(ellipse(0, 0, 0.95, 0.95), 1), (ellipse(0, 0, 0.76, 0.76), 0), *hands]


def crown(rng: Generator) -> list[Part]:
    """Three to five points on a band, with balls."""
    points = int(rng.integers(3, 6))
    x = np.linspace(-0.9, 0.9, 2 * points - 1)
    y = np.where(np.arange(2 * points - 1) % 2 == 0, -0.6, 0.05)
    outline = np.concatenate([np.stack([x, y], axis=1), polygon((0.8, 0.6), (-0.8, 0.6))])
    return [
        (outline, 0),
        (bar(0, 0.55, 0.8, 0.14), 1),
        *((ellipse(at, -0.62, 0.1, 0.1), 2) for at in x[::2]),
    ]


def snowman(rng: Generator) -> list[Part]:
    """Three balls, a hat, two eyes."""
    middle = rng.uniform(0.32, 0.38)
    return [
        (ellipse(0, 0.58, 0.48, 0.44), 0),
        (ellipse(0, 0.02, middle, middle), 0),
        (ellipse(0, -0.45, 0.25, 0.24), 0),
        (bar(0, -0.64, 0.32, 0.05), 1),
        (bar(0, -0.82, 0.2, 0.18), 1),
        *((ellipse(x, -0.47, 0.045, 0.045), 2) for x in (-0.09, 0.09)),
    ]


def cactus(rng: Generator) -> list[Part]:
    """A trunk and two arms at different heights, in a pot."""
    left, right = rng.uniform(-0.2, 0.1), rng.uniform(-0.4, -0.1)
    parts: list[Part] = [(bar(0, 0, 0.18, 0.8), 0), (ellipse(0, -0.8, 0.18, 0.18), 0)]
    for side, height in ((-1, left), (1, right)):
        parts += [
            (bar(side * 0.35, height, 0.25, 0.11), 0),
            (bar(side * 0.52, height - 0.2, 0.11, 0.3), 0),
        ]
        parts.append((ellipse(side * 0.52, height - 0.5, 0.11, 0.11), 0))
    return [*parts, (polygon((-0.42, 0.55), (0.42, 0.55), (0.3, 1), (-0.3, 1)), 1)]


def butterfly(rng: Generator) -> list[Part]:
    """Four wings with spots around a thin body."""
    tilt = rng.uniform(0.4, 0.7)
    parts: list[Part] = []
    for side in (-1, 1):
        parts += [(ellipse(side * 0.5, -0.32, 0.52, 0.34, tilt=-side * tilt), 0)]
        parts += [
            (ellipse(side * 0.4, 0.38, 0.4, 0.26, tilt=side * tilt), 1),
            (ellipse(side * 0.58, -0.4, 0.13, 0.13), 2),
        ]
    return [*parts, (ellipse(0, 0, 0.08, 0.62), 2)]


def glasses(rng: Generator) -> list[Part]:
    """Two frames with lenses, a bridge, two temples."""
    radius = rng.uniform(0.34, 0.42)
    parts: list[Part] = [(ring(0, 0.02, 0.2, 0.09, start=np.pi, end=2 * np.pi), 0)]
    for side in (-1, 1):
        slant = polygon((side * 0.8, -0.1), (side * 1, -0.45), (side * 1, -0.3), (side * 0.8, 0.05))
        parts += [
            (slant, 0),
            (ellipse(side * 0.52, 0, radius, radius), 0),
            (ellipse(side * 0.52, 0, radius - 0.1, radius - 0.1), 1),
        ]
    return parts


def anchor(rng: Generator) -> list[Part]:
    """Ring, shank, stock, and two arms with flukes."""
    width = rng.uniform(0.62, 0.75)
    flukes = [
        (
            polygon(
                (s * (width + 0.2), 0.25), (s * (width - 0.28), 0.4), (s * (width + 0.05), 0.65)
            ),
            1,
        )
        for s in (-1, 1)
    ]
    arms = ring(0, 0.2, width, 0.16, start=0.15 * np.pi, end=0.85 * np.pi)
    return [
        (ring(0, -0.78, 0.2, 0.1), 1),
        (bar(0, 0.12, 0.09, 0.72), 0),
        (bar(0, -0.42, 0.42, 0.08), 0),
        (arms, 0),
        *flukes,
    ]


def bicycle(rng: Generator) -> list[Part]:
    """Two wheels, a frame of tubes, saddle and handlebar."""
    radius = rng.uniform(0.36, 0.44)

    def tube(x: float, y: float, u: float, v: float) -> Part:
        aside = np.array([v - y, x - u]) / np.hypot(u - x, v - y) * 0.055
        return (
            np.stack(
                [
                    np.array([x, y]) + aside,
                    np.array([u, v]) + aside,
                    np.array([u, v]) - aside,
                    np.array([x, y]) - aside,
                ]
            ),
            0,
        )

    wheels: list[Part] = [(ring(x, 0.4, radius, 0.11), 1) for x in (-0.58, 0.58)]
    frame = [
        tube(-0.58, 0.4, -0.2, -0.25),
        tube(-0.2, -0.25, 0.4, -0.25),
        tube(-0.05, 0.4, 0.4, -0.25),
        tube(0.58, 0.4, 0.35, -0.5),
    ]
    return [
        *wheels,
        *frame,
        tube(-0.58, 0.4, -0.05, 0.4),
        tube(-0.25, -0.35, -0.05, 0.4),
        (bar(-0.27, -0.4, 0.17, 0.06), 2),
    ]


def guitar(rng: Generator) -> list[Part]:
    """Two bulges of a body, a hole, a neck, a head; upright."""
    waist = rng.uniform(0.3, 0.38)
    body: list[Part] = [(ellipse(0, 0.58, 0.48, 0.42), 0), (ellipse(0, 0.1, waist, 0.3), 0)]
    return [
        *body,
        (bar(0, -0.35, 0.07, 0.5), 1),
        (bar(0, -0.88, 0.13, 0.12), 1),
        (ellipse(0, 0.35, 0.15, 0.15), 2),
    ]


SOURCE_SHAPES: dict[str, Callable[[Generator], list[Part]]] = {
    "airplane": airplane,
    "anchor": anchor,
    "bicycle": bicycle,
    "bottle": bottle,
    "butterfly": butterfly,
    "cactus": cactus,
    "chair": chair,
    "clock": clock,
    "crown": crown,
    "glasses": glasses,
    "guitar": guitar,
    "hammer": hammer,
    "heart": heart,
    "key": key,
    "ladder": ladder,
    "lamp": lamp,
    "rocket": rocket,
    "snowman": snowman,
    "star": star,
    "sun": sun,
}

"""The three primitives of PRIME (Modas et al. 2022): colour, filter, diffeomorphism.

Each takes float (N, 3, H, W) in 0..1 and returns a new tensor of the same kind. With ``shared``,
scalar parameters (a strength, a cut-off frequency) are drawn once for all N images, as the official
code does for a call. Otherwise they are drawn once for each image. Coefficients are always drawn
for each image. Source: amodas/PRIME-augmentations 0290f6b (Apache-2.0).
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from stillrobust.errors import UserError
from stillrobust.robustify.technique import chunk_size

FILTER_STD = 4.0  # config/imagenet_cfg.py and cifar_cfg.py: rand_filter sigma
FILTER_SIZE = 3
# Of the fastest sine in a table. Linear interpolation then errs by (2 pi / 128)^2 / 8 of it.
SAMPLES_PER_PERIOD = 128
# The table has a point at every 8-bit value, so that 8-bit images need no interpolation.
LEVELS = 255


def _uniform(count: int, shared: bool, generator: torch.Generator) -> Tensor:
    """Draw float64 (count,) in [0, 1); with ``shared``, the same number for all."""
    drawn = torch.rand(
        1 if shared else count, generator=generator, device=generator.device, dtype=torch.float64
    )
    return drawn.expand(count)


def _integers(low: Tensor | float, high: Tensor | float, uniform: Tensor) -> Tensor:
    """Return whole numbers low..high, both included, from uniform ones."""
    return torch.floor(low + uniform * (high - low + 1)).long()


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


# ---- colour


def colour(
    images: Tensor,
    generator: torch.Generator,
    largest: int = 500,
    strength: float = 0.05,
    bandwidth: int = 20,
    shared: bool = True,
) -> Tensor:
    """Apply a random smooth curve to each channel: g(c) = clip(c + sum of b_k sin(pi k c)).

    Args:
        images: Float (N, 3, H, W) in 0..1.
        generator: Source of all random draws.
        largest: Highest frequency k.
        strength: Highest variance of an amplitude b.
        bandwidth: Number of frequencies; 0 for all.
        shared: Whether scalar parameters are the same for all images.
    """
    return apply_curves(
        images, *draw_curves(len(images), generator, largest, strength, bandwidth, shared), largest
    )


def draw_curves(
    count: int,
    generator: torch.Generator,
    largest: int,
    strength: float,
    bandwidth: int,
    shared: bool,
) -> tuple[Tensor, Tensor]:
    """Draw the frequencies and amplitudes of the curves of :func:`colour`.

    cut ~ U{1..largest}, T ~ U(0, strength), first ~ U{1..cut}, frequencies k = first .. min(first +
    bandwidth, cut + 1) - 1, b_k ~ N(0, T). With ``bandwidth`` 0, k runs over 1..cut.

    Args:
        count: Number of images.
        generator: Source of all random draws.
        largest: Highest frequency.
        strength: Highest variance of an amplitude.
        bandwidth: Number of frequencies; 0 for all.
        shared: Whether scalar parameters are the same for all images.

    Returns:
        The lowest frequencies (count,), and the amplitudes (count, 3, J) of the frequencies from
            there.
    """
    cut = _integers(1, largest, _uniform(count, shared, generator))
    variance = strength * _uniform(count, shared, generator)
    first = (
        _integers(1, cut, _uniform(count, shared, generator)) if bandwidth else torch.ones_like(cut)
    )
    width = bandwidth or largest
    amplitudes = _normal((count, 3, width), generator) * variance.sqrt().float()[:, None, None]
    beyond = first[:, None] + torch.arange(width, device=first.device) > cut[:, None]
    return first, amplitudes.masked_fill(beyond[:, None], 0)


def apply_curves(images: Tensor, first: Tensor, amplitudes: Tensor, largest: int) -> Tensor:
    """Compute clip(c + sum over j of amplitudes[..., j] sin(pi (first + j) c)).

    A table with linear interpolation is used. It is exact to float32 for 8-bit images. For others,
    the error is below 3.1e-4 · sum of |amplitudes| with frequencies up to ``largest``.

    Args:
        images: Float (N, 3, H, W) in 0..1.
        first: Lowest frequencies (N,).
        amplitudes: (N, 3, J).
        largest: Highest frequency, which sets the size of the table.
    """
    intervals = LEVELS * math.ceil(largest * SAMPLES_PER_PERIOD / 2 / LEVELS)
    pieces = zip(
        *(
            torch.split(tensor, chunk_size(images))
            for tensor in (images.flatten(2), first, amplitudes)
        ),
        strict=True,
    )
    mapped = [
        _interpolate(values, _tabulate(lowest, waves, intervals))
        for values, lowest, waves in pieces
    ]
    return torch.cat(mapped).view_as(images)


def _tabulate(first: Tensor, amplitudes: Tensor, intervals: int) -> Tensor:
    """Compute the curves at c = 0, 1/intervals, ..., 1: (N, 3, intervals + 1).

    sum b_j sin((k + j) t) = sin(k t) · sum b_j cos(j t) + cos(k t) · sum b_j sin(j t). The inner
    sums are products with constant tables. Only one sine and one cosine are left to compute for
    each point.
    """
    cosines, sines, points = _harmonics(amplitudes.shape[2], intervals, amplitudes.device)
    inner = amplitudes.flatten(0, 1)
    cosine_sum, sine_sum = (
        (inner @ table).view(len(first), 3, intervals + 1) for table in (cosines, sines)
    )
    angle = first.double()[:, None] * points / 2
    # Angles of hundreds of turns are reduced to one, which float32 can represent.
    angle = (angle.sub_(angle.floor()).float() * (2 * math.pi))[:, None]
    return cosine_sum.mul_(angle.sin()).addcmul_(sine_sum, angle.cos()).add_(points.float())


@lru_cache(maxsize=4)
def _harmonics(count: int, intervals: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return cos(pi j c) and sin(pi j c) for j < count, and the points c in 0..1.

    Both are float32 (count, intervals + 1). The points are float64.
    """
    points = torch.arange(intervals + 1, dtype=torch.float64, device=device) / intervals
    angles = torch.arange(count, dtype=torch.float64, device=device)[:, None] * points * math.pi
    return torch.cos(angles).float(), torch.sin(angles).float(), points


def _interpolate(values: Tensor, curves: Tensor) -> Tensor:
    """Map values (N, 3, P) in 0..1 through curves (N, 3, intervals + 1), linearly, clipped."""
    intervals = curves.shape[2] - 1
    place = values.clamp(0, 1).mul_(intervals)
    whole = place.int()
    fraction = place.sub_(whole)
    index = whole.long()
    left = curves.gather(2, index)
    right = curves.gather(2, index.add_(1).clamp_(max=intervals))
    return left.lerp_(right, fraction).clamp_(0, 1)


# ---- filter


def random_color_filter(
    images: Tensor, generator: torch.Generator, delta: str = "official", shared: bool = True
) -> Tensor:
    """Apply a random 3 x 3 kernel to each image, the same to its channels, padded with zeros and
    clipped.

    Args:
        images: Float (N, 3, H, W) in 0..1.
        generator: Source of all random draws.
        delta: Where the kernel has its identity; see :func:`draw_filters`.
        shared: Whether the strength is the same for all images.
    """
    return apply_filters(images, draw_filters(len(images), generator, delta, shared))


def draw_filters(count: int, generator: torch.Generator, delta: str, shared: bool) -> Tensor:
    """Draw kernels s · N(0, 1) + delta with s ~ U(0, 4).

    Args:
        count: Number of images.
        generator: Source of all random draws.
        delta: ``official`` puts the identity's 1 at the kernel's last place, index ceil(3 / 2), as
            the official code does. This moves the picture by one pixel. ``center`` puts it in the
            middle.
        shared: Whether s is the same for all images.

    Returns:
        (count, 3, 3).
    """
    std = FILTER_STD * _uniform(count, shared, generator).float()
    kernels = _normal((count, FILTER_SIZE, FILTER_SIZE), generator) * std[:, None, None]
    place = math.ceil(FILTER_SIZE / 2) if delta == "official" else FILTER_SIZE // 2
    kernels[:, place, place] += 1
    return kernels


def apply_filters(images: Tensor, kernels: Tensor) -> Tensor:
    """Cross-correlate each image with its own kernel, and clip to 0..1.

    Args:
        images: Float (N, 3, H, W).
        kernels: (N, 3, 3).
    """
    if len(images) == 0:
        return images.clone()
    # Depthwise, with a group for every channel: bit-equal to a group for every image, and four to
    # ten times as fast on a CPU.
    planes = images.flatten(0, 1)[None]
    weights = kernels.to(images.dtype).repeat_interleave(images.shape[1], dim=0)[:, None]
    filtered = functional.conv2d(planes, weights, padding=FILTER_SIZE // 2, groups=len(weights))
    return filtered.view_as(images).clamp_(0, 1)


# ---- diffeomorphism (Petrini et al. 2021)


def diffeomorphism(
    images: Tensor, generator: torch.Generator, largest: int = 500, shared: bool = True
) -> Tensor:
    """Sample images at (x - u, y - v) for a smooth random displacement (u, v), after Petrini et al.
    2021.

    Args:
        images: Float (N, 3, S, S) in 0..1.
        generator: Source of all random draws.
        largest: Highest frequency of the displacement.
        shared: Whether all images have the same displacement.

    Raises:
        UserError: If the images are not square.
    """
    count, _, height, width = images.shape
    if height != width:
        raise UserError(
            f"The geometry of PRIME needs square images, but got {height} x {width}; crop them"
            " square, or use prime(geometry=False)"
        )
    cut, temperature = draw_smoothness(count, width, generator, largest, shared)
    # The official code has one field for all images of a call.
    fields = min(1, count) if shared else count
    return warp(
        images,
        displacement_field(cut[:fields], temperature[:fields], width, generator).expand(
            count, -1, -1, -1
        ),
    )


def draw_smoothness(
    count: int, size: int, generator: torch.Generator, largest: int, shared: bool
) -> tuple[Tensor, Tensor]:
    """Draw the highest frequency and the temperature of displacements.

    The frequency is int(2 + B · (cutmax - 1)) with cutmax ~ U{3..largest}. The temperature is T1 +
    B' · (T2 - T1) with the bounds of :func:`temperatures`. B, B' ~ Beta(1/2, 1/2).

    Args:
        count: Number of images.
        size: Side of the images.
        generator: Source of all random draws.
        largest: Highest frequency.
        shared: Whether both are the same for all images.

    Returns:
        Frequencies and temperatures, (count,) each.
    """
    cut_max = _integers(3, largest, _uniform(count, shared, generator))
    cut = (2 + _arcsine(_uniform(count, shared, generator)) * (cut_max - 1)).long()
    low, high = temperatures(cut, size)
    return cut, low + _arcsine(_uniform(count, shared, generator)) * (high - low)


def _arcsine(uniform: Tensor) -> Tensor:
    """Return Beta(1/2, 1/2), the arcsine distribution, from uniform numbers by its inverse."""
    return torch.sin(uniform * (math.pi / 2)) ** 2


def temperatures(cut: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Compute the bounds of the temperature: diffeomorphism_T of the official code.

    At the lowest one, the displacement is half a pixel. At the highest one, the map is still one-
    to-one.

    Args:
        cut: Highest frequencies (N,).
        size: Side of the images.

    Returns:
        The lowest and highest temperatures, (N,) each.
    """
    log = torch.log(cut.double() + 1e-6)
    low = 1 / (math.pi * size**2 * log)
    return low, torch.maximum(low, 4 / (math.pi**3 * (cut.double() + 1e-6) ** 2 * log))


def displacement_field(
    cut: Tensor, temperature: Tensor, size: int, generator: torch.Generator
) -> Tensor:
    """Draw displacements in pixels, zero at the border.

    size · sqrt(T) · sum over i² + j² <= (cut + 1/2)² of C_ij / sqrt(i² + j²) · sin(pi i x) sin(pi j
    y), with C ~ N(0, 1) (Petrini et al. 2021).

    Args:
        cut: Highest frequencies (N,).
        temperature: T (N,).
        size: Side of the images.
        generator: Source of all random draws.

    Returns:
        (N, 2, size, size), horizontal and vertical.
    """
    fields = []
    for highest, scale in zip(cut.tolist(), (size * temperature.sqrt()).tolist(), strict=True):
        waves, inverse_radius = _waves(highest, size, generator.device)
        coefficients = _normal((2, highest, highest), generator) * (scale * inverse_radius)
        fields.append(waves.T @ coefficients @ waves)
    return torch.stack(fields) if fields else torch.empty(0, 2, size, size, device=generator.device)


def _waves(highest: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return sin(pi i x) as (highest, size) over x in 0..1, and 1 / sqrt(i² + j²), zero beyond the
    cut.
    """
    order = torch.arange(1, highest + 1, device=device)
    # The angle is pi / (size - 1) times a whole number, which is reduced modulo a turn exactly.
    phase = (order[:, None] * torch.arange(size, device=device)) % (2 * (size - 1))
    radius = torch.hypot(order[:, None].float(), order.float())
    return torch.sin(phase * (math.pi / (size - 1))), (radius <= highest + 0.5) / radius


def warp(images: Tensor, displacements: Tensor) -> Tensor:
    """Sample images at places moved by the negative displacements, bilinearly, with a continued
    border.

    Args:
        images: Float (N, 3, S, S).
        displacements: (N, 2, S, S) in pixels.
    """
    size = images.shape[-1]
    step = 2 / (size - 1)
    axis = torch.linspace(-1, 1, size, device=images.device)
    places = torch.stack(
        (axis - displacements[:, 0] * step, axis[:, None] - displacements[:, 1] * step), dim=-1
    )
    return functional.grid_sample(
        images, places.to(images.dtype), mode="bilinear", padding_mode="border", align_corners=True
    )

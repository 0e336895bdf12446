"""Noise with a given power spectrum, by an inverse Fourier transform of random phases.

Exact draws use numpy's transform. Fast ones use the transform below, which has the same bits on
every processor: it adds and multiplies whole arrays one at a time.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from stillrobust.corruptions import arithmetic, elementary
from stillrobust.samples import Array

LARGEST_FACTOR = 23
"""Larger prime factors of a length go through a transform of twice a power of two (Bluestein)."""

Pair = tuple[Array, Array]
"""The real and the imaginary part, float64 of one shape."""


def spectral_noise(
    size: tuple[int, int],
    rng: np.random.RandomState,
    power: Callable[[Array], Array],
    exact: bool,
) -> Array:
    """Draw one field of noise, as ``noise`` of ImageNet-C-bar's corrupt.py does.

    The reference takes square images. Here the axes of an ellipse take the place of a circle's, so
    that squares are unchanged. As in the reference the spectrum is not symmetric, a length that is
    odd misses the zero frequency by one bin, and the mean is kept.

    Draws: H * (W // 2) uniforms, for an odd width H // 2 more.

    Args:
        size: (H, W).
        rng: Source of the phases.
        power: From the square of the distance to the spectrum's centre, in cycles, to amplitudes.
        exact: Whether numpy computes the transform.

    Returns:
        float64 (H, W) of standard deviation 1.
    """
    height, width = size
    phases = _draw_phases(height, width, rng)
    side = math.sqrt(height * width)
    rows = (np.arange(height) - height / 2) * (side / height)
    columns = (np.arange(width) - width / 2) * (side / width)
    amplitudes = power(columns**2 + (rows**2)[:, None])
    shift = (height // 2, width // 2)
    if exact:
        spectrum = amplitudes * (np.cos(phases) + 1j * np.sin(phases))
        field: Array = np.real(np.fft.ifft2(np.roll(spectrum, shift, axis=(0, 1))))
        return field / (field.std() or 1.0)
    real = np.roll(amplitudes * arithmetic.FAST.cos(phases), shift, axis=(0, 1))
    imaginary = np.roll(amplitudes * arithmetic.FAST.sin(phases), shift, axis=(0, 1))
    field = transform_2d((real, imaginary))[0]
    return field / _deviation(field)


def _draw_phases(height: int, width: int, rng: np.random.RandomState) -> Array:
    half = rng.uniform(0, 2 * np.pi, (height, width // 2))
    if width % 2 == 0:
        return np.concatenate([half, half[::-1, ::-1]], axis=1)
    column = rng.uniform(0, 2 * np.pi, (height // 2, 1))
    middle = [column, *([np.zeros((1, 1))] if height % 2 else []), column[::-1]]
    return np.concatenate([half, np.concatenate(middle), half[::-1, ::-1]], axis=1)


def _deviation(field: Array) -> float:
    """The standard deviation, from sums of whole numbers, whose order does not matter."""
    largest = float(np.abs(field).max()) or 1.0
    whole = np.rint(field * (2**20 / largest)).astype(np.int64)
    mean, mean_square = int(whole.sum()) / whole.size, int((whole * whole).sum()) / whole.size
    return (math.sqrt(mean_square - mean * mean) or 1.0) * largest / 2**20


def transform_2d(values: Pair) -> Pair:
    """The inverse Fourier transform over both axes, without the factor 1 / (H * W).

    Args:
        values: Float64 (H, W) twice.
    """
    columns = _transform(values)
    turned = _transform((columns[0].T.copy(), columns[1].T.copy()))
    return turned[0].T, turned[1].T


@lru_cache(maxsize=64)
def _roots(count: int) -> Pair:
    """cos and sin of 2 pi k / count, k = 0..count - 1."""
    pairs = [elementary.sin_cos(360 * k / count) for k in range(count)]
    return np.array([cosine for _, cosine in pairs]), np.array([sine for sine, _ in pairs])


def _factors(length: int) -> list[int]:
    found, factor = [], 2
    while length > 1:
        if length % factor:
            factor += 1
        else:
            found.append(factor)
            length //= factor
    return found


def _transform(values: Pair) -> Pair:
    """The transform along the first axis: sum over j of x[j] * exp(2 pi i j k / n)."""
    length = len(values[0])
    factors = _factors(length)
    if factors and factors[-1] > LARGEST_FACTOR:
        return _transform_by_convolution(values)
    # (interleaved sequences left, their transforms of length `done`, the other axis)
    real, imaginary = (part.reshape(length, 1, -1) for part in values)
    done = 1
    for factor in factors:
        left = length // (done * factor)
        turned = [
            _rotate(
                (real[place * left :][:left], imaginary[place * left :][:left]),
                done * factor,
                place,
                done,
            )
            for place in range(factor)
        ]
        cosines, sines = _roots(factor)
        columns = []
        for output in range(factor):
            sums = turned[0]
            for place in range(1, factor):
                step = output * place % factor
                sums = _add(sums, turned[place], float(cosines[step]), float(sines[step]))
            columns.append(sums)
        real, imaginary = (
            np.concatenate([column[part] for column in columns], axis=1) for part in (0, 1)
        )
        done *= factor
    return real.reshape(values[0].shape), imaginary.reshape(values[0].shape)


def _rotate(values: Pair, count: int, place: int, length: int) -> Pair:
    """Multiply entry k of the second axis by exp(2 pi i place k / count)."""
    if place == 0 or length == 1:
        return values
    steps = place * np.arange(length) % count
    cosines, sines = (part[steps][None, :, None] for part in _roots(count))
    real, imaginary = values
    return real * cosines - imaginary * sines, real * sines + imaginary * cosines


def _add(sums: Pair, values: Pair, cosine: float, sine: float) -> Pair:
    """``sums`` plus ``values`` times (cosine + i sine)."""
    real, imaginary = values
    if sine == 0:
        if cosine > 0:
            return sums[0] + real, sums[1] + imaginary
        return sums[0] - real, sums[1] - imaginary
    return (
        sums[0] + (real * cosine - imaginary * sine),
        sums[1] + (real * sine + imaginary * cosine),
    )


def _transform_by_convolution(values: Pair) -> Pair:
    """The transform of any length n through ones of a power of two (Bluestein 1970).

    j * k = (j**2 + k**2 - (k - j)**2) / 2, so that the sum is a convolution with a chirp.
    """
    length = len(values[0])
    padded = 1 << (2 * length - 1).bit_length()
    steps = np.arange(length) ** 2 % (2 * length)
    cosines, sines = (part[steps][:, None] for part in _roots(2 * length))
    real, imaginary = values
    chirped = np.zeros((2, padded, real.shape[1]))
    chirped[0, :length] = real * cosines - imaginary * sines
    chirped[1, :length] = real * sines + imaginary * cosines
    filters = np.zeros((2, padded, 1))
    filters[0, :length], filters[1, :length] = cosines, -sines
    filters[:, padded - length + 1 :] = filters[:, length - 1 : 0 : -1]
    first, second = _transform((chirped[0], chirped[1])), _transform((filters[0], filters[1]))
    # the transform of the conjugate is the conjugate of the transform back
    product = (
        first[0] * second[0] - first[1] * second[1],
        -(first[0] * second[1] + first[1] * second[0]),
    )
    back = _transform(product)
    real, imaginary = back[0][:length] / padded, -back[1][:length] / padded
    return real * cosines - imaginary * sines, real * sines + imaginary * cosines

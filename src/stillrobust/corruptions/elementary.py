"""Elementary functions with the same last bit on every processor.

A library's ``exp``, ``log`` or ``sin`` depends on its release and on the processor: numpy's AVX-512
code gives other last bits. The functions here use only additions, multiplications, divisions and
square roots, one at a time, whose results IEEE 754 defines. Fast draws use them wherever a pixel
depends on the result. Exact draws use numpy's, as the reference does.
"""

import math

import numpy as np

from stillrobust.samples import Array

# ln 2 in two parts (fdlibm)
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
INVERSE_LN2 = 1.44269504088896338700
SQRT_HALF = 0.70710678118654752440


def exp(x: Array) -> Array:
    """e**x of float64 from -700 to 700, within two units in the last place."""
    x = np.asarray(x, np.float64)
    power = np.rint(x * INVERSE_LN2)
    part = (x - power * LN2_HIGH) - power * LN2_LOW
    result = np.full_like(part, 1 / 6227020800)  # Taylor's series up to x**13 / 13!, for |x| < 0.35
    for factorial in (479001600, 39916800, 3628800, 362880, 40320, 5040, 720, 120, 24, 6, 2, 1, 1):
        result = result * part + 1 / factorial
    scaled: Array = np.ldexp(result, power.astype(np.int32))
    return scaled


def log(x: Array) -> Array:
    """The natural logarithm of positive float64, within two units in the last place (atanh)."""
    part, power = np.frexp(np.asarray(x, np.float64))
    small = part < SQRT_HALF
    part, power = (
        np.where(small, 2 * part, part),
        np.where(small, power - 1, power).astype(np.float64),
    )
    ratio = (part - 1) / (part + 1)
    square = ratio * ratio
    series = np.full_like(part, 1 / 23)
    for odd in (21, 19, 17, 15, 13, 11, 9, 7, 5, 3):
        series = series * square + 1 / odd
    result: Array = power * LN2_HIGH + (power * LN2_LOW + (2 * ratio + 2 * ratio * square * series))
    return result


def sin_cos(degrees: float) -> tuple[float, float]:
    """Sine and cosine of an angle in degrees."""
    turns = math.floor(degrees / 90 + 0.5)
    x = (degrees - 90 * turns) * (math.pi / 180)
    square = x * x
    sine, cosine = 1 / 355687428096000, 1 / 20922789888000  # 17! and 16!; |x| < 0.79
    for odd, even in (
        (1307674368000, 87178291200), (6227020800, 479001600), (39916800, 3628800), (362880, 40320),
        (5040, 720), (120, 24), (6, 2), (1, 1),
    ):  # fmt: skip
        sine, cosine = 1 / odd - sine * square, 1 / even - cosine * square
    sine *= x
    return ((sine, cosine), (cosine, -sine), (-sine, -cosine), (-cosine, sine))[turns % 4]


# Wichura 1988, algorithm AS 241 (PPND16): coefficients for the middle and for the tails, highest
# power first.
MIDDLE = (
    (
        2.5090809287301226727e3,
        3.3430575583588128105e4,
        6.7265770927008700853e4,
        4.5921953931549871457e4,
        1.3731693765509461125e4,
        1.9715909503065514427e3,
        1.3314166789178437745e2,
        3.3871328727963666080e0,
    ),
    (
        5.2264952788528545610e3,
        2.8729085735721942674e4,
        3.9307895800092710610e4,
        2.1213794301586595867e4,
        5.3941960214247511077e3,
        6.8718700749205790830e2,
        4.2313330701600911252e1,
        1.0,
    ),
)
TAIL = (
    (
        7.74545014278341407640e-4,
        2.27238449892691845833e-2,
        2.41780725177450611770e-1,
        1.27045825245236838258e0,
        3.64784832476320460504e0,
        5.76949722146069140550e0,
        4.63033784615654529590e0,
        1.42343711074968357734e0,
    ),
    (
        1.05075007164441684324e-9,
        5.47593808499534494600e-4,
        1.51986665636164571966e-2,
        1.48103976427480074590e-1,
        6.89767334985100004550e-1,
        1.67638483018380384940e0,
        2.05319162663775882187e0,
        1.0,
    ),
)


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Array) -> Array:
    """One polynomial over another (Horner)."""
    above, below = (np.full_like(x, part[0]) for part in coefficients)
    for first, second in zip(*(part[1:] for part in coefficients), strict=True):
        above, below = above * x + first, below * x + second
    return above / below


def normal_quantiles(chances: Array) -> Array:
    """The standard normal's quantiles at probabilities 1e-11..0.5; the upper half mirrors them."""
    distance = chances - 0.5
    middle = distance * _ratio(MIDDLE, 0.180625 - distance * distance)
    tail = -_ratio(TAIL, np.sqrt(-log(chances)) - 1.6)
    result: Array = np.where(distance >= -0.425, middle, tail)
    return result

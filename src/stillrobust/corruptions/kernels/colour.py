"""brightness and saturate in closed form, instead of a conversion to HSV and back.

If the closed form gives a whole number, the reference's rounding errors decide whether it is
truncated to that number or to one less. Only those pixels are converted to HSV and back.
"""

# mypy: ignore-errors

import math

import numpy as np

from stillrobust.corruptions.kernels.jit import kernel
from stillrobust.corruptions.kernels.truncation import to_grey_level

ROUNDING = 1e-9  # grey levels: far above float64's errors


@kernel
def _hsv_to_rgb(hue, saturation, value):
    """scikit-image's hsv2rgb of one pixel."""
    sector = math.floor(hue * 6)
    f = hue * 6 - sector
    p, q, t = (
        value * (1 - saturation),
        value * (1 - f * saturation),
        value * (1 - (1 - f) * saturation),
    )
    turn = int(sector) % 6
    if turn == 0:
        return value, t, p
    if turn == 1:
        return q, value, p
    if turn == 2:
        return p, value, t
    if turn == 3:
        return p, q, value
    if turn == 4:
        return t, p, value
    return value, p, q


@kernel
def _via_hsv(red, green, blue, factor, offset, brighter):
    """rgb2hsv, S * factor + offset, V + brighter, hsv2rgb of fractions -> three grey levels."""
    value = max(red, max(green, blue))
    delta = value - min(red, min(green, blue))
    hue, saturation = 0.0, 0.0
    if delta > 0:
        saturation = delta / value
        if blue == value:
            hue = 4.0 + (red - green) / delta
        elif green == value:
            hue = 2.0 + (blue - red) / delta
        else:
            hue = (green - blue) / delta
        hue = (hue / 6.0) % 1.0
    saturation = min(max(saturation * factor + offset, 0.0), 1.0)
    a, b, c = _hsv_to_rgb(hue, saturation, min(max(value + brighter, 0.0), 1.0))
    return to_grey_level(a), to_grey_level(b), to_grey_level(c)


@kernel
def brighten(image, table, amount, fractions, out):
    """V + amount, uint8 (N * 3).

    ``table[largest channel, channel]`` is the new level, or 1 where rounding decides.
    """
    for i in range(image.size // 3):
        red, green, blue = image[3 * i], image[3 * i + 1], image[3 * i + 2]
        row = table[max(red, max(green, blue))]
        a, b, c = row[red], row[green], row[blue]
        if (a == 1) | (b == 1) | (c == 1):
            a, b, c = _via_hsv(fractions[red], fractions[green], fractions[blue], 1.0, 0.0, amount)
        out[3 * i], out[3 * i + 1], out[3 * i + 2] = a, b, c


@kernel
def saturate(image, ratio, factor, offset, fractions, out):
    """S * factor + offset, uint8 (N * 3): V - (V - c) * ratio[V, smallest].

    Greys get the hue red, as in the reference.
    """
    for i in range(image.size // 3):
        red, green, blue = image[3 * i], image[3 * i + 1], image[3 * i + 2]
        largest, smallest = max(red, max(green, blue)), min(red, min(green, blue))
        value, scale = np.float64(largest), ratio[largest, smallest]
        x = value - (value - np.float64(red)) * scale
        y = value - (value - np.float64(green)) * scale
        z = value - (value - np.float64(blue)) * scale
        a, b, c = np.int32(x + 0.5), np.int32(y + 0.5), np.int32(z + 0.5)
        decided = (red == largest) | (abs(x - np.float64(a)) > ROUNDING)
        decided &= (green == largest) | (abs(y - np.float64(b)) > ROUNDING)
        decided &= (blue == largest) | (abs(z - np.float64(c)) > ROUNDING)
        if decided & (largest != smallest):
            out[3 * i], out[3 * i + 1], out[3 * i + 2] = (
                np.uint8(np.int32(x)),
                np.uint8(np.int32(y)),
                np.uint8(np.int32(z)),
            )
        else:
            pixel = fractions[red], fractions[green], fractions[blue]
            out[3 * i], out[3 * i + 1], out[3 * i + 2] = _via_hsv(*pixel, factor, offset, 0.0)

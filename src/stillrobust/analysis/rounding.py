"""How many decimals of a percentage mean something, by its interval.

The rule is that of the Particle Data Group (Review of Particle Physics 2018, introduction, 5.3) for
an uncertainty, here the half-width of the interval: if its three highest digits are 100 to 354, two
digits are kept, if they are 355 to 949, one. The number gets as many decimals as its uncertainty. A
half-width of 0.25 points therefore allows two decimals, one of 0.50 points only one.

Two limits are ours. One decimal is always kept, since rounding to whole points would move the end
of an interval onto 0 and contradict a verdict. There are never more than two.
"""

import math

TWO_DECIMALS_BELOW = 0.355  # points; from here on the rule keeps one decimal or none

Bounds = tuple[float, float]


def decimals(interval: Bounds | None) -> int:
    """Return the number of decimals of a percentage and of the ends of its interval.

    Args:
        interval: Lower and upper bound as fractions; ``None`` if unknown.

    Returns:
        1 or 2. 1 for an unknown or empty interval, which says nothing about the precision.
    """
    if interval is None:
        return 1
    half_width = 100 * (interval[1] - interval[0]) / 2  # points
    return 2 if math.isfinite(half_width) and 0 < half_width < TWO_DECIMALS_BELOW else 1

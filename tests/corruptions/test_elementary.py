"""Functions with the same last bit everywhere: against Python's decimal, and to the bit by fixed
values.
"""

from decimal import Decimal, localcontext

import numpy as np
import pytest

from stillrobust.corruptions import elementary


def ulps(values, truth):
    steps = [Decimal(float(np.spacing(abs(float(exact))))) for exact in truth]
    return max(
        abs(Decimal(float(value)) - exact) / step
        for value, exact, step in zip(values, truth, steps, strict=True)
    )


@pytest.mark.parametrize("low", [-700.0, -1.0, 100.0])
def test_exp_and_log_are_right_to_two_units(low):
    with localcontext() as context:
        context.prec = 40
        x = np.linspace(low, -low if low < 0 else 700, 501)
        assert ulps(elementary.exp(x), [Decimal(float(value)).exp() for value in x]) < 2
        x = np.exp(np.linspace(-600, 600, 501)) * 1.0000001
        assert ulps(elementary.log(x), [Decimal(float(value)).ln() for value in x]) < 2


def test_sine_and_cosine():
    assert [elementary.sin_cos(float(angle)) for angle in (0, 90, 180, -90)] == [
        (0, 1),
        (1, 0),
        (0, -1),
        (-1, 0),
    ]
    assert elementary.sin_cos(30.0)[0] == pytest.approx(0.5, abs=2e-16)
    for angle in np.linspace(-135, 45, 1001):
        sine, cosine = elementary.sin_cos(float(angle))
        assert (sine, cosine) == pytest.approx(
            (np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))), abs=4e-16
        )


def test_quantiles_of_the_normal():
    """Known to every table of statistics; and against Python's own."""
    from statistics import NormalDist

    assert elementary.normal_quantiles(np.array([0.025, 0.16, 0.5])) == pytest.approx(
        [-1.959963984540054, -0.994457883209753, 0]
    )
    chances = (np.arange(32768) + 0.5) / 65536
    expected = [NormalDist().inv_cdf(chance) for chance in chances]
    assert elementary.normal_quantiles(chances) == pytest.approx(expected, rel=2e-15)


def test_the_last_bit_is_fixed():
    """As computed on x86-64 and, under an emulator, on arm64."""
    assert float(elementary.exp(1.0)).hex() == EXP
    assert float(elementary.log(10.0)).hex() == LOG
    assert tuple(value.hex() for value in elementary.sin_cos(-17.25)) == SIN_COS
    assert float(elementary.normal_quantiles(np.array([0.001]))[0]).hex() == QUANTILE


EXP = "0x1.5bf0a8b14576ap+1"
LOG = "0x1.26bb1bbb55516p+1"
SIN_COS = ("-0x1.2fa89839b2985p-2", "0x1.e8f85fc8f1553p-1")
QUANTILE = "-0x1.8b8cbb7204470p+1"

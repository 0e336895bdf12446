import numpy as np
import pytest

from stillrobust.analysis.reference import (
    ALEXNET,
    as_reference,
    corruption_errors,
    effective_robustness,
    worst_corruption,
)
from stillrobust.analysis.robustness import robustness
from stillrobust.errors import UserError
from stillrobust.grid import COMMON
from stillrobust.storage.store import Measurement

# Top-1 in %, mean of five severities, in the order of COMMON: game-of-noise, Results/clean_results.txt and ANT_results.txt.
# fmt: off
RESNET_50 = (29.29, 27.03, 23.81, 38.75, 26.79, 38.67, 36.24, 32.53, 38.14, 45.83, 68.02, 39.06, 45.25, 44.79, 53.41)
ANT = (64.77, 65.73, 63.95, 47.02, 36.98, 43.30, 40.56, 36.71, 45.50, 44.20, 69.66, 42.12, 48.89, 54.65, 62.36)
# fmt: on


def run_of(clean, scores, name="run", severities=range(1, 6), metric="top1"):
    rows = [Measurement(name, metric, "clean", 0, clean, {}, 9, 1.0)]
    rows += [
        Measurement(name, metric, c, s, v, {}, 9, 1.0)
        for c, v in zip(COMMON, scores, strict=True)
        for s in severities
    ]
    return robustness(rows, tuple(severities))


@pytest.mark.parametrize(
    ("clean", "scores", "mce"), [(76.13, RESNET_50, 76.70), (76.07, ANT, 62.51)]
)
def test_published_mce(clean, scores, mce):
    found = corruption_errors(run_of(clean / 100, np.array(scores) / 100))
    assert 100 * found.mce == pytest.approx(mce, abs=0.006)


def test_published_relative_mce():
    """ResNet-50: 105.0 (Hendrycks & Dietterich 2019), from AlexNet's clean error and the digits
    above.
    """
    found = corruption_errors(run_of(0.7613, np.array(RESNET_50) / 100))
    assert 100 * found.relative_mce == pytest.approx(105.0, abs=0.6)


def test_alexnet_against_itself_is_one():
    found = corruption_errors(
        run_of(1 - ALEXNET.clean, [1 - ALEXNET.by_corruption[name] for name in COMMON])
    )
    assert found.mce == pytest.approx(1)
    assert found.relative_mce == pytest.approx(1)


def test_any_run_as_reference_by_hand():
    """Errors 0.4 of 0.8; relative (0.4 - 0.2) / (0.8 - 0.3)."""
    reference = as_reference(run_of(0.7, [0.2] * 15, "reference", metric="miou"))
    found = corruption_errors(run_of(0.8, [0.6] * 15, metric="miou"), reference)
    assert (found.mce, found.relative_mce) == pytest.approx((0.5, 0.4))


def test_references_that_do_not_fit():
    with pytest.raises(UserError, match="AlexNet has"):
        corruption_errors(run_of(0.8, [0.6] * 15, severities=[3]))
    with pytest.raises(UserError, match="has box_ap"):
        corruption_errors(run_of(0.8, [0.6] * 15, metric="box_ap"))
    with pytest.raises(UserError, match="loses nothing"):
        corruption_errors(run_of(0.8, [0.6] * 15), as_reference(run_of(0.8, [0.8] * 15)))


def test_worst_corruption():
    assert worst_corruption(run_of(0.8, [0.6] * 9 + [0.1] + [0.6] * 5))[0] == "fog"


def test_effective_robustness_by_hand():
    """Standard runs on logit(mPC) = logit(P) - 1; a run 0.05 above that line, and one upon it."""

    def expected(clean):
        return 1 / (1 + np.exp(1 - np.log(clean / (1 - clean))))

    standard = [
        run_of(clean, [expected(clean)] * 15, f"standard-{clean}") for clean in (0.5, 0.6, 0.8)
    ]
    runs = [run_of(0.7, [expected(0.7) + 0.05] * 15), run_of(0.9, [expected(0.9)] * 15)]
    assert effective_robustness(runs, standard) == pytest.approx([0.05, 0.0])


def test_effective_robustness_of_what_has_none():
    one = run_of(0.8, [0.6] * 15)
    for runs, standard, words in (
        ([one], [one], "two standard runs"),
        ([one], [one, run_of(0.7, [0.5] * 15, severities=[3])], "one set of severities"),
        ([run_of(1.0, [0.6] * 15)], [one, run_of(0.7, [0.5] * 15)], "between 0 and 1"),
    ):
        with pytest.raises(UserError, match=words):
            effective_robustness(runs, standard)

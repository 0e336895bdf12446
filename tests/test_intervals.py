import numpy as np
import pytest

from stillrobust.errors import UserError
from stillrobust.intervals import bootstrap_weights, interval, robustness_replicates


def test_interval_by_hand():
    assert interval(np.arange(101.0)) == pytest.approx((2.5, 97.5))
    assert interval(np.array([1.0, np.nan, 1.0])) == (1.0, 1.0)
    assert np.isnan(interval(np.array([np.nan]))).all()


def test_robustness_in_each_replicate_by_hand():
    found = robustness_replicates(np.array([0.5, 1.0, 0.0]), np.array([[0.2, 0.5, 0.0], [0.3, 0.7, 0.0]]))
    assert found["mPC"] == pytest.approx([0.25, 0.6, 0.0])
    assert found["drop"][:2] == pytest.approx([0.5, 0.4])
    assert np.isnan(found["drop"][2])


def test_nothing_to_resample():
    with pytest.raises(UserError, match="none"):
        bootstrap_weights([])


def test_coverage_with_known_truth():
    """200 sets of 150 images with true accuracy 0.7: some 95 % of the intervals hold it (binomial sd 1.5 points)."""
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        correct = rng.random(150) < 0.7
        weights = bootstrap_weights([f"{trial}/{i}" for i in range(150)], 400)
        low, high = interval(weights @ correct / 150)
        inside += low <= 0.7 <= high
    assert 0.90 <= inside / 200 <= 0.99


def test_paired_differences_are_narrower():
    """Two models that err on mostly the same images: resampling them together cancels what they share."""
    rng = np.random.default_rng(1)
    first = rng.random(300) < 0.6
    second = first ^ (rng.random(300) < 0.05)
    ids = [str(i) for i in range(300)]
    together = bootstrap_weights(ids, 400) @ (first.astype(float) - second) / 300
    apart = bootstrap_weights(ids, 400) @ first / 300 - bootstrap_weights(ids, 400, seed=9) @ second / 300
    width = [high - low for low, high in (interval(together), interval(apart))]
    assert width[0] * 2 < width[1]

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from stillrobust.errors import UserError
from stillrobust.intervals import bootstrap_weights, interval, over_seeds, rank_groups, robustness_replicates, student_quantile


def simulations():
    """The worlds of benchmarks/interval_coverage.py."""
    path = Path(__file__).parents[1] / "benchmarks/interval_coverage.py"
    spec = importlib.util.spec_from_file_location("interval_coverage", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_interval_by_hand():
    """Replicates 1, 2, 3 of an estimate 1.5: their mean is half too high, so the centre is 1.0; 1.96 standard deviations of 1."""
    assert interval(np.array([1.0, 2.0, 3.0, np.nan]), 1.5) == pytest.approx((1 - 1.959964, 1 + 1.959964))
    assert interval(np.array([1.0, 1.0]), 1.0) == (1.0, 1.0)
    assert np.isnan(interval(np.array([np.nan, 1.0]), 1.0)).all()


def test_robustness_in_each_replicate_by_hand():
    found = robustness_replicates(np.array([0.5, 1.0, 0.0]), np.array([[0.2, 0.5, 0.0], [0.3, 0.7, 0.0]]))
    assert found["mPC"] == pytest.approx([0.25, 0.6, 0.0])
    assert found["drop"][:2] == pytest.approx([0.5, 0.4])
    assert np.isnan(found["drop"][2])


def test_nothing_to_resample():
    with pytest.raises(UserError, match="none"):
        bootstrap_weights([])


@pytest.mark.parametrize("name", ["top1", "miou"])
def test_coverage_with_known_truth(name):
    """120 trials: binomial sd 2 points, so that 89 to 99 is what 95 would give; percentile intervals of miou have 80."""
    found, _ = simulations().measure(name, trials=120, images=400, count=120, seed=0, pool=4000)
    assert all(0.89 <= share <= 0.99 for share in found["ours"].values()), found["ours"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "images"), [("top1", 500), ("miou", 500), ("ap", 1000)])
def test_coverage_is_93_to_97(name, images):
    """600 trials, binomial sd 0.9 points: the bounds of the promise, widened by one of them."""
    found, _ = simulations().measure(name, trials=600, images=images, count=300, seed=3)
    assert all(0.921 <= share <= 0.979 for share in found["ours"].values()), found["ours"]


def test_paired_differences_are_narrower():
    """Two models that err on mostly the same images: resampling them together cancels what they share."""
    rng = np.random.default_rng(1)
    first = rng.random(300) < 0.6
    second = first ^ (rng.random(300) < 0.05)
    ids = [str(i) for i in range(300)]
    together = bootstrap_weights(ids, 400) @ (first.astype(float) - second) / 300
    apart = bootstrap_weights(ids, 400) @ first / 300 - bootstrap_weights(ids, 400, seed=9) @ second / 300
    width = [high - low for low, high in (interval(together, together.mean()), interval(apart, apart.mean()))]
    assert width[0] * 2 < width[1]


def runs(centres, noise, seed=0):
    """Replicates of runs whose sampling errors are mostly shared."""
    rng = np.random.default_rng(seed)
    return np.asarray(centres)[:, None] + rng.normal(0, 0.05, 400) + rng.normal(0, noise, (len(centres), 400))


def test_groups_by_hand():
    """Steps of two deviations of a run's own noise: neighbours are alike, others are apart; the shared noise cancels."""
    centres = [0.30, 0.10, 0.20, 0.90]
    assert rank_groups(centres, runs(centres, 0.04)) == ["b", "a", "ab", "c"]
    assert rank_groups(centres, runs(centres, 0.001)) == ["c", "a", "b", "d"]
    assert rank_groups(centres[:1], runs(centres[:1], 0.01)) == ["a"]
    assert rank_groups([0.2, 0.2], np.full((2, 9), 0.2)) == ["a", "a"]


def test_groups_of_runs_that_are_equal_part_in_one_table_of_twenty():
    """Ten equal runs, 45 pairs: without the correction for many comparisons most tables would name a difference."""
    rng = np.random.default_rng(2)
    wrong = 0
    for seed in range(200):
        estimates = rng.normal(0.5, 0.01, 10)
        wrong += len(set(rank_groups(estimates, runs(estimates, 0.01, seed)))) > 1
    assert wrong / 200 < 0.1


def test_quantiles_of_student_as_in_the_tables():
    """Abramowitz & Stegun 1964, table 26.10."""
    assert [student_quantile(0.975, f) for f in (1, 2, 4, 30)] == pytest.approx([12.706, 4.303, 2.776, 2.042], abs=6e-4)


def test_seeds_by_hand():
    """Means 0.4 and 0.6: s² / S = 0.01; images add 0.01 (replicates 0.4, 0.5, 0.6): 4 degrees of freedom, t = 2.776."""
    found = over_seeds([0.4, 0.6], [[0.3, 0.4, 0.5], [0.5, 0.6, 0.7]])
    assert (found.mean, found.deviation, found.seeds) == pytest.approx((0.5, 0.02**0.5, 2))
    assert (found.low, found.high) == pytest.approx((0.5 - 2.7764 * 0.02**0.5, 0.5 + 2.7764 * 0.02**0.5), abs=1e-4)
    with pytest.raises(UserError, match="two seeds"):
        over_seeds([0.4], [[0.3, 0.5]])


def test_seeds_and_images_together_cover_the_truth():
    """True mean 0.5; three seeds of sd 0.02, images of sd 0.01 common to them; binomial sd 0.7 points."""
    rng = np.random.default_rng(4)
    inside = 0
    for _ in range(1000):
        image_error = rng.normal(0, 0.01)
        estimates = 0.5 + rng.normal(0, 0.02, 3) + image_error
        found = over_seeds(estimates, estimates[:, None] + rng.normal(0, 0.01, 100))
        inside += found.low <= 0.5 <= found.high
    assert 0.92 <= inside / 1000 <= 0.98

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from stillrobust.analysis.intervals import (
    DROP_RANGE,
    RATIO_RANGE,
    SCORE_RANGE,
    UNBOUNDED,
    bootstrap_weights,
    interval,
    mean_over_seeds,
    paired_interval,
    rank_groups,
    robustness_replicates,
    simultaneous_intervals,
    student_quantile,
)
from stillrobust.errors import UserError


def simulations():
    """The worlds of benchmarks/interval_coverage.py."""
    path = Path(__file__).parents[2] / "benchmarks/interval_coverage.py"
    spec = importlib.util.spec_from_file_location("interval_coverage", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_interval_by_hand():
    """Replicates 1, 2, 3 of an estimate 1.5: their mean is 0.5 too high, so the centre is 1.0;
    2.042 (t of 30) deviations of 1.
    """
    assert interval(np.array([1.0, 2.0, 3.0, np.nan]), 1.5, UNBOUNDED) == pytest.approx(
        (1 - 2.0423, 1 + 2.0423), abs=1e-4
    )
    assert interval(np.array([1.0, 1.0]), 1.0, UNBOUNDED) == (1.0, 1.0)
    assert np.isnan(interval(np.array([np.nan, 1.0]), 1.0, UNBOUNDED)).all()


@pytest.mark.parametrize(
    ("within", "bounds"),
    [(SCORE_RANGE, (0, 1)), (RATIO_RANGE, (0, 2.8710)), (DROP_RANGE, (-1.2130, 1))],
)
def test_bounds_stay_within_the_possible_values(within, bounds):
    """Centre 0.829, reach 2.0423: a score ends at 0 and 1, rPC at 0, a drop at 1."""
    values = np.array([-1.0, 0.0, 1.0]) + 0.829
    assert interval(values, 0.829, within) == pytest.approx(bounds, abs=5e-4)


def test_interval_of_a_difference_by_hand():
    """Replicates 1, 2, 3 of an estimate 1.5: half of the bias of 0.5 is corrected, and the other
    half joins the deviation of 1. Without bias it is the interval of a score.
    """
    reach = 2.0423 * (1 + 0.25**2) ** 0.5
    replicates = np.array([1.0, 2.0, 3.0, np.nan])
    assert paired_interval(replicates, 1.5) == pytest.approx((1.25 - reach, 1.25 + reach), abs=2e-4)
    assert paired_interval(replicates, 2.0) == interval(replicates, 2.0, UNBOUNDED)
    assert np.isnan(paired_interval(np.array([np.nan, 1.0]), 1.0)).all()


def test_one_simultaneous_interval_has_the_centre_of_a_single_one():
    values = np.random.default_rng(0).normal(0.3, 0.1, (1, 400))
    together, single = simultaneous_intervals([0.2], values)[0], paired_interval(values[0], 0.2)
    assert together.mean() == pytest.approx(np.mean(single))
    assert np.ptp(together) == pytest.approx(np.ptp(single), rel=0.15)


def test_a_resample_is_half_of_the_images():
    weights = bootstrap_weights([f"{i}.png" for i in range(9)], 100)
    assert weights.sum(1).tolist() == [4, 5] * 50
    assert set(weights.ravel()) == {0, 1}
    assert len(np.unique(weights, axis=0)) > 50
    assert np.abs(weights.mean(0) - 0.5).max() < 0.2


def test_a_mean_varies_over_halves_as_over_sets():
    """Of a mean nothing else is known so well: its standard error is s / √N."""
    values = np.random.default_rng(0).random(101)
    weights = bootstrap_weights([str(i) for i in range(101)], 4000)
    means = weights @ values / weights.sum(1)
    assert means.std() == pytest.approx(values.std(ddof=1) / 101**0.5, rel=0.04)


def test_robustness_in_each_replicate_by_hand():
    found = robustness_replicates(
        np.array([0.5, 1.0, 0.0]), np.array([[0.2, 0.5, 0.0], [0.3, 0.7, 0.0]])
    )
    assert found["mPC"] == pytest.approx([0.25, 0.6, 0.0])
    assert found["drop"][:2] == pytest.approx([0.5, 0.4])
    assert np.isnan(found["drop"][2])


def test_nothing_to_resample():
    with pytest.raises(UserError, match="none"):
        bootstrap_weights([])


@pytest.mark.parametrize(("name", "images"), [("top1", 400), ("miou-20", 100), ("ap-5", 100)])
def test_coverage_with_known_truth(name, images):
    """120 trials: binomial sd 2 points, so that 89 to 99.5 is what 95 would give; bootstrap
    percentiles have 80 for miou.
    """
    found, _ = simulations().measure(
        name, trials=120, images=images, count=200, seed=1, pool=4000, methods=["ours"]
    )
    assert all(0.89 <= share <= 0.995 for share in found["ours"].values()), found["ours"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("top1", 100),
        ("top1", 500),
        ("miou-20", 100),
        ("miou", 500),
        ("ap-5", 100),
        ("ap", 200),
        ("ap", 500),
        ("miou-150", 2000),
    ],
)
def test_coverage_is_93_to_97(name, images):
    """600 trials, binomial sd 0.9 points: the bounds of the promise, widened by one of them."""
    found, _ = simulations().measure(
        name, trials=600, images=images, count=200, seed=3, methods=["ours"]
    )
    assert all(0.921 <= share <= 0.979 for share in found["ours"].values()), found["ours"]


@pytest.mark.slow
def test_differences_are_covered_where_classes_are_rare():
    """150 classes, the rarest in 5 of 2,000 images: with the correction of a single score, 91 to 93
    % of the intervals of differences covered the truth; binomial sd 0.9 points.
    """
    found, _ = simulations().measure(
        "miou-150-rare", trials=600, images=2000, count=200, seed=3, methods=["ours"]
    )
    assert all(found["ours"][name] >= 0.93 for name in ("b - a mPC", "b - a drop")), found


def test_pairing_halves_the_interval_of_runs_that_are_close():
    """Of mPC already where the runs disagree in a fifth of the images, of the drop where they do in
    a tenth; docs/explanation/statistics.md.
    """
    narrower = {
        name: simulations().measure(name, 5, 400, 200, 0, 4000, ["ours"])[1]
        for name in ("top1", "top1-close")
    }
    assert narrower["top1-close"]["b - a mPC"] > 2.4
    assert narrower["top1-close"]["b - a drop"] > 2
    assert narrower["top1"]["b - a mPC"] > 1.8
    assert 1.2 < narrower["top1"]["b - a drop"] < 2


def test_pairing_of_one_score_by_hand():
    """Right in 60 % each, one of them alone in 5 %: variances 0.24 + 0.24 apart and 0.05 paired,
    √(0.48 / 0.05) = 3.1.
    """
    first = np.repeat([1, 1, 0, 0], [230, 10, 10, 150])  # of 400: right 60 %, disagreeing in 20
    second = np.repeat([1, 0, 1, 0], [230, 10, 10, 150])
    ids = [str(i) for i in range(400)]
    weights, other = bootstrap_weights(ids, 2000), bootstrap_weights(ids, 2000, seed=9)
    together = weights @ (first - second) / weights.sum(1)
    apart = weights @ first / weights.sum(1) - other @ second / other.sum(1)
    assert apart.std() / together.std() == pytest.approx((0.48 / 0.05) ** 0.5, rel=0.05)


def runs(centres, noise, seed=0):
    """Replicates of runs whose sampling errors are mostly shared."""
    rng = np.random.default_rng(seed)
    return (
        np.asarray(centres)[:, None]
        + rng.normal(0, 0.05, 400)
        + rng.normal(0, noise, (len(centres), 400))
    )


def test_groups_by_hand():
    """Steps of two deviations of a run's own noise: neighbours are alike, others are apart; the
    shared noise cancels.
    """
    centres = [0.30, 0.10, 0.20, 0.90]
    assert rank_groups(centres, runs(centres, 0.04)) == ["b", "a", "ab", "c"]
    assert rank_groups(centres, runs(centres, 0.001)) == ["c", "a", "b", "d"]
    assert rank_groups(centres[:1], runs(centres[:1], 0.01)) == ["a"]
    assert rank_groups([0.2, 0.2], np.full((2, 9), 0.2)) == ["a", "a"]


def test_groups_of_runs_that_are_equal_part_in_one_table_of_twenty():
    """Ten equal runs, 45 pairs: without the correction for many comparisons most tables would name
    a difference.
    """
    rng = np.random.default_rng(2)
    wrong = 0
    for seed in range(200):
        estimates = rng.normal(0.5, 0.01, 10)
        wrong += len(set(rank_groups(estimates, runs(estimates, 0.01, seed)))) > 1
    assert wrong / 200 < 0.1


def test_quantiles_of_student_as_in_the_tables():
    """Abramowitz & Stegun 1964, table 26.10."""
    assert [student_quantile(0.975, f) for f in (1, 2, 4, 30)] == pytest.approx(
        [12.706, 4.303, 2.776, 2.042], abs=6e-4
    )


def test_seeds_by_hand():
    """Means 0.4 and 0.6: s² / S = 0.01; images add 0.01 (replicates 0.4, 0.5, 0.6): 1 * 0.02 / 0.01
    = 2 degrees, t = 4.303.
    """
    found = mean_over_seeds([0.4, 0.6], [[0.3, 0.4, 0.5], [0.5, 0.6, 0.7]])
    assert (found.mean, found.deviation, found.seeds) == pytest.approx((0.5, 0.02**0.5, 2))
    assert (found.low, found.high) == pytest.approx(
        (0.5 - 4.3027 * 0.02**0.5, 0.5 + 4.3027 * 0.02**0.5), abs=2e-4
    )
    with pytest.raises(UserError, match="two seeds"):
        mean_over_seeds([0.4], [[0.3, 0.5]])


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("of_images", [0.002, 0.01, 0.04])
def test_seeds_and_images_together_cover_the_truth(seeds, of_images):
    """True mean 0.5; seeds of sd 0.02, images of sd less, like and more common to them; binomial sd
    of 1000 trials 0.7 points.
    """
    rng = np.random.default_rng(4)
    inside = 0
    for _ in range(1000):
        estimates = 0.5 + rng.normal(0, 0.02, seeds) + rng.normal(0, of_images)
        found = mean_over_seeds(estimates, estimates[:, None] + rng.normal(0, of_images, 200))
        inside += found.low <= 0.5 <= found.high
    assert 0.93 <= inside / 1000 <= 0.975

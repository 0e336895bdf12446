"""Power: what a planned evaluation will show, by hand and in simulation."""

import math

import numpy as np
import pytest
from typer.testing import CliRunner

from stillrobust.analysis.intervals import bootstrap_weights, mean_over_seeds, paired_interval
from stillrobust.analysis.power import Pilot, images_needed, planned_pilot, smallest_difference
from stillrobust.cli import app
from stillrobust.errors import UserError
from tests.analysis.test_gate import planted_store
from tests.analysis.test_resampling import top1_store


def test_the_smallest_difference_by_hand():
    """Four times the images of the pilot halve its deviation of 1 point: (2.042 + 0.842) / 2."""
    pilot = Pilot(250, 0.01)
    assert smallest_difference(pilot, 1000) == pytest.approx(0.01442, abs=1e-5)
    assert smallest_difference(pilot, 1000, power=0.5) == pytest.approx(0.01021, abs=1e-5)
    # 5 groups become 20, with 19 degrees of freedom: t = 2.093
    assert smallest_difference(Pilot(250, 0.01, 5), 1000) == pytest.approx(0.01467, abs=1e-5)


def test_seeds_by_hand():
    """Without deviation over images, two seeds have one degree: (12.706 + 1.376) · 0.5 · sqrt(2/2)
    points; many seeds show any difference."""
    pilot = Pilot(250, 0.0, seed_deviation=0.005)
    assert smallest_difference(pilot, 100, 2) == pytest.approx(0.07041, abs=1e-4)
    assert smallest_difference(pilot, 100, 1000) < 0.001
    with_images = Pilot(250, 0.01, seed_deviation=0.005)
    assert images_needed(with_images, 0.001, seeds=3) is None, "seeds alone hide a tenth of a point"
    needed = [images_needed(with_images, 0.03, seeds=seeds) for seeds in (3, 5, 10)]
    assert needed == sorted(needed, reverse=True)


def test_the_number_of_images_is_the_smallest():
    pilot = planned_pilot(0.1)
    needed = images_needed(pilot, 0.02)
    assert smallest_difference(pilot, needed) <= 0.02 < smallest_difference(pilot, needed - 1)
    assert needed == pytest.approx((2.0423 + 0.8416) ** 2 * 0.1 / 0.02**2, abs=2)


def test_plans_that_mean_nothing():
    for wrong in (
        lambda: Pilot(1, 0.01),
        lambda: Pilot(100, 0.0),
        lambda: Pilot(100, math.nan),
        lambda: planned_pilot(0.0),
        lambda: planned_pilot(1.2),
        lambda: smallest_difference(Pilot(100, 0.01), 10),
        lambda: smallest_difference(Pilot(100, 0.01), 100, power=1.0),
        lambda: images_needed(Pilot(100, 0.01), 0.0),
    ):
        with pytest.raises(UserError, match="Expected"):
            wrong()


def test_a_difference_of_the_planned_size_is_shown_in_80_percent():
    """Binomial deviation of 400 trials: 2 points."""
    rng, images, discordant = np.random.default_rng(3), 400, 0.1
    true = smallest_difference(planned_pilot(discordant), images)
    weights = bootstrap_weights([str(i) for i in range(images)], 150)
    shown, better = 0, (discordant + true) / 2
    for _ in range(400):
        luck = rng.random(images)
        difference = (luck < better).astype(float) - (luck > 1 - discordant + better)
        low, _ = paired_interval(weights @ difference / weights.sum(1), difference.mean())
        shown += low > 0
    assert 0.74 <= shown / 400 <= 0.86


def test_a_difference_over_seeds_is_shown_in_80_percent():
    rng, shown = np.random.default_rng(4), 0
    pilot = Pilot(500, 0.006, seed_deviation=0.005)
    true = smallest_difference(pilot, 500, seeds=5)
    for _ in range(1000):
        common = rng.normal(0, 0.006)
        values = true + common + rng.normal(0, 0.005 * 2**0.5, 5)
        draws = values[:, None] + rng.normal(0, 0.006, 200)
        shown += mean_over_seeds(values, draws).low > 0
    assert 0.75 <= shown / 1000 <= 0.87


def test_the_command(tmp_path):
    top1_store(tmp_path, {"one": 0.0, "other": 0.1}, images=60)
    run = CliRunner().invoke
    place = ("--results", str(tmp_path))
    out = run(app, ["power", "one", "other", *place, "--images", "500", "--difference", "2"])
    assert out.exit_code == 0, out.exception
    assert "500 images show a difference of" in out.output
    assert "2 points need" in out.output
    alone = run(app, ["power", "one", *place, "--images", "500"])
    assert "One run" in alone.output
    paired, single = (float(one.output.split("of ")[1].split(" ")[0]) for one in (out, alone))
    assert paired < single, "two models err on the same images"
    grouped = run(app, ["power", "one", "other", *place, "--images", "500", "--group-by", "^.."])
    assert grouped.exit_code == 0
    planned = run(app, ["power", "--discordant", "10", "--difference", "1"])
    assert "1 points need 8,3" in planned.output
    for wrong in (
        [],
        ["one"],
        ["one", *place, "--discordant", "5"],
        ["one", *place, "--seeds", "3"],
        ["one", "--metric", "x"],
    ):
        assert isinstance(run(app, ["power", *wrong]).exception, UserError), wrong


def test_runs_that_do_not_fit_are_no_pilot(tmp_path):
    planted_store(tmp_path, {"a": 0, "b": 5}, images=60)
    top1_store(tmp_path, {"other": 0.0}, images=60)
    found = CliRunner().invoke(app, ["power", "a", "other", "--results", str(tmp_path)])
    assert "same images" in str(found.exception)

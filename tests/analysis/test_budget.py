import csv
import json
from pathlib import Path

import numpy as np
import pytest

from stillrobust.analysis.budget import BudgetEstimate, cell_order, estimate_mpc, image_order
from stillrobust.analysis.intervals import bootstrap_weights
from stillrobust.analysis.robustness import robustness
from stillrobust.errors import MissingCellsError, UserError
from stillrobust.grid import CLEAN, COMMON, SEVERITIES
from stillrobust.storage.store import Measurement

FIXTURES = Path(__file__).parents[1] / "fixtures"
# Ten of the 76 lines of SemSegBench's table (Agnihotri et al. 2025, arXiv 2505.18015), mIoU in
# percent at severity 3.
MODELS = list(csv.DictReader((FIXTURES / "semsegbench_rows.csv").open()))
DETECTOR = json.loads((FIXTURES / "mask_rcnn_r50_fpn_1x_coco_c.json").read_text())["AP"]


def of(model, count):
    places = cell_order("miou", [3])[1 : count + 1]
    return {(name, level): float(model[f"mIoU_2d_{name}"]) / 100 for name, level in places}


@pytest.mark.parametrize("metric", ["miou", "top1"])
@pytest.mark.parametrize("severities", [(3,), (1, 5), SEVERITIES])
def test_order_holds_every_cell_once_and_severities_evenly(metric, severities):
    order = cell_order(metric, severities)
    assert order[0] == CLEAN
    assert sorted(order[1:]) == sorted((name, level) for name in COMMON for level in severities)
    for count in range(1, len(order), len(severities)):
        levels = [level for _, level in order[1 : count + len(severities)]]
        assert len({levels.count(level) for level in severities}) == 1
    assert cell_order(metric, severities[::-1]) == order


def test_the_published_order():
    """It must never change: what was measured under a budget would not begin the new order."""
    assert [name for name, _ in cell_order("miou", [3])[1:5]] == [
        "frost",
        "shot_noise",
        "motion_blur",
        "elastic_transform",
    ]
    first = cell_order("box_ap")[1:16]
    assert first[:5] == (
        ("snow", 1),
        ("pixelate", 2),
        ("frost", 3),
        ("defocus_blur", 4),
        ("impulse_noise", 5),
    )
    assert {name for name, _ in first} == set(COMMON)


@pytest.mark.parametrize("total", [1, 2, 3, 10, 1000, 1001])
def test_order_of_images_holds_every_image_once_and_is_spread_over_the_set(total):
    order = image_order(total)
    assert sorted(order) == list(range(total))
    for count in range(1, total, 7):
        quarters = np.bincount(4 * np.array(order[:count]) // total, minlength=4)
        assert quarters.max() - quarters.min() <= 2  # 1, but for the set's odd length


@pytest.mark.parametrize("period", [2, 8, 10])
def test_order_of_images_meets_no_period_of_the_set(period):
    """Classes in turn, as generated sets have them: a random sample of 100 has each 100 / period
    times, sd below sqrt of that.
    """
    classes = np.bincount(np.array(image_order(1000)[:100]) % period, minlength=period)
    assert abs(classes - 100 / period).max() < 3 * (100 / period) ** 0.5


def test_the_published_order_of_images():
    """As that of the cells, it must never change."""
    assert image_order(10) == [9, 3, 6, 0, 7, 2, 5, 1, 8, 4]
    assert image_order(5000)[:6] == [603, 4998, 2474, 3124, 1229, 4369]
    assert image_order(50_000)[:6] == [21335, 46431, 5760, 28074, 18697, 43211]


def test_published_models_with_four_cells_of_sixteen():
    off = []
    for model in MODELS:
        truth = np.mean([float(model[f"mIoU_2d_{name}"]) for name in COMMON]) / 100
        found = estimate_mpc(float(model["mIoU_clean"]) / 100, of(model, 3), "miou", [3])
        assert (found.cells, found.total_cells) == (4, 16)
        off.append(abs(found.value - truth))
        assert found.low <= truth <= found.high
    assert np.mean(off) < 0.01


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_a_published_detector_with_21_cells_of_76(kind):
    scores = DETECTOR[kind]
    measured = {(name, level): scores[name][level] for name, level in cell_order("box_ap")[1:21]}
    truth = np.mean([scores[name][level] for name in COMMON for level in SEVERITIES])
    found = estimate_mpc(scores["fog"][0], measured, "box_ap")
    assert abs(found.value - truth) < 0.01
    assert found.low <= truth <= found.high
    assert found.high - found.low < 0.07


def test_sampled_cells_by_hand():
    """Two of the 15 cells at severity 1, scores 0.48 and 0.52: variance 0.0008 / 2 * 13 / 15, one
    degree of freedom, t = 12.706. With ten times the distance, the interval is every score.
    """
    places = cell_order("top1", [1])[1:3]
    found = estimate_mpc(0.8, dict(zip(places, (0.48, 0.52), strict=True)), "top1", [1])
    reach = 12.7062 * (0.0008 / 2 * 13 / 15) ** 0.5
    assert (found.value, found.low, found.high) == pytest.approx(
        (0.5, 0.5 - reach, 0.5 + reach), abs=1e-4
    )
    found = estimate_mpc(0.8, dict(zip(places, (0.3, 0.7), strict=True)), "top1", [1])
    assert (found.low, found.high) == (0, 1)


def test_part_of_the_cells_on_part_of_the_images_holds_the_number_of_all():
    """200 generated runs on 1,000 images whose classes come in folders of unequal difficulty: 21 of
    76 cells on 100 images.

    The truth is mPC of all cells on all images; binomial sd 1.5 points. Without what the images
    leave open too few hold it.
    """
    rng = np.random.default_rng(0)
    order, taken = cell_order("top1")[1:], np.sort(image_order(1000)[:100])
    weights = bootstrap_weights([str(index) for index in taken], 200)
    inside, cells_alone = 0, 0
    for _ in range(200):
        hardness = dict(zip(COMMON, rng.normal(0, 0.4, 15), strict=True))
        folders = np.repeat(rng.normal(0, 1, 10), 100) + rng.normal(0, 1.5, 1000)
        chance = {
            place: 1 / (1 + np.exp(folders - 1 + hardness[place[0]] + 0.3 * place[1]))
            for place in order
        }
        right = {place: rng.random(1000) < chance[place] for place in order}
        part = {place: right[place][taken] for place in order[:20]}
        clean = (rng.random(1000) < 1 / (1 + np.exp(folders - 1.5)))[taken]
        replicates = {
            place: weights @ one / weights.sum(1) for place, one in {CLEAN: clean, **part}.items()
        }
        measured = {place: one.mean() for place, one in part.items()}
        truth = np.mean([one.mean() for one in right.values()])
        found = estimate_mpc(clean.mean(), measured, "top1", replicates=replicates)
        bare = estimate_mpc(clean.mean(), measured, "top1")
        inside += found.low <= truth <= found.high
        cells_alone += bare.low <= truth <= bare.high
    assert inside / 200 >= 0.93
    assert cells_alone < inside


def test_images_add_their_part():
    """Cells that all score alike leave nothing open but the images: replicates of deviation 0.01
    move all cells together.
    """
    places = cell_order("top1")[:21]
    shift = np.random.default_rng(0).normal(0, 0.01, 500)
    replicates = {place: 0.5 + shift - shift.mean() for place in places}
    found = estimate_mpc(0.5, dict.fromkeys(places[1:], 0.5), "top1", replicates=replicates)
    reach = 2.042273 * shift.std(ddof=1)
    assert (found.low, found.high) == pytest.approx((0.5 - reach, 0.5 + reach))


def test_only_what_begins_the_order_is_used():
    places = cell_order("top1")
    measured = dict.fromkeys(places[1:13], 0.5) | {places[20]: 0.0}
    assert estimate_mpc(0.5, measured, "top1").cells == 13
    assert estimate_mpc(0.5, measured, "top1").value == pytest.approx(0.5)


def test_estimates_are_refused_where_full_numbers_are_asked_for():
    places = cell_order("top1")
    cells = [
        Measurement("run", "top1", name, level, 0.5, {}, 9, 1.0) for name, level in places[:21]
    ]
    with pytest.raises(MissingCellsError, match="no measurement for"):
        robustness(cells)
    found = estimate_mpc(0.5, dict.fromkeys(places[1:21], 0.5), "top1")
    assert isinstance(found, BudgetEstimate)
    with pytest.raises(UserError, match="measurements"):
        robustness([found])


def test_bad_budgets():
    places = cell_order("top1")
    for metric, severities, count, words in (
        ("top1", SEVERITIES, 9, "10 and the clean one, but got 9"),
        ("miou", (3,), 0, "at least the cell frost 3"),
        ("top1", SEVERITIES, 75, "compute the robustness itself"),
        ("top1", (0, 6), 9, "from 1 to 5"),
        ("top1", (), 9, "from 1 to 5"),
    ):
        with pytest.raises(UserError, match=words):
            estimate_mpc(0.5, dict.fromkeys(places[1 : count + 1], 0.5), metric, severities)

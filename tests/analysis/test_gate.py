"""Gates on planted cases: what is equal or better passes, and nothing else ever does."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

from stillrobust.analysis.gate import GateRule, decide, gain_interval, judge_gate
from stillrobust.analysis.groups import group_images
from stillrobust.cli import app
from stillrobust.errors import UserError
from stillrobust.grid import CLEAN, COMMON, Cell
from stillrobust.storage.store import Run, Store

PLACES = [CLEAN, *((name, 3) for name in COMMON)]
IMAGES = 1000
ONE = GateRule("mpc", 0.01)


def planted_store(root, harmed, images=IMAGES, protocol=None, places=PLACES):
    """Runs that are right on the same images, but for ``harmed`` (negative: more are right)."""
    store = Store(root)
    for run, count in harmed.items():
        store.write_run(Run(run, "classification", run, None, "planted", {}, (), "external"))
        for index, place in enumerate(places):
            rng = np.random.default_rng(index)
            correct = rng.permutation(images) < (0.9 if place == CLEAN else 0.6) * images
            order = np.random.default_rng([9, index]).permutation(images)
            chosen = order[correct[order]][:count] if count > 0 else order[~correct[order]][:-count]
            correct[chosen] = count < 0
            statistics = {
                "image_ids": np.array([f"v{i // 20:02}/{i:04}" for i in range(images)]),
                "correct": correct.astype(np.uint8),
            }
            store.write_cell(
                Cell(run, *place),
                "key",
                {"top1": correct.mean()},
                {"seed": 0, "weights": run, **(protocol or {}).get(run, {})},
                images,
                1.0,
                statistics,
            )
    return store


def state(store, rule=ONE, candidate="new", **options):
    return judge_gate(store, candidate, "base", rule, replicates=100, **options).state


def test_planted_cases(tmp_path):
    """Of 1,000 images: the same, 30 more right, 3 fewer and 30 fewer. Three hidden points of the
    margin of one leave 0.3 + 0.4 points; thirty are worse."""
    store = planted_store(tmp_path, {"base": 0, "equal": 0, "better": -30, "close": 3, "worse": 30})
    found = {run: state(store, candidate=run) for run in ("equal", "better", "close", "worse")}
    assert found == {"equal": "pass", "better": "pass", "close": "pass", "worse": "fail"}
    verdict = judge_gate(store, "worse", "base", ONE)
    assert "worse by more than 1 points" in verdict.reason
    assert verdict.gain == pytest.approx(-0.03)
    for metric in ("drop", "clean", "corruption:fog"):
        rule = GateRule(metric, 0.01)
        assert [state(store, rule, run) for run in ("equal", "worse")] == ["pass", "fail"]
    better = GateRule("mpc", 0.0, "superiority")
    assert [state(store, better, run) for run in ("better", "equal", "worse")] == [
        "pass", "fail", "fail",
    ]  # fmt: skip
    assert state(store, GateRule("mpc", 0.05, "superiority"), "better") == "fail"


def test_too_few_images_never_pass(tmp_path):
    """29 images are too few to judge. 100 equal ones could hide a harm of 3.7 points."""
    tiny = planted_store(tmp_path / "tiny", {"base": 0, "new": 0}, images=29)
    assert state(tiny, GateRule("mpc", 0.9)) == "cannot judge"
    few = planted_store(tmp_path / "few", {"base": 0, "new": 0}, images=100)
    verdict = judge_gate(few, "new", "base", ONE)
    assert verdict.state == "fail"
    assert "not shown" in verdict.reason
    assert state(few, GateRule("mpc", 0.05)) == "pass"
    for run in ("base", "new"):
        few.write_groups(run, group_images([f"v{i // 20:02}/{i:04}" for i in range(100)], "folder"))
    verdict = judge_gate(few, "new", "base", GateRule("mpc", 0.05))
    assert (verdict.state, "10 effective groups" in verdict.reason) == ("cannot judge", True)


def without(place):
    return [one for one in PLACES if one != place]


def break_scores(store):
    """The stored score of a cell no longer is that of its statistics."""
    cell = Cell("new", "fog", 3)
    statistics = store.statistics(cell)
    store.write_cell(
        cell, "key", {"top1": 0.99}, {"seed": 0, "weights": "new"}, IMAGES, 1, statistics
    )


def drop_statistics(store):
    store.write_cell(
        Cell("new", "fog", 3), "key", {"top1": 0.6}, {"seed": 0, "weights": "new"}, IMAGES, 1, {}
    )


def other_images(store):
    cell = Cell("new", "fog", 3)
    statistics = store.statistics(cell)
    statistics["image_ids"] = np.array([f"x{one}" for one in statistics["image_ids"]])
    value = float(statistics["correct"].mean())
    store.write_cell(
        cell, "key", {"top1": value}, {"seed": 0, "weights": "new"}, IMAGES, 1, statistics
    )


@pytest.mark.parametrize("place", [("fog", 3), CLEAN])
@pytest.mark.parametrize("run", ["new", "base"])
def test_a_hole_is_never_a_pass(tmp_path, run, place):
    store = planted_store(tmp_path, {"base": 0, "new": -30})
    store.remove_cells([Cell(run, *place)])
    verdict = judge_gate(store, "new", "base", ONE)
    assert verdict.state == "cannot judge"
    assert f"{run} (top1) has no measurement for {place[0]} {place[1]}" in verdict.reason


@pytest.mark.parametrize("fault", [break_scores, drop_statistics, other_images])
def test_damage_is_never_a_pass(tmp_path, fault):
    store = planted_store(tmp_path, {"base": 0, "new": -30})
    assert state(store) == "pass"
    fault(store)
    assert state(store) == "cannot judge"


def test_another_protocol_is_never_a_pass(tmp_path):
    store = planted_store(tmp_path, {"base": 0, "new": -30}, protocol={"new": {"seed": 1}})
    verdict = judge_gate(store, "new", "base", ONE)
    assert verdict.state == "cannot judge"
    assert "differ in seed (1 and 0)" in verdict.reason
    store = planted_store(tmp_path / "groups", {"base": 0, "new": -30})
    store.write_groups("new", group_images([f"v{i // 20:02}/{i:04}" for i in range(1000)], "^.."))
    assert "same groups" in judge_gate(store, "new", "base", ONE).reason
    for candidate, fault in (("base", "with itself"), ("nwe", "Unknown run 'nwe'")):
        verdict = judge_gate(store, candidate, "base", ONE)
        assert (verdict.state, fault in verdict.reason) == ("cannot judge", True)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_never_a_pass(wrong):
    for values in ((wrong, 0.1, 0.2), (0.1, wrong, 0.2), (0.1, 0.1, wrong)):
        for test in ("non-inferiority", "superiority"):
            assert decide(*values, GateRule("mpc", 0.01, test))[0] == "cannot judge"
    assert np.isnan(gain_interval(np.array([0.1, 0.2, wrong]), 0.1, 0.01)).all()


def test_the_interval_of_equal_runs_by_hand():
    """No harm in n images: 2.042 + 2.042² / 2 = 4.13 images, where the exact limit is 3.69."""
    low, high = gain_interval(np.zeros(50), 0.0, 1 / 100)
    assert (low, high) == pytest.approx((-0.0413, 0.0413), abs=1e-4)
    values = np.random.default_rng(0).normal(0, 0.01, 500)
    wide = gain_interval(values, float(values.mean()), 1e-9)
    assert wide[1] - wide[0] == pytest.approx(2 * 2.0423 * values.std(ddof=1), rel=1e-3)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.009, 0.02, "pass"), (-0.011, 0.02, "fail"), (-0.01, 0.02, "fail"), (-0.3, -0.1, "fail")],
)
def test_the_margin_is_not_inside(low, high, expected):
    assert decide((low + high) / 2, low, high, ONE)[0] == expected


@pytest.mark.parametrize("margin", [-0.01, 0.0, 1.0, float("nan")])
def test_margins_that_mean_nothing(margin):
    with pytest.raises(UserError, match="margin"):
        GateRule("mpc", margin)


def test_metrics_that_do_not_exist():
    for name in ("mcp", "corruption:", "corruption"):
        with pytest.raises(UserError, match="metric of a gate"):
            GateRule(name, 0.01)


def run_gate(folder, *words):
    files = ["--json", str(folder / "gate.json"), "--junit", str(folder / "gate.xml")]
    return CliRunner().invoke(app, ["gate", *words, "--results", str(folder), *files])


def test_the_command_and_its_files(tmp_path):
    store = planted_store(tmp_path / "results", {"base": 0, "new": 0, "bad": 40})
    store.rename_run("bad", "worse")
    words = ("--metric", "mpc", "--metric", "corruption:snow")
    out = run_gate(tmp_path, "new", "--baseline", "base", *words)
    assert out.exit_code == 0
    assert out.output.startswith("pass: new is not worse by 1 points (mPC of top-1")
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == ["2", "0", "0"]
    assert [case.get("classname") for case in suite.iter("testcase")] == ["new against base"] * 2
    found = json.loads((tmp_path / "gate.json").read_text())
    assert (found["exit_status"], found["gates"][0]["verdict"]) == (0, "pass")

    out = run_gate(tmp_path, "worse", "--baseline", "base")
    assert out.exit_code == 1
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert suite.get("failures") == "1"
    assert "worse by more than 1 points" in suite.find(".//failure").get("message")

    store.remove_cells([Cell("new", "fog", 3)])
    out = run_gate(tmp_path, "new", "--baseline", "base", *words)
    assert out.exit_code == 2
    assert "cannot judge mpc: new (top1) has no measurement for fog 3" in out.output
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == ["2", "0", "1"]
    found = json.loads((tmp_path / "gate.json").read_text())
    assert [one["verdict"] for one in found["gates"]] == ["cannot judge", "pass"]

    out = run_gate(tmp_path, "new", "--baseline", "base", "--margin", "-1")
    assert isinstance(out.exception, UserError)
    assert not (tmp_path / "gate.xml").exists(), "the last verdict does not stand for this one"
    out = run_gate(tmp_path / "nowhere", "new", "--baseline", "base")
    assert (out.exit_code, (tmp_path / "nowhere" / "gate.xml").exists()) == (2, True)


def test_the_baseline_may_be_in_another_folder(tmp_path):
    store = planted_store(tmp_path / "a", {"base": 0})
    other = planted_store(tmp_path / "b", {"base": 0})
    assert state(other, candidate="base", baseline_store=store) == "pass"


def false_passes(harm_share, images, trials=300):
    """How often a gate with the margin of the true harm passes, if ``harm_share`` of the images
    lose it: all of the harm in as many images."""
    rng = np.random.default_rng(images)
    rule, passed = GateRule("clean", harm_share), 0
    for _ in range(trials):
        gains = -(rng.random(images) < harm_share).astype(float)
        deviation = gains.std(ddof=1) / images**0.5
        values = gains.mean() + deviation * rng.standard_normal(200)
        low, high = gain_interval(values, float(gains.mean()), 1 / images)
        passed += decide(float(gains.mean()), low, high, rule)[0] == "pass"
    return passed / trials


@pytest.mark.parametrize("images", [100, 500])
def test_rare_harm_does_not_slip_through(images):
    """One image in a hundred is harmed: without room for what no image showed, 13 to 37 % pass."""
    assert false_passes(0.01, images) <= 0.05

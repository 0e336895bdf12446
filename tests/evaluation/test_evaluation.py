import dataclasses
import json

import numpy as np
import pytest

from stillrobust.analysis.estimates import estimate_run
from stillrobust.data import views
from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.evaluation.keys import cell_views
from stillrobust.grid import C_BAR, COMMON, Cell
from stillrobust.predictors import Predictor
from stillrobust.report.extra_corruptions import CorruptionScores, extra_corruptions, set_means
from stillrobust.samples import Prediction
from stillrobust.storage.store import Store
from stillrobust.training import Plan, Recipe, train
from tests.toys import SETTINGS, Toys

FEW = Protocol(corruptions=("fog", "gaussian_noise"), severities=(1, 3), batch_size=4)


@pytest.fixture(scope="module", params=sorted(SETTINGS))
def run(request, tmp_path_factory):
    task = request.param
    plan = Plan(
        task,
        "resnet18(weights='random')",
        "fixed_feature",
        Recipe(steps=2, batch_size=4),
        SETTINGS[task],
    )
    return train(plan, Toys(task), str(tmp_path_factory.mktemp(task) / "mine")), task


def test_cells_are_measured_once_with_their_circumstances(run, tmp_path, monkeypatch):
    folder, task = run
    data = Toys(task, 6, seed=5)
    assert evaluate(str(folder), data, str(tmp_path), FEW) == "mine"
    store = Store(tmp_path)
    found = store.measurements("mine")
    metrics = {m.metric for m in found}
    assert {(m.corruption, m.severity) for m in found} == set(FEW.cells())
    assert len(found) == len(FEW.cells()) * len(metrics)
    assert all(0 <= m.value <= 1 and m.images == 6 for m in found)
    assert {"seed", "stage", "channel_order", "ground_truth", "weights", "data"} <= found[
        0
    ].protocol.keys()
    assert len(store.statistics(Cell("mine", "fog", 3))["image_ids"]) == 6
    assert store.examples(Cell("mine", "fog", 3))["images"].shape == (3, 64, 64, 3)
    monkeypatch.setattr(
        views.CorruptedView, "__getitem__", lambda *_: pytest.fail("measured again")
    )
    evaluate(folder, data, tmp_path, FEW)


def test_a_second_call_does_what_is_missing(run, tmp_path):
    folder, task = run
    data = Toys(task, 4, seed=5)
    evaluate(folder, data, tmp_path, Protocol(("fog",), (1,)))
    before = {(m.corruption, m.metric): m for m in Store(tmp_path).measurements()}
    evaluate(folder, data, tmp_path, Protocol(("fog", "snow"), (1,)))
    after = {(m.corruption, m.metric): m for m in Store(tmp_path).measurements()}
    assert {corruption for corruption, _ in after} == {"clean", "fog", "snow"}
    assert all(after[key] == before[key] for key in before)


def test_batches_and_order_do_not_change_numbers(run, tmp_path):
    folder, task = run
    data = Toys(task, 6, seed=5)
    for name, batch_size in (("a", 1), ("b", 4)):
        evaluate(
            folder,
            data,
            tmp_path / name,
            Protocol(("gaussian_noise",), (2,), batch_size=batch_size),
        )
    values = [
        {(m.corruption, m.metric): m.value for m in Store(tmp_path / name).measurements()}
        for name in "ab"
    ]
    for key, value in values[0].items():
        # float sums differ in the last bits by batch
        assert value == pytest.approx(values[1][key], abs=0.02), key


def test_every_model_sees_the_same_pixels():
    data = Toys("classification", 4)
    first = [views.CorruptedView(data, "snow", 4, 7)[i].image for i in range(4)]
    again = [views.CorruptedView(data, "snow", 4, 7)[i].image for i in (3, 2, 1, 0)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], views.CorruptedView(data, "snow", 4, 8)[0].image)


def test_a_part_of_the_images_is_spread_over_the_set(run, tmp_path):
    """Of nine images, three: 0, 3 and 6. The first three of a sorted set would be one class."""
    folder, task = run
    evaluate(folder, Toys(task, 9, seed=5), tmp_path, Protocol((), images=3))
    ids = Store(tmp_path).statistics(Cell("mine", "clean", 0))["image_ids"]
    assert sorted(ids) == ["0.png", "3.png", "6.png"]


def wide(weights, name="x"):
    return Predictor(
        "classification",
        name,
        lambda images: [Prediction(probabilities=np.array([1.0, 0]))] * len(images),
        weights,
    )


def test_a_name_stands_for_one_model_on_one_set(tmp_path):
    """What is finished under a name is never mixed with another model's, other data's or another
    seed's.
    """
    data, first = Toys("classification", 4), Protocol(("fog",), (1,))
    run = evaluate(wide("one"), data, tmp_path, first)
    before = Store(tmp_path).measurements()
    for model, other, protocol, said in (
        (wide("two"), data, Protocol(("snow",), (1,)), "weights or options of the model differ"),
        (wide("one"), Toys("classification", 4, seed=1), first, "data differ"),
        (wide("one"), data, dataclasses.replace(first, seed=1), "seed differ"),
        (wide("one"), data, dataclasses.replace(first, images=2), "images differ"),
    ):
        with pytest.raises(UserError, match=f"stored cells of x .*{said}; .*--name, .*--replace"):
            evaluate(model, other, tmp_path, protocol)
        assert Store(tmp_path).measurements() == before
        with pytest.raises(UserError, match=said):
            evaluate(model, other, tmp_path, protocol, run)
    assert evaluate(wide("one"), data, tmp_path, first, "other") == "other"
    snow = Protocol(("snow",), (1,))
    assert evaluate(wide("two"), data, tmp_path, snow, run, replace_stale=True) == run
    assert {(one.corruption, one.severity) for one in Store(tmp_path).measurements(run)} == {
        ("clean", 0),
        ("snow", 1),
    }
    assert {one.protocol["weights"] for one in Store(tmp_path).measurements(run)} == {"two"}


def test_more_images_take_the_place_of_fewer_and_no_drop_mixes_them(tmp_path):
    data = Toys("classification", 8)
    evaluate(wide("one"), data, tmp_path, Protocol(("fog", "snow"), (3,), images=4))
    run = evaluate(wide("one"), data, tmp_path, Protocol(("fog",), (1,)))
    found = extra_corruptions(Store(tmp_path).measurements(), ())
    assert [
        (one.corruption, sorted(one.scores), one.clean) for one in found if one.corruption == "snow"
    ] == [("snow", [3], None)]
    assert sorted(
        (sorted(one.scores), one.clean) for one in found if one.corruption == "fog" and one.clean
    ) == [([1], 0.5)]
    assert {one.images for one in Store(tmp_path).measurements(run)} == {4, 8}


def test_an_estimate_is_of_one_protocol(tmp_path):
    data = Toys("classification", 8)
    evaluate(wide("one"), data, tmp_path, Protocol(severities=(3,), budget=6, images=4))
    run = evaluate(wide("one"), data, tmp_path, Protocol(severities=(3,), budget=5, images=8))
    assert [one.cells for one in estimate_run(Store(tmp_path), run, [3])] == [5]


def test_any_folder_gives_a_name(tmp_path):
    """A folder that a training took is not refused for its name once it is evaluated."""
    for name in ("my run", "_x"):
        run = evaluate(wide("one", name), Toys("classification", 2), tmp_path, Protocol(()))
        assert Store(tmp_path).measurements(run)


def test_bad_protocols():
    with pytest.raises(UserError, match="Did you mean: fog"):
        Protocol(("fogg",))
    with pytest.raises(UserError, match="1, 2, 3, 4, 5"):
        Protocol(severities=(6,))
    with pytest.raises(UserError, match="at least one image"):
        Protocol(images=0)
    assert len(Protocol().cells()) == 1 + 15 * 5
    assert Protocol().corruptions == tuple(COMMON)


class Stored(Toys):
    """Toys are stored, so draws: each image dimmed by 20 a severity; ``missing`` cells are
    not there.
    """

    def __init__(self, task, made="one", missing=()):
        super().__init__(task, 4, seed=5)
        self.info = dataclasses.replace(self.info, stage="stored")
        self.made, self.missing = made, missing

    def corrupted(self, corruption, severity):
        if (corruption, severity) in self.missing:
            raise UserError(f"{corruption} {severity} is missing")
        view = Toys("classification", 4, seed=5)
        view.info = dataclasses.replace(
            self.info, fingerprint=f"{self.made} {corruption} {severity}"
        )
        return view


def test_stored_corruptions_are_used_and_said(run, tmp_path, monkeypatch):
    folder, task = run
    if task != "classification":
        pytest.skip("sets with stored corruptions are for classification")
    monkeypatch.setattr(
        views.CorruptedView, "__getitem__", lambda *_: pytest.fail("corrupted anew")
    )
    evaluate(folder, Stored(task), tmp_path, FEW)
    found = Store(tmp_path).measurements("mine")
    assert {(m.corruption, m.severity) for m in found} == set(FEW.cells())
    assert {m.protocol["stage"] for m in found} == {"stored"}
    assert (
        not {"seed", "regime", "channel_order", "draws", "frost_textures"}
        & found[0].protocol.keys()
    )
    before = {m.corruption: m.seconds for m in found}
    evaluate(folder, Stored(task), tmp_path, FEW)
    assert {m.corruption: m.seconds for m in Store(tmp_path).measurements("mine")} == before
    keys = {
        path: json.loads(path.read_text())["body"]["key"]
        for path in (tmp_path / "cells").rglob("*.json")
    }
    # other files: measured anew, but for the clean cell
    evaluate(folder, Stored(task, "other"), tmp_path, FEW)
    changed = [
        path for path, key in keys.items() if json.loads(path.read_text())["body"]["key"] != key
    ]
    assert len(changed) == len(keys) - 1


def test_a_missing_stored_cell_stops_before_the_first_is_measured(run, tmp_path):
    folder, task = run
    with pytest.raises(UserError, match="fog 3 is missing"):
        evaluate(folder, Stored(task, missing=[("fog", 3)]), tmp_path, FEW)
    assert not list(tmp_path.iterdir())
    for choice in (
        {"channel_order": "bgr"},
        {"regime": "cifar"},
        {"draws": "exact"},
        {"warp_truth": True},
    ):
        with pytest.raises(UserError, match="are stored, so draws"):
            evaluate(folder, Stored(task), tmp_path, Protocol(("fog",), (1,), **choice))


def test_the_severity_table_is_the_datas_own(run, tmp_path):
    folder, task = run
    data = Toys(task, 2, seed=5)
    data.info = dataclasses.replace(data.info, regime="cifar")
    for name, regime, expected in (("own", None, "cifar"), ("named", "imagenet", "imagenet")):
        evaluate(folder, data, tmp_path / name, Protocol(("fog",), (1,), regime=regime))
        assert {m.protocol["regime"] for m in Store(tmp_path / name).measurements()} == {expected}
        assert (
            cell_views(data, Protocol(("fog",), (1,), regime=regime))["fog", 1].regime == expected
        )


def test_a_further_set_has_a_mean_of_its_own_only_if_it_is_whole():
    entries = [
        CorruptionScores("a", "top1", name, 0.8, {3: 0.1 * index})
        for index, name in enumerate(C_BAR)
    ]
    (mean,) = set_means(entries)
    assert mean.corruption == "mean of c-bar (10)"
    assert mean.scores == {3: pytest.approx(0.45)}  # the mean of 0, 0.1, ..., 0.9
    assert set_means(entries[1:]) == []
    assert set_means([*entries[1:], CorruptionScores("a", "top1", C_BAR[0], 0.8, {1: 0.5})]) == []
    assert set_means([*entries, entries[0]]) == []  # two protocols
    assert set_means([CorruptionScores("a", "top1", name, 0.8, {3: 0.5}) for name in COMMON]) == []

import numpy as np
import pytest

from stillrobust.data import views
from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.robustness import COMMON
from stillrobust.store import Cell, Store
from stillrobust.training import Plan, Recipe, train
from tests.toys import SETTINGS, Toys

FEW = Protocol(corruptions=("fog", "gaussian_noise"), severities=(1, 3), batch_size=4)


@pytest.fixture(scope="module", params=sorted(SETTINGS))
def run(request, tmp_path_factory):
    task = request.param
    plan = Plan(task, "resnet18(weights='random')", "fixed_feature", Recipe(steps=2, batch_size=4), SETTINGS[task])
    return train(plan, Toys(task), tmp_path_factory.mktemp(task) / "mine"), task


def test_cells_are_measured_once_with_their_circumstances(run, tmp_path, monkeypatch):
    folder, task = run
    data = Toys(task, 6, seed=5)
    assert evaluate(folder, data, tmp_path, FEW) == "mine"
    store = Store(tmp_path)
    found = store.measurements("mine")
    metrics = {m.metric for m in found}
    assert {(m.corruption, m.severity) for m in found} == set(FEW.cells())
    assert len(found) == len(FEW.cells()) * len(metrics)
    assert all(0 <= m.value <= 1 and m.images == 6 for m in found)
    assert {"seed", "stage", "channel_order", "ground_truth", "weights", "data"} <= found[0].protocol.keys()
    assert len(store.statistics(Cell("mine", "fog", 3))["image_ids"]) == 6
    assert store.examples(Cell("mine", "fog", 3))["images"].shape == (3, 64, 64, 3)
    monkeypatch.setattr(views.CorruptedView, "__getitem__", lambda *_: pytest.fail("measured again"))
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
        evaluate(folder, data, tmp_path / name, Protocol(("gaussian_noise",), (2,), batch_size=batch_size))
    values = [{(m.corruption, m.metric): m.value for m in Store(tmp_path / name).measurements()} for name in "ab"]
    for key, value in values[0].items():
        assert value == pytest.approx(values[1][key], abs=0.02), key  # float sums differ in the last bits by batch


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


def test_bad_protocols():
    with pytest.raises(UserError, match="Did you mean: fog"):
        Protocol(("fogg",))
    with pytest.raises(UserError, match="1, 2, 3, 4, 5"):
        Protocol(severities=(6,))
    with pytest.raises(UserError, match="at least one image"):
        Protocol(images=0)
    assert len(Protocol().cells()) == 1 + 15 * 5
    assert Protocol().corruptions == tuple(COMMON)

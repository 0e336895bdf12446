"""Runs are removed and renamed whole."""

import pytest

from stillrobust.errors import UserError
from stillrobust.grid import Cell
from stillrobust.storage.leases import LeaseHeldError
from stillrobust.storage.store import Store
from tests.paper_store import fill


@pytest.fixture
def store(tmp_path):
    fill(tmp_path, "one", 0.9, 0.5, images=20)
    fill(tmp_path, "two", 0.9, 0.7, images=20)
    return Store(tmp_path)


def without_name(measurements):
    return [{**vars(one), "run": ""} for one in measurements]


def test_a_renamed_run_keeps_its_cells(store):
    before, cell = store.measurements("one"), Cell("new", "fog", 1)
    statistics = store.statistics(Cell("one", "fog", 1))
    store.rename_run("one", "new")
    assert [run.name for run in store.runs()] == ["new", "two"]
    assert without_name(store.measurements("new")) == without_name(before)
    assert store.measurements("one") == []
    assert (store.statistics(cell)["correct"] == statistics["correct"]).all()
    assert store.has(cell, next(one.key for one in before if one.corruption == "fog"))
    assert not (store.root / "cells" / "one").exists()


def test_an_existing_or_wrong_name_changes_nothing(store):
    before = store.measurements()
    for old, new, said in (
        ("one", "two", "two exists"),
        ("one", "../x", "letters"),
        ("three", "x", "Unknown run"),
    ):
        with pytest.raises(UserError, match=said):
            store.rename_run(old, new)
    with pytest.raises(UserError, match="Unknown run"):
        store.remove_run("three")
    assert store.measurements() == before
    assert len(store.runs()) == 2


def test_a_removed_run_leaves_the_others(store):
    other = store.measurements("two")
    store.remove_run("one")
    assert [run.name for run in store.runs()] == ["two"]
    assert store.measurements() == other
    assert not (store.root / "cells" / "one").exists()


def test_removed_cells_are_missing(store):
    store.remove_cells([Cell("one", "fog", 1), Cell("one", "snow", 5)])
    left = {one.corruption for one in store.measurements("one")}
    assert "fog" not in left
    assert len(left) == 15
    assert not list((store.root / "cells" / "one").glob("fog_1.*"))


def test_a_run_that_is_evaluated_is_not_removed(store):
    before = store.measurements()
    with store.lease_cells("one", "snow"):
        for change in (store.remove_run, lambda name: store.rename_run(name, "new")):
            with pytest.raises(LeaseHeldError):
                change("one")
    assert store.measurements() == before
    assert len(store.runs()) == 2

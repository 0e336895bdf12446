import numpy as np
import pytest

from stillrobust.grid import Cell
from stillrobust.storage.files import content_key
from stillrobust.storage.store import Store

CELL = Cell("run", "fog", 3)


def written(root):
    store = Store(root)
    store.write_cell(CELL, "k", {"top1": 0.5}, {"seed": 0}, 4, 1.0, {"hits": np.array([1, 0])})
    return store


def test_round_trip(tmp_path):
    store = written(tmp_path)
    assert store.has(CELL, "k")
    assert not store.has(CELL, "other")
    assert store.statistics(CELL)["hits"].tolist() == [1, 0]
    assert store.measurements("run")[0].value == 0.5
    assert store.examples(CELL) is None


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_altered_record_is_set_aside(tmp_path, suffix):
    store = written(tmp_path)
    path = tmp_path / f"cells/run/fog_3.{suffix}"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.warns(UserWarning, match="missing"):
        assert not store.has(CELL, "k")
    assert store.measurements() == []


def test_key_ignores_order():
    assert content_key({"a": 1, "b": (2,)}) == content_key({"b": [2], "a": 1})

"""Records that somebody edited, copied or put beside ours: never a traceback, never a wrong number.

Every edit is applied to one record of a whole store, and resealed, so that its hash is right. Then
the record counts as missing, or the numbers are as before.
"""

import io
import json
import os
import shutil
import warnings
import zipfile
from contextlib import suppress

import numpy as np
import pytest

from stillrobust.errors import UserError
from stillrobust.evaluation.keys import require_same_circumstances
from stillrobust.grid import CLEAN, COMMON, Cell
from stillrobust.metrics import METRICS
from stillrobust.report import add_breakdown, summarize
from stillrobust.report.comparison import compare_runs
from stillrobust.report.page import render_page
from stillrobust.samples import DatasetInfo, Prediction, Target
from stillrobust.storage.arrays import pack_arrays
from stillrobust.storage.files import bytes_sha256
from stillrobust.storage.records import seal_record
from stillrobust.storage.store import Run, Store
from tests.toys import Toys

PLACES = [CLEAN, *((name, 2) for name in COMMON)]
CELL = Cell("a", "fog", 2)
RECORD, RUN = "cells/a/fog_2.json", "runs/a.json"
WRONG = [None, True, 7, -1, 0.5, "text", [1], {"a": 1}]
DEEP = json.loads("[" * 400 + "]" * 400)
HUGE = 10**400


def statistics(right):
    metric = METRICS["classification"](DatasetInfo("toy", "classification", ("x", "y"), 8, ""))
    for index in range(8):
        chances = np.array([0.9, 0.1] if index < right else [0.1, 0.9])
        target = Target(f"{index}.png", (1, 1), label=0)
        metric.update([Prediction(probabilities=chances)], [target])
    return metric.statistics()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    store = Store(root)
    for name, right in (("a", 4), ("b", 2)):
        about = {"training": {"recipe": {"seed": 0}, "technique": ""}, "evaluation": {"seed": 0}}
        store.write_run(Run(name, "classification", name, "full_network", "toy", about, ("x", "y")))
        for corruption, severity in PLACES:
            count = right if severity else 6
            store.write_cell(
                Cell(name, corruption, severity),
                "0123456789abcdef",
                {"top1": count / 8},
                {"seed": 0},
                8,
                1.0,
                statistics(count),
            )
    return root


@pytest.fixture
def root(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "store")
    return tmp_path / "store"


def read_everything(root):
    """What report, compare and evaluate read; the drop of both runs, ``None`` if incomplete."""
    store = Store(root)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        summary = add_breakdown(store, summarize(store, 4), None, ())
        render_page(store, summary)
        with suppress(UserError):
            compare_runs(store, "a", "b", replicates=4)
        with suppress(UserError):
            require_same_circumstances(store, "a", Toys(8), {"seed": 0, "images": 8})
        store.has(CELL, "0123456789abcdef")
    drops = {row.run.name: row.robustness.drop for row in summary.rows}
    return drops.get("a"), drops.get("b"), [str(one.message) for one in warned]


def body_of(root, name=RECORD):
    return json.loads((root / name).read_text())["body"]


def edited(body, path, value):
    """The body with another value at a path of keys; ``...`` removes the key."""
    found = json.loads(json.dumps(body))
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return found


CELL_KEYS = {
    ("run",): [..., *WRONG, "b", "../a"],
    ("corruption",): [..., *WRONG, "snow", "fog\n"],
    ("severity",): [..., None, True, 7, -1, 2.0, "2", [2], {"a": 2}, HUGE],
    ("key",): [..., None, True, 7, 0.5, [1], {"a": 1}],
    ("metrics",): [..., *WRONG[:-1], {}],
    ("metrics", "top1"): [None, True, 7, -1, 1.0000001, "0.5", [0.5], {"a": 1}, HUGE, -HUGE],
    ("protocol",): [..., *WRONG[:-1], {"seed": DEEP}, {"left_out": 3}, {"left_out": {"a": "b"}}],
    ("images",): [..., None, True, -1, 0.5, "text", [1], {"a": 1}, HUGE],
    ("seconds",): [..., None, True, -1, "text", [1], {"a": 1}, HUGE],
    ("arrays",): [..., None, True, 7, "text", [1], {"a": 1}, {"../../runs/b.json": "0" * 64}],
    ("arrays", "fog_2.npz"): [None, 7, "text"],
}
RUN_KEYS = {
    ("name",): [..., *WRONG, "b"],
    ("task",): [..., None, True, 7, [1], {"a": 1}],
    ("backbone",): [..., None, True, 7, [1], {"a": 1}],
    ("dataset",): [..., None, True, 7, [1], {"a": 1}],
    ("transfer",): [..., True, 7, "text", [1], {"a": 1}],
    ("kind",): [..., *WRONG],
    ("classes",): [..., None, True, 7, "text", [1], {"a": 1}],
    ("protocol",): [..., *WRONG[:-1], {"a": DEEP}],
    ("protocol", "training"): [None, True, 7, "text", [1], {"recipe": 3}],
    ("protocol", "training", "recipe"): [None, 7, [1], {"seed": "x"}, {"seed": 0.5}],
    ("protocol", "evaluation"): [None, 7, "text", [1]],
    ("protocol", "plausibility"): [
        None,
        7,
        "text",
        [1],
        {"warnings": 7},
        {"warnings": None},
        {"warnings": [1]},
        {"chance": -1.0},
        {"chance": "x"},
    ],
    ("protocol", "overlaps_test"): [None, 7, "text", [1], {"a": 1}],
    ("protocol", "made_by"): [7, "text", [1], {"a": 1}, {"backbone": 1, "technique": ""}],
    ("protocol", "imported"): [7, "text", [1], None],
}
CASES = [
    (name, path, value)
    for name, keys in ((RECORD, CELL_KEYS), (RUN, RUN_KEYS))
    for path, values in keys.items()
    for value in values
]


def test_there_are_many_edits(whole):
    assert len(CASES) > 150
    assert {key for key, *_ in CELL_KEYS} == set(body_of(whole))
    assert {key for key, *_ in RUN_KEYS} == set(body_of(whole, RUN))


@pytest.mark.parametrize("name", [RECORD, RUN])
def test_an_edited_record_is_damaged(name, root):
    """Whoever reads it first, a report or the resuming evaluation, sets it aside with a warning.
    Everything else then finds it missing.
    """
    path = root / name
    store, body = Store(root), body_of(root, name)
    readers = {RECORD: (store.measurements, lambda: store.has(CELL, "k")), RUN: (store.runs,)}
    cases = [(key, value) for where, key, value in CASES if where == name]
    for number, (key, value) in enumerate(cases):
        path.write_bytes(seal_record(edited(body, key, value)))
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            readers[name][number % len(readers[name])]()
        assert ["set aside" in str(one.message) for one in warned] == [True], (key, value)
        path.with_name(f"{path.name}.damaged").unlink()  # was there
    assert read_everything(root)[0] is None


def test_text_that_is_no_record_of_ours(root):
    """Edits of the text, and files of others under our names: damaged, or left alone."""
    path = root / RECORD
    original = path.read_text()
    ours = {
        "cut": original[:-30],
        "cut early": original[:5],
        "empty": "",
        "zeros": "\0" * 300,
        "NaN": original.replace("0.5", "NaN"),
        "infinite": original.replace("0.5", "1e999"),
        "infinite format": original.replace('"format": 1', '"format": Infinity'),
        "format as text": original.replace('"format": 1', '"format": "1"'),
        "old format": original.replace('"format": 1', '"format": 0'),
        "huge format": original.replace('"format": 1', f'"format": {HUGE}'),
        "digits": original.replace('"format": 1', f'"format": {"9" * 5000}'),
        "twice": original.replace('"key":', '"key": "x", "key":'),
        "twice format": original.replace('"format": 1', '"format": 1, "format": 1'),
        "body is no mapping": '{"format": 1, "sha256": "x", "body": []}',
        "surrogate": original.replace("0123456789abcdef", "\\ud800"),
        "deep": original.replace('"seed": 0', f'"seed": {"[" * 5000}{"]" * 5000}'),
    }
    for name, text in ours.items():
        path.write_text(text)
        assert read_everything(root)[0] is None, name
        path.with_name("fog_2.json.damaged").unlink()
    foreign = {
        "list": "[]",
        "coco": '{"images": [], "annotations": []}',
        "number": "3",
        "lines": '{"a": 1}\n{"b": 2}\n',
        "text": "fog",
        "deep": "[" * 100_000,
    }
    for name, text in foreign.items():
        path.write_text(text)
        drop, _, messages = read_everything(root)
        assert drop is None, name
        assert any("did not write" in message for message in messages), name
        assert path.read_text() == text, name
        assert not list(root.rglob("*.damaged")), name


def test_a_later_version_may_add_keys_but_not_change_the_format(root):
    path = root / RECORD
    drops = read_everything(root)[:2]
    path.write_bytes(seal_record({**body_of(root), "node": "gpu7", "later": {"a": [1]}}))
    run = body_of(root, RUN)
    (root / RUN).write_bytes(seal_record({**run, "licence": "MIT"}))
    assert read_everything(root) == (*drops, [])
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(UserError, match="use a newer stillrobust"):
        Store(root).measurements()
    assert path.exists()


def test_a_copy_counts_once(root):
    """Under a name of ours it is damaged; under any other it is left alone."""
    drops = read_everything(root)[:2]
    record = root / RECORD
    for stem in ("fog_2 (1)", "copy of fog_2", "fog_02", "fog_0", "clean_2"):
        shutil.copy(record, record.with_name(f"{stem}.json"))
    assert read_everything(root)[:2] == drops
    assert not list(root.rglob("*.damaged"))
    shutil.copy(record, record.with_name("fog_3.json"))
    shutil.copy(record, record.with_name("mine_2.json"))
    shutil.copytree(root / "cells/b", root / "cells/c")
    assert read_everything(root)[:2] == drops
    assert {path.parent.name for path in root.rglob("*.damaged")} == {"a", "c"}
    assert len(list((root / "cells/a").glob("*.damaged"))) == 2


def test_thousands_of_foreign_files_are_left_alone(root):
    drops = read_everything(root)[:2]
    for index in range(300):
        for folder in ("runs", "cells/a"):
            (root / folder / f"photo {index}.json").write_text("[]")
            (root / folder / f"scan{index}_2.json").write_text('{"boxes": []}')
    names = sorted(path.name for path in root.rglob("*.json"))
    assert read_everything(root)[:2] == drops
    assert sorted(path.name for path in root.rglob("*.json")) == names
    assert not list(root.rglob("*.damaged"))


def test_things_that_are_no_files(root):
    """Folders, links that lead nowhere or in a circle, and pipes, which would block."""
    drops = read_everything(root)[:2]
    folder = root / "cells/a"
    (folder / "snow_5.json").mkdir()
    (folder / "snow_4.json").symlink_to("nowhere")
    (folder / "snow_3.json").symlink_to("snow_3.json")
    os.mkfifo(folder / "snow_1.json")
    os.mkfifo(root / "runs/pipe.json")
    os.mkfifo(root / "cells/pipe")
    (root / "cells/loop").symlink_to("loop")
    assert read_everything(root)[:2] == drops


ARRAYS = {
    "fewer images": lambda a: {name: one[:-1] if one.ndim else one for name, one in a.items()},
    "fewer ids": lambda a: {**a, "image_ids": a["image_ids"][:-1]},
    "an id twice": lambda a: {**a, "image_ids": np.array(["x"] * 8)},
    "ids are numbers": lambda a: {**a, "image_ids": np.arange(8)},
    "correct is longer": lambda a: {**a, "correct": np.ones(9, bool)},
    "correct is 2": lambda a: {**a, "correct": np.full(8, 2)},
    "correct is below 0": lambda a: {**a, "correct": np.full(8, -1)},
    "correct is text": lambda a: {**a, "correct": np.array(["1"] * 8)},
    "correct is a table": lambda a: {**a, "correct": np.ones((8, 2))},
    "not finite": lambda a: {**a, "confidence": np.full(8, np.nan)},
    "confidence of 2": lambda a: {**a, "confidence": np.full(8, 2.0)},
    "label beyond": lambda a: {**a, "label": np.full(8, 2)},
    "label of fractions": lambda a: {**a, "label": np.full(8, 0.5)},
    "classes is a list": lambda a: {**a, "classes": np.array([2, 2])},
    "a name of no array": lambda a: {**a, "../x": np.ones(3)},
    "complex": lambda a: {**a, "correct": np.ones(8, complex)},
}


def write_arrays(root, content):
    body = body_of(root)
    (root / "cells/a/fog_2.npz").write_bytes(content)
    digests = {"fog_2.npz": bytes_sha256(content)}
    (root / RECORD).write_bytes(seal_record({**body, "arrays": digests}))


@pytest.mark.parametrize("edit", ARRAYS.values(), ids=ARRAYS)
def test_edited_arrays_are_damaged(edit, root):
    write_arrays(root, pack_arrays(edit(Store(root).statistics(CELL))))
    _, _, messages = read_everything(root)
    assert any("set aside" in message for message in messages)
    assert read_everything(root)[0] is None


def test_archives_that_claim_too_much(root):
    """A shape of terabytes in a header, another format, and a pickle that must not run."""
    whole = pack_arrays(Store(root).statistics(CELL))

    def archive(name, header):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            text = header.encode().ljust(117) + b"\n"
            file.writestr(name, b"\x93NUMPY\x01\x00v\x00" + text + b"\0" * 8)
        return buffer.getvalue()

    shape = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000, 9), }"
    attacks = [
        archive("correct.npy", shape),
        archive("correct.npy", shape.replace("<f8", "|O").replace("1000000, 1000000, 9", "1,")),
        archive("correct.npy", shape.replace("1000000, 1000000, 9", "-1,")),
        archive("correct.npy", "{'descr': " * 9),
        archive("correct", shape),
        whole[:-40],
        b"",
        b"fog",
    ]
    for content in attacks:
        write_arrays(root, content)
        assert any("set aside" in message for message in read_everything(root)[2])
        (root / "cells/a/fog_2.json.damaged").rename(root / RECORD)

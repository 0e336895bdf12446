"""Listing a store: what the listing says is what the records say, however it was lost, torn or
overtaken.
"""

import json
import os
import time
import zlib
from dataclasses import asdict

import numpy as np
import pytest

from stillrobust.grid import COMMON, Cell
from stillrobust.storage import index, records, store
from stillrobust.storage.index import LISTING
from stillrobust.storage.store import Store


def write(root, severity, value, seed=0):
    arrays = {"hits": np.zeros(2)}
    Store(root).write_cell(
        Cell("run", "fog", severity),
        "key",
        {"top1": value},
        {"seed": seed, "text": "a\tb\nü"},
        4,
        1.0,
        arrays,
    )


def values(root):
    return {one.severity: (one.value, one.protocol["seed"]) for one in Store(root).measurements()}


def index_of(root):
    cells = {f"fog_{severity}.json": Cell("run", "fog", severity) for severity in (1, 2, 3)}
    return index._read_index(root / "cells/run" / LISTING, cells)


def settled(root, seconds=60):
    """Make what is there older, so that its marks are believed."""
    lines = (root / "cells/run" / LISTING).read_bytes().split(b"\n")[:-1]
    known = index_of(root)
    assert len(lines) >= len(known)
    for name in known:
        path = root / "cells/run" / name
        os.utime(path, ns=(path.stat().st_mtime_ns - seconds * 10**9,) * 2)
    values(root)  # the marks are others now: written anew
    return root / "cells/run" / LISTING


@pytest.fixture
def root(tmp_path):
    for severity in (1, 2, 3):
        write(tmp_path, severity, severity / 10)
    return tmp_path


EXPECTED = {1: (0.1, 0), 2: (0.2, 0), 3: (0.3, 0)}


def test_a_settled_store_is_listed_without_opening_a_record(root, monkeypatch):
    assert values(root) == EXPECTED
    settled(root)
    whole = Store(root).measurements()
    monkeypatch.setattr(
        store, "_read_record", lambda path, parse: pytest.fail(f"{path} was opened")
    )
    assert Store(root).measurements() == whole == Store(root).measurements("run")
    assert whole[0].protocol == {"seed": 0, "text": "a\tb\nü"}


def test_writing_puts_down_what_listing_needs(root):
    """No listing was needed before: marks are those of the records as they were written."""
    known = index_of(root)
    assert {name: mark for name, (mark, _) in known.items()} == {
        path.name: index._file_stat(path.stat()) for path in (root / "cells/run").glob("*.json")
    }


def test_measured_again_counts_and_not_before(root):
    settled(root)
    write(root, 2, 0.9, seed=1)
    assert values(root) == EXPECTED | {2: (0.9, 1)}
    settled(root)
    assert values(root) == EXPECTED | {2: (0.9, 1)}


def test_a_mark_that_differs_is_not_believed_however_old_the_record(root):
    """Both records are too old to be read for being new: only their marks say that other processes
    changed them.
    """
    file = settled(root)
    before = file.read_bytes()
    write(root, 3, 0.7)
    file.write_bytes(before)  # its line was lost
    altered = root / "cells/run/fog_2.json"
    altered.write_bytes(altered.read_bytes().replace(b"0.2", b"0.8"))
    for path in (root / "cells/run").glob("*.json"):
        if path.name != "fog_1.json":
            os.utime(path, ns=(time.time_ns() - 30 * 10**9,) * 2)
    with pytest.warns(UserWarning, match="incomplete or altered"):
        assert values(root) == {1: (0.1, 0), 3: (0.7, 0)}


@pytest.mark.parametrize("harm", ["lost", "torn", "altered", "old", "no json", "another's"])
def test_the_records_alone_count(root, harm):
    file = settled(root)
    content = file.read_bytes()
    if harm == "old":  # a record that another process wrote, whose line was lost
        write(root, 3, 0.7)
    changed = {
        "lost": b"",
        "torn": content[:-30],
        "altered": content.replace(b"0.2", b"0.8"),
        "old": content,
        "no json": b"xx\n\n",
    }
    changed["another's"] = b"".join(
        b"%08x %b\n" % (zlib.crc32(text), text) for text in (b"xx", b"[1]\t{}", b"[1, 2, 3]\t{}")
    )
    file.write_bytes(changed[harm])
    assert values(root) == EXPECTED | ({3: (0.7, 0)} if harm == "old" else {})
    assert len(index_of(root)) == 3


def test_a_record_that_is_altered_or_gone_is_not_listed(root):
    settled(root)
    record = root / "cells/run/fog_2.json"
    record.write_bytes(record.read_bytes().replace(b"0.2", b"0.8"))
    (root / "cells/run/fog_1.json").unlink()
    with pytest.warns(UserWarning, match="incomplete or altered"):
        assert values(root) == {3: (0.3, 0)}
    assert record.with_name("fog_2.json.damaged").exists()


def test_what_was_altered_just_now_is_seen_though_its_mark_is_the_same(root):
    values(root)
    record = root / "cells/run/fog_2.json"
    stat = record.stat()
    with record.open("r+b") as file:
        file.write(record.read_bytes().replace(b"0.2", b"0.8"))
    os.utime(record, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.warns(UserWarning, match="incomplete or altered"):
        assert 2 not in values(root)


def test_a_store_that_cannot_be_written_is_listed(root, monkeypatch):
    def refuse(*_):
        raise OSError("read-only")

    (root / "cells/run" / LISTING).unlink()
    monkeypatch.setattr(type(root), "write_bytes", refuse)
    assert values(root) == EXPECTED


@pytest.mark.slow
def test_100_000_records_are_listed_within_two_seconds(tmp_path):
    places = [("clean", 0), *((name, severity) for name in COMMON for severity in range(1, 6))]
    protocol = {f"circumstance {number}": "0" * 32 for number in range(14)}
    old = time.time_ns() - 60 * 10**9
    for number in range(1316):
        folder = tmp_path / "cells" / f"run{number}"
        folder.mkdir(parents=True)
        for name, severity in places:
            cell = Cell(folder.name, name, severity)
            body = {
                **asdict(cell),
                "key": "0" * 16,
                "metrics": {"top1": 0.5, "ece": 0.1},
            }
            body |= {"protocol": protocol, "images": 2000, "seconds": 1.5, "arrays": {}}
            record = folder / f"{name}_{severity}.json"
            record.write_bytes(records.seal_record(body))
            os.utime(record, ns=(old, old))
            index.append_record(record, records.CellRecord.from_body(body, cell))
    begun = time.process_time()
    assert len(Store(tmp_path).measurements()) == 2 * 1316 * 76
    assert time.process_time() - begun < 2
    assert json.loads((tmp_path / "cells/run0/clean_0.json").read_text())

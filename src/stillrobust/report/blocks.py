"""Which rows may stand in one table, and what keeps the others apart: numbers of two protocols are
never ranked together.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from stillrobust.report.rows import Row

OF_THE_MODEL = {"weights", "data_name", "imported"}
"""What may differ between rows of one table: the models themselves, what the same data are called,
where a number comes from.
"""
SHORT = 20  # characters of a value in a heading; a hash is told by its beginning


def comparable(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What two measurements must have in common to stand in one table."""
    return {key: value for key, value in protocol.items() if key not in OF_THE_MODEL}


def sections(rows: Sequence[Row]) -> list[list[Row]]:
    """Sorted rows, those together that may stand in one table: one task, dataset, metric, set of
    severities and protocol.
    """
    return [list(group) for _, group in groupby(rows, key=lambda row: row.table)]


def apart(section: Sequence[Row], rows: Sequence[Row]) -> str:
    """What keeps a section from the others of its task, dataset and metric, such as ``seed 0; stage
    stored``; empty if none is.
    """

    def kind(row: Row) -> tuple[str, str, str]:
        return row.run.task, row.run.dataset, row.robustness.metric

    others = [
        row for row in rows if kind(row) == kind(section[0]) and row.table != section[0].table
    ]
    mine = _said(section[0])
    keys = {
        key
        for other in map(_said, others)
        for key in mine.keys() | other.keys()
        if mine.get(key) != other.get(key)
    }
    return "; ".join(f"{key.replace('_', ' ')} {short(mine.get(key))}" for key in sorted(keys))


def short(value: object) -> str:
    """A value of a protocol as a few words."""
    text = "nothing" if value is None else str(value)
    return text if len(text) <= SHORT else f"{text[:12]}…"


def _said(row: Row) -> dict[str, Any]:
    return {**row.circumstances, "severities": ", ".join(map(str, row.robustness.severities))}

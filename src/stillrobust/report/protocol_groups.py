"""Groups of rows under one protocol. Numbers of two protocols are never ranked together."""

from collections.abc import Sequence
from typing import Any

from stillrobust.analysis.protocols import short_value
from stillrobust.grid import COMMON
from stillrobust.report.rows import Row


def protocol_groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Split rows by task, data, metric, severities and protocol.

    Finished models and trained runs on the same data are in one group, and so is data under two
    names.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.comparison_key, []).append(row)
    return list(groups.values())


def protocol_difference(group: Sequence[Row], rows: Sequence[Row]) -> str:
    """Describe how a group's protocol differs from others of its task, dataset and metric.

    Returns:
        Keys and values such as ``seed 0; stage stored``; empty if there is no other protocol.
    """

    def subject(row: Row) -> tuple[object, ...]:
        return row.comparison_key[:3]

    first = group[0]
    own = _protocol(first)
    others = [
        _protocol(row)
        for row in rows
        if subject(row) == subject(first) and row.comparison_key != first.comparison_key
    ]
    keys = {
        key
        for other in others
        for key in own.keys() | other.keys()
        if own.get(key) != other.get(key)
    }
    return "; ".join(f"{key.replace('_', ' ')} {short_value(own.get(key))}" for key in sorted(keys))


def _protocol(row: Row) -> dict[str, Any]:
    numbers = row.robustness
    return {
        **row.protocol,
        "severities": ", ".join(map(str, numbers.severities)),
        "corruptions": f"{len(numbers.corruptions)} of {len(COMMON)}",
    }

"""Why two numbers differ: the differences of their protocols."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stillrobust.errors import UserError
from stillrobust.storage.store import Measurement, Run, Store

MIN_DIGITS = 4  # of an abbreviated key
# stored, but without influence on a number
IRRELEVANT = ("run", "evaluation.data_name", "loaded", "training.recipe.source")


@dataclass(frozen=True)
class CellRecord:
    """A cell: its numbers and its protocol."""

    key: str
    name: str
    values: dict[str, float]
    protocol: dict[str, str]
    """With dotted keys."""


@dataclass(frozen=True)
class Explanation:
    """Two cells and their differences, as (first's, second's)."""

    first: CellRecord
    second: CellRecord
    relevant: dict[str, tuple[str, str]]
    irrelevant: dict[str, tuple[str, str]]
    """Without influence on a number."""


def compare_cells(store: Store, first: str, second: str) -> Explanation:
    """Compare two cells.

    Args:
        store: The results of a study.
        first: A cell: its key, the first digits of it, or ``RUN/CORRUPTION/SEVERITY``.
        second: Another cell.

    Returns:
        Both cells and their differences.

    Raises:
        UserError: If a name fits no cell or several.
    """
    measurements = store.measurements()
    runs = {run.name: run for run in store.runs()}
    one, other = (_find_cell(measurements, runs, key) for key in (first, second))
    left, right = one.protocol, other.protocol
    keys = [
        key
        for key in [*left, *(key for key in right if key not in left)]
        if left.get(key) != right.get(key)
    ]
    differing = {key: (left.get(key, "not there"), right.get(key, "not there")) for key in keys}
    relevant = {key: values for key, values in differing.items() if key not in IRRELEVANT}
    return Explanation(
        one,
        other,
        relevant,
        {key: values for key, values in differing.items() if key in IRRELEVANT},
    )


def explanation_text(found: Explanation) -> str:
    """Format an explanation for a terminal.

    Args:
        found: The explanation.

    Returns:
        The text.
    """
    lines = []
    for cell in (found.first, found.second):
        numbers = ", ".join(f"{metric} {100 * value:.2f}" for metric, value in cell.values.items())
        lines.append(f"{cell.key}  {cell.name}: {numbers}")
    if found.first.key == found.second.key:
        lines.append("the same key: the same number")
    elif not found.relevant:
        lines.append(
            "no stored value differs: the keys come from different versions of this program"
        )
    for title, differing in (
        ("differences", found.relevant),
        ("differences without influence", found.irrelevant),
    ):
        lines += [f"{title}:"] * bool(differing) + [
            f"  {key}: {one} | {other}" for key, (one, other) in differing.items()
        ]
    return "\n".join(lines)


def _find_cell(measurements: list[Measurement], runs: Mapping[str, Run], name: str) -> CellRecord:
    found = [
        one
        for one in measurements
        if _cell_name(one) == name or (len(name) >= MIN_DIGITS and one.key.startswith(name))
    ]
    keys = {(one.run, one.key) for one in found}
    if not keys:
        raise UserError(
            f"No cell of this store has the key {name!r}; `stillrobust study numbers` lists them"
            " with their numbers"
        )
    if len({key for _, key in keys}) > 1:
        listed = ", ".join(sorted(f"{key} ({run})" for run, key in keys)[:4])
        raise UserError(
            f"{len(keys)} cells have a key that begins with {name!r}: {listed}; give more of its"
            " digits"
        )
    one = found[0]
    run = runs.get(one.run)
    about: dict[str, Any] = {"run": one.run, "corruption": one.corruption, "severity": one.severity}
    about |= {
        key: value for key, value in (run.protocol if run else {}).items() if key != "evaluation"
    }
    about["evaluation"] = one.protocol
    values = {each.metric: each.value for each in found if each.run == one.run}
    return CellRecord(one.key, _cell_name(one), values, flat(about))


def _cell_name(one: Measurement) -> str:
    return f"{one.run}/{one.corruption}/{one.severity}"


def flat(mapping: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Flatten nested mappings.

    Args:
        mapping: Plain values.
        before: Prefix of the keys.

    Returns:
        Dotted key -> value as text.
    """
    found: dict[str, str] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = (
                value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            )
    return found

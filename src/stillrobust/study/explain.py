"""Why two numbers differ: what was not the same when they were measured."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stillrobust.errors import UserError
from stillrobust.storage.store import Measurement, Run, Store

SHORTEST = 4  # digits of a key that may stand for all of it
# told, but they decide nothing
ASIDE = ("run", "evaluation.data_name", "loaded", "training.recipe.source")


@dataclass(frozen=True)
class Numbered:
    """One cell: its numbers, and everything that was written down about it, flat."""

    key: str
    place: str
    values: dict[str, float]
    circumstances: dict[str, str]


@dataclass(frozen=True)
class Explanation:
    """Two cells and what differs between them."""

    first: Numbered
    second: Numbered
    deciding: dict[str, tuple[str, str]]
    """What differs and decides a number, as (first's, second's)."""
    aside: dict[str, tuple[str, str]]
    """What differs and decides nothing."""


def explain(store: Store, first: str, second: str) -> Explanation:
    """Compare two cells, each named by its key (or the first digits of it) or as
    ``RUN/CORRUPTION/SEVERITY``.
    """
    measurements = store.measurements()
    runs = {run.name: run for run in store.runs()}
    one, other = (_numbered(measurements, runs, key) for key in (first, second))
    told, said = one.circumstances, other.circumstances
    keys = [
        key
        for key in [*told, *(key for key in said if key not in told)]
        if told.get(key) != said.get(key)
    ]
    differing = {key: (told.get(key, "not there"), said.get(key, "not there")) for key in keys}
    deciding = {key: values for key, values in differing.items() if key not in ASIDE}
    return Explanation(
        one, other, deciding, {key: values for key, values in differing.items() if key in ASIDE}
    )


def explanation_text(found: Explanation) -> str:
    """The explanation for a terminal."""
    lines = []
    for cell in (found.first, found.second):
        numbers = ", ".join(f"{metric} {100 * value:.2f}" for metric, value in cell.values.items())
        lines.append(f"{cell.key}  {cell.place}: {numbers}")
    if found.first.key == found.second.key:
        lines.append("the same key: the same number")
    elif not found.deciding:
        lines.append(
            "nothing that was written down differs: the keys come from different versions of this"
            " program"
        )
    for title, differing in (
        ("what differs", found.deciding),
        ("what differs and decides nothing", found.aside),
    ):
        lines += [f"{title}:"] * bool(differing) + [
            f"  {key}: {one} | {other}" for key, (one, other) in differing.items()
        ]
    return "\n".join(lines)


def _numbered(measurements: list[Measurement], runs: Mapping[str, Run], asked: str) -> Numbered:
    found = [
        one
        for one in measurements
        if _place(one) == asked or (len(asked) >= SHORTEST and one.key.startswith(asked))
    ]
    keys = {(one.run, one.key) for one in found}
    if not keys:
        raise UserError(
            f"No cell of this store has the key {asked!r}; `stillrobust study export` lists them"
            " with their numbers"
        )
    if len({key for _, key in keys}) > 1:
        listed = ", ".join(sorted(f"{key} ({run})" for run, key in keys)[:4])
        raise UserError(
            f"{len(keys)} cells have a key that begins with {asked!r}: {listed}; give more of its"
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
    return Numbered(one.key, _place(one), values, flat(about))


def _place(one: Measurement) -> str:
    return f"{one.run}/{one.corruption}/{one.severity}"


def flat(mapping: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Nested mappings as one, with dotted keys; values as text."""
    found: dict[str, str] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = (
                value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            )
    return found

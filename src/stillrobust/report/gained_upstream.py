"""What each technique gains upstream, by group of corruptions: whether there is anything that could
come along, and where.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stillrobust.report.came_along import (
    REGULAR,
    Gain,
    gain_of,
    gain_text,
    learnt_nothing,
    left_out,
    markdown_table,
    origin_of,
    seed_of,
)
from stillrobust.report.rows import Row
from stillrobust.report.tables import GROUP_ORDER, aligned, as_csv
from stillrobust.storage.store import Run

QUANTITIES = (*(f"drop.{group}" for group in GROUP_ORDER), "drop")
HEADINGS = (
    "Backbone",
    "Technique",
    "Seeds",
    *(group.capitalize() for group in GROUP_ORDER),
    "Mean of all 15",
)
TEXT_COLUMNS = range(2)
TITLE = "What is gained upstream, by group of corruptions"
PARTS = ("the regular backbone", "the technique")


@dataclass(frozen=True)
class Gained:
    """One technique on one backbone, with the backbone's own classifier."""

    backbone: str
    technique: str
    seeds: int = 0
    """How many are compared."""
    gains: Mapping[str, Gain] = field(default_factory=dict)
    """By quantity; empty where nothing can be compared."""
    lacking: str = ""
    """Why it is not compared, or what is left out of it."""


def gained_upstream(runs: Iterable[Run], rows: Sequence[Row]) -> list[Gained]:
    """A line for each backbone and technique that was measured upstream beside the regular one,
    made in the same way.
    """
    measured = {row.run.name: row for row in rows if row.robustness.metric == "top1"}
    groups: dict[tuple[object, ...], dict[str, dict[int, Run]]] = {}
    names: dict[tuple[object, ...], str] = {}
    for run in runs:
        origin = origin_of(run) if run.is_upstream else None
        if origin:
            measured_as = {
                key: value
                for key, value in run.protocol.get("evaluation", {}).items()
                if key != "weights"
            }
            key = origin.family, run.dataset, str(sorted(measured_as.items(), key=str))
            names[key] = origin.name
            groups.setdefault(key, {}).setdefault(origin.technique, {})[seed_of(run)] = run
    lines = [
        _line(names[key], technique, group[REGULAR], own, measured)
        for key, group in groups.items()
        for technique, own in group.items()
        if technique != REGULAR and REGULAR in group
    ]
    return sorted(lines, key=lambda line: (line.backbone, line.technique))


def _line(
    backbone: str,
    technique: str,
    regular: Mapping[int, Run],
    own: Mapping[int, Run],
    measured: Mapping[str, Row],
) -> Gained:
    seeds = sorted({*regular, *own})
    pairs: dict[int, tuple[Row, Row]] = {}
    for seed in seeds:
        one, other = (
            measured.get(runs[seed].name) if seed in runs else None for runs in (regular, own)
        )
        if one is not None and other is not None:
            pairs[seed] = one, other
    if not pairs:
        return Gained(backbone, technique, lacking="not complete")
    for pair in pairs.values():
        if nothing := learnt_nothing(PARTS, pair):
            return Gained(backbone, technique, lacking=nothing)
    gains = {quantity: gain_of(list(pairs.values()), quantity) for quantity in QUANTITIES}
    return Gained(backbone, technique, len(pairs), gains, left_out(seeds, pairs))


def gained_cells(line: Gained) -> list[str]:
    """A line as the text of its columns; what it lacks stands in the last."""
    last = "; ".join(filter(None, [gain_text(line.gains.get("drop")), line.lacking]))
    return [
        line.backbone,
        line.technique,
        str(line.seeds or ""),
        *(gain_text(line.gains.get(quantity)) for quantity in QUANTITIES[:-1]),
        last,
    ]


def gained_flat(line: Gained) -> dict[str, Any]:
    """A line as plain values; gains as fractions."""
    found: dict[str, Any] = {
        "backbone": line.backbone,
        "technique": line.technique,
        "seeds": line.seeds,
        "lacking": line.lacking,
    }
    for quantity in QUANTITIES:
        gain, name = line.gains.get(quantity), quantity.replace("drop.", "").replace("drop", "mean")
        low, high = (gain.interval if gain else None) or (None, None)
        found |= {
            f"{name}_gain": gain.value if gain else None,
            f"{name}_low": low,
            f"{name}_high": high,
        }
    return found


def gained_csv(lines: Sequence[Gained]) -> str:
    """Every line of :func:`gained_flat`."""
    told = [gained_flat(line) for line in lines]
    return as_csv(list(told[0]) if told else [], [list(one.values()) for one in told])


def gained_text(lines: Sequence[Gained]) -> str:
    """The table for a terminal; empty where there is nothing to compare."""
    if not lines:
        return ""
    texts = aligned([HEADINGS, *map(gained_cells, lines)], TEXT_COLUMNS).split("\n")
    return "\n".join(
        [f"{TITLE}, in points of the drop", "", texts[0], "-" * len(texts[0]), *texts[1:]]
    )


def gained_markdown(lines: Sequence[Gained]) -> str:
    """The same for a page of documentation."""
    return (
        f"{TITLE}, in points of the"
        f" drop:\n\n{markdown_table(HEADINGS, map(gained_cells, lines), TEXT_COLUMNS)}\n"
        if lines
        else ""
    )

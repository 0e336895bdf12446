"""The gain of each technique upstream, by corruption group."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from stillrobust.report.results_table import DROPS, GROUP_ORDER
from stillrobust.report.rows import Row
from stillrobust.report.table import Cell, Column, Table
from stillrobust.report.transfer_gain import (
    REGULAR,
    Gain,
    chance_level_reason,
    gain_cell,
    gain_of,
    left_out_seeds,
    origin_of,
    seed_of,
)
from stillrobust.storage.store import Run

TITLE = "Gain upstream by corruption group, in points of the drop"
COLUMNS = (
    Column("backbone", "Backbone", is_text=True),
    Column("technique", "Technique", is_text=True),
    Column("seeds", "Seeds"),
    *(Column(f"{name}_gain", name.capitalize(), has_interval=True) for name in GROUP_ORDER),
    Column("mean_gain", "Mean of all 15", has_interval=True),
    Column("missing", "Missing", is_text=True),
)
PARTS = ("the regular backbone", "the technique")


@dataclass(frozen=True)
class UpstreamGain:
    """One technique on one backbone, with the backbone's own classifier."""

    backbone: str
    technique: str
    seeds: int = 0
    """Number of seeds that are compared."""
    gains: Mapping[str, Gain] = field(default_factory=dict)
    """By quantity; empty if nothing can be compared."""
    missing: str = ""
    """Why it is not compared, or which seeds are left out."""


def upstream_gain(runs: Iterable[Run], rows: Sequence[Row]) -> list[UpstreamGain]:
    """Compute the gain of each technique over the regular backbone with the same recipe.

    Args:
        runs: All runs of a store.
        rows: Of the complete runs.

    Returns:
        A line for each backbone and technique that was evaluated upstream.
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
) -> UpstreamGain:
    seeds = sorted({*regular, *own})
    pairs: dict[int, tuple[Row, Row]] = {}
    for seed in seeds:
        one, other = (
            measured.get(runs[seed].name) if seed in runs else None for runs in (regular, own)
        )
        if one is not None and other is not None:
            pairs[seed] = one, other
    if not pairs:
        return UpstreamGain(backbone, technique, missing="not complete")
    for pair in pairs.values():
        if reason := chance_level_reason(PARTS, pair):
            return UpstreamGain(backbone, technique, missing=reason)
    gains = {quantity: gain_of(list(pairs.values()), quantity) for quantity in DROPS}
    return UpstreamGain(backbone, technique, len(pairs), gains, left_out_seeds(seeds, pairs))


def upstream_gain_table(lines: Sequence[UpstreamGain]) -> Table:
    """Tabulate the lines of :func:`upstream_gain`."""
    rows: list[list[Cell]] = [
        [
            line.backbone,
            line.technique,
            line.seeds or None,
            *(gain_cell(line.gains.get(quantity)) for quantity in DROPS),
            line.missing,
        ]
        for line in lines
    ]
    columns = COLUMNS if any(line.missing for line in lines) else (*COLUMNS[:-1], Column("missing"))
    return Table.from_rows(TITLE, columns, rows)

"""Breakdown of a row: calibration, object sizes, classes, worst corruption, and relative scores."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from markupsafe import Markup

from stillrobust.analysis.breakdown import breakdown, class_breakdown
from stillrobust.analysis.reference import (
    ALEXNET,
    CorruptionErrors,
    as_reference,
    corruption_errors,
    effective_robustness,
    published_reference,
    worst_corruption,
)
from stillrobust.analysis.robustness import Robustness
from stillrobust.errors import MissingCellsError, UserError
from stillrobust.names import lookup
from stillrobust.report.charts import safe_json
from stillrobust.report.heat_map import heat_map, heat_table
from stillrobust.report.labels import figure_label
from stillrobust.report.protocol_groups import protocol_groups
from stillrobust.report.renderers import render_html
from stillrobust.report.rows import Breakdown, Pair, RelativeScores, Row, Summary
from stillrobust.report.table import Cell, Column, Percent, Table, TableRow, percent
from stillrobust.storage.store import Store

PREFIXES = {"box_ap": "box_", "mask_ap": "mask_"}  # of a detector's quantities
FIRST_CLASSES = 20  # columns of the heat map of classes, until a reader asks for others
SIZES = ("small", "medium", "large")  # of objects, in the order of COCO
PAIRS = {"ece": "ECE", "ap_small": "AP small", "ap_medium": "AP medium", "ap_large": "AP large"}
RELATIVE = {"mCE": "mce", "Relative mCE": "relative_mce", "Effective robustness": "effective"}


def add_breakdown(
    store: Store, summary: Summary, reference: str | None = None, standard: Sequence[str] = ()
) -> Summary:
    """Add the :class:`Breakdown` of every row to a summary.

    Args:
        store: The results store, with the statistics of the cells.
        summary: Rows of the store.
        reference: As for :func:`relative_scores`.
        standard: As for :func:`relative_scores`.
    """
    relative = relative_scores(summary.rows, reference, standard)
    details = {
        row.run.name: _details(store, row)
        for row in {row.run.name: row for row in summary.rows}.values()
    }
    found = {}
    for row in summary.rows:
        key = row.run.name, row.robustness.metric
        pairs, classes = details[row.run.name]
        start = PREFIXES.get(row.robustness.metric, "")
        own = {
            name.removeprefix(start): pair for name, pair in pairs.items() if name.startswith(start)
        }
        name, part = worst_corruption(row.robustness)
        found[key] = Breakdown(
            name, part.mpc, relative[key], own, classes.get(row.robustness.metric, {})
        )
    return replace(summary, breakdowns=found)


def relative_scores(
    rows: Sequence[Row], reference: str | None = None, standard: Sequence[str] = ()
) -> dict[tuple[str, str], RelativeScores]:
    """Compute mCE and effective robustness, within each group of comparable rows.

    Args:
        rows: Of a summary.
        reference: Run that mCE is relative to (default: AlexNet's published errors, for top-1 on
            ImageNet at all severities).
        standard: Runs without a technique, at least two per group, for effective robustness.

    Returns:
        By run and metric.

    Raises:
        UserError: If a named run has no row, or a group has a single standard model.
    """
    known = {row.run.name: row for row in rows}
    for name in [*standard, *([reference] if reference else [])]:
        lookup("run with a row in the table", name, known)
    found = {}
    for group in protocol_groups(rows):
        other = next((row.robustness for row in group if row.run.name == reference), None)
        effective = _effective(group, standard)
        for row in group:
            errors = _errors(row, other) if other is not None or reference is None else None
            scores = RelativeScores(effective=effective.get(row.run.name))
            if errors is not None:
                scores = replace(
                    scores,
                    mce=errors.mce,
                    relative_mce=errors.relative_mce,
                    reference=reference or ALEXNET.name,
                )
            found[row.run.name, row.robustness.metric] = scores
    return found


def relative_score_lines(scores: RelativeScores) -> list[str]:
    """Describe relative scores for a terminal, in percent."""
    lines = []
    if scores.mce is not None and scores.relative_mce is not None:
        lines.append(
            f"mCE {percent(scores.mce)}, relative mCE {percent(scores.relative_mce)}"
            f" ({scores.reference}: 100)"
        )
    if scores.effective is not None:
        lines.append(f"effective robustness {percent(scores.effective)} points")
    return lines


def _errors(row: Row, other: Robustness | None) -> CorruptionErrors | None:
    if other is not None:
        return corruption_errors(row.robustness, as_reference(other))
    reference = published_reference(row.robustness, row.run.classes)
    return corruption_errors(row.robustness, reference) if reference else None


def _details(store: Store, row: Row) -> tuple[dict[str, Pair], dict[str, dict[str, Pair]]]:
    levels = row.robustness.severities
    try:
        pairs = {
            line.name: (line.clean, line.corrupted)
            for line in breakdown(store, row.run.name, levels, 1)
        }
        by_metric = class_breakdown(store, row.run, levels)
    # statistics of other software, or of a few cells
    except (MissingCellsError, KeyError, IndexError):
        return {}, {}
    present = {
        metric: {name: pair for name, pair in one.items() if np.isfinite(pair[0])}
        for metric, one in by_metric.items()
    }
    return {name: pair for name, pair in pairs.items() if np.isfinite(pair).all()}, present


def _effective(group: Sequence[Row], standard: Sequence[str]) -> dict[str, float]:
    """Effective robustness by run; a score of 0 or 1 has no logit and therefore no value."""
    among = [row.robustness for row in group if row.run.name in standard]
    if not among:
        return {}
    found = {}
    for row in group:
        try:
            (found[row.run.name],) = effective_robustness([row.robustness], among)
        except UserError:
            if row.run.name in standard:
                raise
    return found


QUANTITY_KEYS = (
    "task", "dataset", "run", "model", "transfer", "metric", "quantity", "of", "clean", "corrupted",
)  # fmt: skip


def breakdown_quantities_table(summary: Summary) -> Table:
    """Tabulate every number of the breakdowns for files: a quantity per row, as fractions."""
    lines: list[list[Cell]] = []
    for row in summary.rows:
        one = breakdown_of(row, summary)
        if one is None:
            continue
        run = row.run
        quantities: list[list[Cell]] = [
            ["worst_corruption", one.worst_corruption, row.robustness.clean, one.worst_score]
        ]
        relative = one.relative
        for name, value in (("mce", relative.mce), ("relative_mce", relative.relative_mce)):
            quantities += [[name, relative.reference, None, value]] if value is not None else []
        if relative.effective is not None:
            quantities.append(["effective_robustness", None, None, relative.effective])
        quantities += [[name, None, *pair] for name, pair in one.pairs.items()]
        quantities += [["class", name, *pair] for name, pair in one.classes.items()]
        subject = [run.task, run.dataset, run.name, run.backbone, run.setting]
        lines += [[*subject, row.robustness.metric, *cells] for cells in quantities]
    return Table.from_rows("Breakdown", map(Column, QUANTITY_KEYS), lines)


def breakdown_table(rows: Sequence[Row], summary: Summary) -> Table:
    """Tabulate the breakdown for readers: a model per row, clean and corrupted."""
    known = [(row, one) for row in rows if (one := breakdown_of(row, summary)) is not None]
    relative = {
        heading: name
        for heading, name in RELATIVE.items()
        if any(getattr(one.relative, name) is not None for _, one in known)
    }
    pairs = [name for name in PAIRS if any(name in one.pairs for _, one in known)]
    columns = [
        Column(heading="Model", is_text=True),
        Column(heading="Worst corruption (lowest of 15)", is_text=True),
        Column(heading="Its score"),
        *(Column(heading=heading) for heading in relative),
    ]
    for name in pairs:
        columns += [Column(heading=f"{PAIRS[name]} {when}") for when in ("clean", "corrupted")]
    lines = []
    for row, one in known:
        values = [one.worst_score, *(getattr(one.relative, name) for name in relative.values())]
        values += [value for name in pairs for value in one.pairs.get(name, (None, None))]
        cells = (None if value is None else Percent(value) for value in values)
        worst = one.worst_corruption.replace("_", " ")
        lines.append(TableRow((figure_label(row, rows), worst, *cells), row.run.name))
    reference = next((one.relative.reference for _, one in known if one.relative.reference), "")
    notes = [
        "All in %.",
        "The worst corruption is the lowest of 15 scores, so a part of that is chance.",
        f"mCE: errors in % of those of {reference}." if reference else "",
        "ECE: expected calibration error." if "ece" in pairs else "",
        (
            "Effective robustness: points above the score that the clean score predicts."
            if "Effective robustness" in relative
            else ""
        ),
    ]
    return Table.from_rows("Breakdown by model", columns, lines, [" ".join(filter(None, notes))])


def class_heat_map(rows: Sequence[Row], summary: Summary) -> Markup:
    """Render the drop of each model on each class, mean over corruptions and severities.

    The classes with the largest drop are a table. A script shows others from the numbers behind it.

    Returns:
        HTML; empty without per-class statistics.
    """
    known = {
        row.run.name: one.classes
        for row in rows
        if (one := breakdown_of(row, summary)) is not None and one.classes
    }
    shown = [row for row in rows if row.run.name in known]
    lost: dict[str, list[float]] = {}
    for classes in known.values():
        for name, pair in classes.items():
            drop = _drop(pair)
            if drop is not None:
                lost.setdefault(name, []).append(drop)
    names = sorted(lost, key=lambda name: -float(np.mean(lost[name])))
    if not names:
        return Markup()
    drops = [[_drop(known[row.run.name].get(name, (0.0, 0.0))) for name in names] for row in shown]
    order = "largest drop first"
    if len(names) > FIRST_CLASSES:
        order = f"the {FIRST_CLASSES} of {len(names)} classes with the largest drop"
    table = heat_table(
        f"Drop in % of each class's clean score, {order}: the extremes of many, so a part of the"
        " first ones' drop is chance.",
        [("", names[:FIRST_CLASSES])],
        shown,
        {"all corruptions": [line[:FIRST_CLASSES] for line in drops]},
    )
    if len(names) <= FIRST_CLASSES:
        return heat_map(table)
    percents = [[None if drop is None else round(100 * drop) for drop in line] for line in drops]
    numbers = Markup(safe_json({"names": names, "drops": percents}))
    return render_html("class_heat_map.html", table=table, numbers=numbers)


def size_heat_table(rows: Sequence[Row], summary: Summary) -> Table:
    """Tabulate the drop of each model on small, medium and large objects."""
    known = [
        (row, one.pairs)
        for row in rows
        if (one := breakdown_of(row, summary)) is not None and one.pairs
    ]
    drops = [[_drop(pairs.get(f"ap_{size}", (0.0, 0.0))) for size in SIZES] for _, pairs in known]
    if all(drop is None for line in drops for drop in line):
        known, drops = [], []
    title = "Drop in % of the clean AP, by size of object."
    return heat_table(title, [("", SIZES)], [row for row, _ in known], {"all corruptions": drops})


def breakdown_of(row: Row, summary: Summary) -> Breakdown | None:
    """Return the breakdown of a row, if the summary has it."""
    return summary.breakdowns.get((row.run.name, row.robustness.metric))


def _drop(pair: Pair) -> float | None:
    """``None`` for a class or size that is absent, or has a clean score of 0."""
    clean, corrupted = pair
    return 1 - corrupted / clean if clean > 0 and np.isfinite(corrupted) else None

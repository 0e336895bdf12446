"""What the one number of a row hides: calibration, sizes, classes, the worst corruption, and how it
stands against others.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

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
from stillrobust.report.blocks import sections
from stillrobust.report.rows import Against, Inside, Pair, Row, Summary
from stillrobust.report.tables import as_csv, percent
from stillrobust.storage.store import Store

KINDS = {"box_ap": "box_", "mask_ap": "mask_"}  # of a detector's numbers, by their beginnings


def with_inside(
    store: Store, summary: Summary, reference: str | None = None, standard: Sequence[str] = ()
) -> Summary:
    """The summary with :class:`Inside` of every row; ``reference`` and ``standard`` as for
    :func:`against_others`.
    """
    others = against_others(summary.rows, reference, standard)
    kept = {
        row.run.name: _kept(store, row)
        for row in {row.run.name: row for row in summary.rows}.values()
    }
    found = {}
    for row in summary.rows:
        key = row.run.name, row.robustness.metric
        pairs, classes = kept[row.run.name]
        start = KINDS.get(row.robustness.metric, "")
        own = {
            name.removeprefix(start): pair for name, pair in pairs.items() if name.startswith(start)
        }
        name, part = worst_corruption(row.robustness)
        found[key] = Inside(
            name, part.mpc, others[key], own, classes.get(row.robustness.metric, {})
        )
    return replace(summary, inside=found)


def against_others(
    rows: Sequence[Row], reference: str | None = None, standard: Sequence[str] = ()
) -> dict[tuple[str, str], Against]:
    """By run and metric: mCE against the run ``reference``, and effective robustness beside the
    runs ``standard``.

    Both in the table of the runs named alone, for another protocol is another measure. Without
    ``reference`` mCE is against AlexNet's published errors where they apply: top-1 on ImageNet at
    all severities. ``standard`` are models without a technique, at least two in a table. Raises
    ``UserError`` for a run that has no row, and for a single standard model.
    """
    known = {row.run.name: row for row in rows}
    for name in [*standard, *([reference] if reference else [])]:
        lookup("run with a row in the table", name, known)
    found = {}
    for section in sections(rows):
        other = next((row.robustness for row in section if row.run.name == reference), None)
        effective = _effective(section, standard)
        for row in section:
            errors = _errors(row, other) if other is not None or reference is None else None
            told = Against(effective=effective.get(row.run.name))
            if errors is not None:
                told = replace(
                    told,
                    mce=errors.mce,
                    relative_mce=errors.relative_mce,
                    reference=reference or ALEXNET.name,
                )
            found[row.run.name, row.robustness.metric] = told
    return found


def others_text(told: Against) -> list[str]:
    """For a terminal, in percent."""
    lines = []
    if told.mce is not None and told.relative_mce is not None:
        lines.append(
            f"mCE {percent(told.mce)}, relative mCE {percent(told.relative_mce)} ({told.reference}:"
            " 100)"
        )
    if told.effective is not None:
        lines.append(f"effective robustness {percent(told.effective)} points")
    return lines


def _errors(row: Row, other: Robustness | None) -> CorruptionErrors | None:
    if other is not None:
        return corruption_errors(row.robustness, as_reference(other))
    reference = published_reference(row.robustness, row.run.classes)
    return corruption_errors(row.robustness, reference) if reference else None


def _kept(store: Store, row: Row) -> tuple[dict[str, Pair], dict[str, dict[str, Pair]]]:
    levels = row.robustness.severities
    try:
        pairs = {
            line.name: (line.clean, line.corrupted)
            for line in breakdown(store, row.run.name, levels, 1)
        }
        by_metric = class_breakdown(store, row.run, levels)
    # statistics of an older make, or of a few cells alone: nothing to tell
    except (MissingCellsError, KeyError, IndexError):
        return {}, {}
    there = {
        metric: {name: pair for name, pair in one.items() if np.isfinite(pair[0])}
        for metric, one in by_metric.items()
    }
    return {name: pair for name, pair in pairs.items() if np.isfinite(pair).all()}, there


def _effective(section: Sequence[Row], standard: Sequence[str]) -> dict[str, float]:
    """By run; a score of 0 or 1 has no logit, and so nothing here.

    One standard model in a table is a mistake and said.
    """
    among = [row.robustness for row in section if row.run.name in standard]
    if not among:
        return {}
    found = {}
    for row in section:
        try:
            (found[row.run.name],) = effective_robustness([row.robustness], among)
        except UserError:
            if row.run.name in standard:
                raise
    return found


def details_csv(summary: Summary) -> str:
    """Everything of :class:`Inside`, a number a line: on the clean data and under corruption;
    fractions.
    """
    lines = []
    for row in summary.rows:
        told = summary.inside.get((row.run.name, row.robustness.metric))
        if told is None:
            continue
        about = [
            row.run.task,
            row.run.dataset,
            row.run.name,
            row.run.backbone,
            row.run.setting,
            row.robustness.metric,
        ]
        lines.append([*about, "worst_corruption", told.worst, row.robustness.clean, told.left])
        others = told.others
        for name, value in (("mce", others.mce), ("relative_mce", others.relative_mce)):
            lines += [[*about, name, others.reference, "", value]] if value is not None else []
        lines += (
            [[*about, "effective_robustness", "", "", others.effective]]
            if others.effective is not None
            else []
        )
        lines += [[*about, name, "", *pair] for name, pair in told.pairs.items()]
        lines += [[*about, "class", name, *pair] for name, pair in told.classes.items()]
    return as_csv(
        [
            "task",
            "dataset",
            "run",
            "model",
            "mode",
            "metric",
            "quantity",
            "of",
            "clean",
            "corrupted",
        ],
        lines,
    )

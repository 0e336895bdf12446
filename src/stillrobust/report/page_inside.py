"""What the one number hides, on the page: a table of it, and maps of what is lost by size of object
and by class.
"""

import json
from collections.abc import Sequence
from html import escape

import numpy as np

from stillrobust.report.figures import FRAME, label
from stillrobust.report.heat import heat_table
from stillrobust.report.page_table import heads
from stillrobust.report.rows import Inside, Pair, Row, Summary
from stillrobust.report.tables import percent

# classes shown at first, the most lost first: a page has no room for the thousand of ImageNet
COLUMNS = 20
SIZES = ("small", "medium", "large")  # of objects, in the order of COCO
PAIRS = {"ece": "ECE", "ap_small": "AP small", "ap_medium": "AP medium", "ap_large": "AP large"}


def hidden(rows: Sequence[Row], summary: Summary) -> str:
    """A line per model: the worst corruption, mCE, effective robustness, calibration and sizes,
    clean → corrupted.
    """
    told = {row.run.name: one for row in rows if (one := _inside(row, summary)) is not None}
    if not told:
        return ""
    every = list(told.values())
    columns = ["Model", "Worst corruption", "It leaves"]
    optional = {"mCE": "mce", "Relative mCE": "relative_mce", "Effective robustness": "effective"}
    there = {
        name: field
        for name, field in optional.items()
        if any(getattr(one.others, field) is not None for one in every)
    }
    pairs = [name for name in PAIRS if any(name in one.pairs for one in every)]
    columns += [
        *there,
        *(f"{PAIRS[name]} {when}" for name in pairs for when in ("clean", "corrupted")),
    ]
    lines = []
    for row in rows:
        if row.run.name not in told:
            continue
        one = told[row.run.name]
        texts = [label(row, rows), one.worst.replace("_", " "), percent(one.left)]
        texts += [_text(getattr(one.others, field)) for field in there.values()]
        texts += [_text(value) for name in pairs for value in one.pairs.get(name, (None, None))]
        cells = "".join(
            f"<td{'' if index == 1 else ' class=number'}"
            f' data-head="{columns[index]}">{escape(text)}</td>'
            for index, text in enumerate(texts)
            if index
        )
        lines.append(
            f'<tr data-run="{escape(row.run.name)}"><th'
            f' scope="row">{escape(texts[0])}</th>{cells}</tr>'
        )
    relative = next((one.others.reference for one in every if one.others.reference), "")
    notes = [
        f"mCE: errors in % of those of {relative}." if relative else "",
        "ECE: how far confidence and being right lie apart." if "ece" in pairs else "",
        (
            "Effective robustness: points above what the clean score lets expect."
            if "Effective robustness" in there
            else ""
        ),
    ]
    caption = escape(" ".join(filter(None, ["All in %.", *notes])))
    return (
        f'<div {FRAME} aria-label="What the one number hides"><table class="numbers sortable'
        f' cards"><caption>{caption}</caption>'
        "<thead><tr"
        f' class="heads">{heads(columns, range(2))}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def by_class(rows: Sequence[Row], summary: Summary) -> str:
    """Model × class, drops in % of the class's clean score, mean over corruptions and severities;
    empty without statistics.

    The classes that lose most are a table; a script shows the others from the numbers that follow
    it.
    """
    told = {
        row.run.name: one.classes
        for row in rows
        if (one := _inside(row, summary)) is not None and one.classes
    }
    shown = [row for row in rows if row.run.name in told]
    lost: dict[str, list[float]] = {}
    for classes in told.values():
        for name, pair in classes.items():
            drop = _drop(pair)
            if drop is not None:
                lost.setdefault(name, []).append(drop)
    names = sorted(lost, key=lambda name: -float(np.mean(lost[name])))
    if not names:
        return ""
    cells = [[_drop(told[row.run.name].get(name, (0.0, 0.0))) for name in names] for row in shown]
    some = [line[:COLUMNS] for line in cells]
    which = (
        f"the {COLUMNS} of {len(names)} classes that lose most"
        if len(names) > COLUMNS
        else "the class that loses most first"
    )
    table = heat_table(
        f"Drop in % of each class's clean score, {which}.",
        [("", names[:COLUMNS])],
        shown,
        {"all corruptions": some},
    )
    if len(names) <= COLUMNS:
        return table
    drops = [[None if drop is None else round(100 * drop) for drop in line] for line in cells]
    numbers = json.dumps(
        {"names": names, "drops": drops}, ensure_ascii=False, separators=(",", ":")
    ).replace("<", "\\u003c")
    return f'<div class="classes">{table}<script type="application/json">{numbers}</script></div>'


def by_size(rows: Sequence[Row], summary: Summary) -> str:
    """Model × size of object, as :func:`by_class`; empty where nothing is told by size."""
    told = [
        (row, one.pairs) for row in rows if (one := _inside(row, summary)) is not None and one.pairs
    ]
    cells = [[_drop(pairs.get(f"ap_{size}", (0.0, 0.0))) for size in SIZES] for _, pairs in told]
    if not any(drop is not None for line in cells for drop in line):
        return ""
    shown = [row for row, _ in told]
    return heat_table(
        "Drop in % of the clean AP, by size of object.",
        [("", SIZES)],
        shown,
        {"all corruptions": cells},
    )


def _inside(row: Row, summary: Summary) -> Inside | None:
    return summary.inside.get((row.run.name, row.robustness.metric))


def _drop(pair: Pair) -> float | None:
    """``None`` where there is nothing to lose: a class or size that is not there, or is never
    found.
    """
    clean, corrupted = pair
    return 1 - corrupted / clean if clean > 0 and np.isfinite(corrupted) else None


def _text(value: float | None) -> str:
    return "" if value is None else percent(value)

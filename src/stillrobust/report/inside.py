"""What is lost by class and by size of object, where the store's statistics tell it."""

from collections.abc import Sequence

import numpy as np

from stillrobust.breakdown import breakdown, class_breakdown
from stillrobust.errors import HoleError
from stillrobust.report.heat import heat_table
from stillrobust.report.summary import Row
from stillrobust.store import Store

COLUMNS = 20  # classes shown, the most lost first: a page has no room for the thousand of ImageNet
SIZES = ("small", "medium", "large")  # of objects, in the order of COCO


def by_class(store: Store, rows: Sequence[Row]) -> str:
    """Model × class, drops in % of the class's clean score, mean over corruptions and severities; empty without statistics."""
    told: dict[str, dict[str, tuple[float, float]]] = {}
    for row in rows:
        try:
            told[row.run.name] = class_breakdown(store, row.run, row.robustness.severities).get(row.robustness.metric, {})
        except (HoleError, KeyError):  # statistics of an older make, or of a few cells alone: nothing to tell
            told[row.run.name] = {}
    shown = [row for row in rows if told[row.run.name]]
    lost: dict[str, list[float]] = {}
    for row in shown:
        for name, scores in told[row.run.name].items():
            drop = _drop(*scores)
            if drop is not None:
                lost.setdefault(name, []).append(drop)
    names = sorted(lost, key=lambda name: -float(np.mean(lost[name])))[:COLUMNS]
    if not names:
        return ""
    cells = [[_drop(*told[row.run.name].get(name, (0.0, 0.0))) for name in names] for row in shown]
    which = f"the {COLUMNS} of {len(lost)} classes that lose most" if len(lost) > COLUMNS else "the class that loses most first"
    return heat_table(f"Drop in % of each class's clean score, {which}.", [("", names)], shown, {"all corruptions": cells})


def by_size(store: Store, rows: Sequence[Row]) -> str:
    """Model × size of object, as :func:`by_class`; empty where nothing is told by size."""
    kind = rows[0].robustness.metric
    wanted = [f"{kind}_{size}" for size in SIZES]
    if kind not in ("box_ap", "mask_ap"):
        return ""
    shown, cells = [], []
    for row in rows:
        try:
            lines = {line.name: line for line in breakdown(store, row.run.name, row.robustness.severities, 1)}
        except (HoleError, KeyError):
            continue
        if lines:
            shown.append(row)
            cells.append([_drop(lines[name].clean, lines[name].corrupted) if name in lines else None for name in wanted])
    if not any(drop is not None for line in cells for drop in line):
        return ""
    return heat_table("Drop in % of the clean AP, by size of object.", [("", SIZES)], shown, {"all corruptions": cells})


def _drop(clean: float, corrupted: float) -> float | None:
    """``None`` where there is nothing to lose: a class or size that is not there, or is never found."""
    return 1 - corrupted / clean if clean > 0 and np.isfinite(corrupted) else None

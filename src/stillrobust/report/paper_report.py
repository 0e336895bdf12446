"""The paper's tables and figures from a store, ours beside the printed values, and what becomes of
its claims.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stillrobust.errors import UserError
from stillrobust.paper import claims, printed, tables
from stillrobust.report.claims import Judgement, claims_json, claims_text, judge
from stillrobust.report.exhibits import Found, exhibits_of
from stillrobust.report.latex import interval_text, latex
from stillrobust.report.paper_figures import drawn
from stillrobust.report.tables import GROUP_ORDER, aligned, percent
from stillrobust.storage.files import write_whole
from stillrobust.storage.store import Store

MINIATURE = "in miniature: not the paper's models, data or training"


@dataclass(frozen=True)
class PaperReport:
    """What was written, and what it says."""

    files: tuple[Path, ...]
    side_by_side: str
    judgements: tuple[Judgement, ...]
    missing: tuple[str, ...]
    """Ids of the runs that are shown but not complete."""


def paper_report(
    store_root: Path | str,
    out_dir: Path | str,
    protocol: str | None = None,
    studies: Sequence[str] = (),
    replicates: int | None = None,
) -> PaperReport:
    """Write every exhibit (PDF, PNG, LaTeX for tables), ``side_by_side.txt`` and ``claims.json``
    into a folder.

    The numbers come from the store alone. ``studies`` and ``protocol`` are as for ``stillrobust
    study``. Exhibits of which no run is complete are left out. Raises ``UserError`` if none is
    left.
    """
    store, folder = Store(store_root), Path(out_dir)
    found = exhibits_of(store, protocol, studies, replicates)
    shown = [
        exhibit for exhibit in found.exhibits if any(panel.complete for panel in exhibit.panels)
    ]
    if not shown:
        raise UserError(
            f"Expected a store with at least one complete run in {store_root}, but there is none;"
            " run a study first"
        )
    note = _note(found)
    files: dict[Path, bytes] = {}
    for exhibit in shown:
        files |= {
            folder / f"{exhibit.name}.{kind}": content
            for kind, content in drawn(exhibit, note).items()
        }
        if exhibit.layout != "bars":
            files[folder / f"{exhibit.name}.tex"] = latex(exhibit, note).encode()
    beside = side_by_side(found)
    judgements = tuple(judge(claim, found.rows) for claim in claims()) if found.rows else ()
    if found.rows:
        text = (
            f"{beside}\n\n{claims_text(judgements)}\n" if beside else f"{claims_text(judgements)}\n"
        )
        files[folder / "side_by_side.txt"] = text.encode()
        files[folder / "claims.json"] = claims_json(judgements).encode()
    write_whole(files)
    return PaperReport(tuple(files), beside, judgements, found.missing)


def _note(found: Found) -> str:
    levels = ", ".join(map(str, found.severities))
    return "; ".join(
        filter(None, [f"Severity {levels}" if levels else "", MINIATURE if found.miniature else ""])
    )


def side_by_side(found: Found) -> str:
    """Each of the paper's tables with its printed numbers and, below each model's, ours with the
    interval of the mean drop.
    """
    parts = []
    for table in tables():
        ours = {run: found.rows.get((run, table.metric)) for run in table.rows}
        if not any(ours.values()):
            continue
        groups = table.name in ("Table 1", "Table 2")
        quantities = (
            [f"drop.{group}" for group in GROUP_ORDER] if groups else ["clean", "corrupted", "drop"]
        )
        lines = [
            [
                "",
                "",
                *(quantity.removeprefix("drop.") for quantity in quantities),
                *(["mean drop"] if groups else []),
            ]
        ]
        for run, values in table.rows.items():
            numbers = [f"{values[quantity]:.2f}" for quantity in quantities]
            numbers += [percent(printed()[run]["drop"], 2)] if groups else []
            lines.append([str(values["model"]), "printed", *numbers])
            row = ours[run]
            if row is None:
                lines.append(["", "ours", *["not measured"] * len(numbers)])
                continue
            mine = [percent(row.value(quantity), 2) for quantity in quantities]
            whole = interval_text(row.value("drop"), row.interval)
            lines.append(["", "ours", *([*mine, whole] if groups else [*mine[:-1], whole])])
        parts.append(f"{table.name} ({table.source}): {table.about}, %\n{aligned(lines, range(2))}")
    if parts and _note(found):
        parts.append(
            f"Ours: {_note(found).lower()}. [ ]: 95 % interval over images. The means of Tables 1"
            " and 2 follow from their groups."
        )
    return "\n\n".join(parts)

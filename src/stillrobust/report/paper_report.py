"""The paper's tables and figures from a store, compared with the printed values and claims."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stillrobust.analysis.intervals import LEVEL, REPLICATES
from stillrobust.errors import UserError
from stillrobust.paper import printed_tables, printed_values
from stillrobust.report.claims import ClaimVerdict, claims_json, claims_text, judge
from stillrobust.report.exhibit_figures import draw_exhibit
from stillrobust.report.paper_exhibits import (
    Exhibit,
    PaperExhibits,
    mean_drop_cell,
    panel_table,
    paper_exhibits,
    score_cell,
)
from stillrobust.report.renderers import to_latex, to_text
from stillrobust.report.results_table import DROPS
from stillrobust.report.table import Cell, Column, Percent, Table
from stillrobust.storage.files import write_whole
from stillrobust.storage.store import Store

MINIATURE = "in miniature: not the paper's models, data or training"


@dataclass(frozen=True)
class PaperReport:
    """The files that were written, and their content."""

    files: tuple[Path, ...]
    side_by_side: str
    verdicts: tuple[ClaimVerdict, ...]
    missing: tuple[str, ...]
    """Ids of incomplete runs in the exhibits."""


def write_paper_report(
    store_root: Path | str,
    out_dir: Path | str,
    protocol: str | None = None,
    studies: Sequence[str] = (),
    replicates: int = REPLICATES,
) -> PaperReport:
    """Write every exhibit (PDF, PNG, LaTeX for tables), ``side_by_side.txt`` and ``claims.json``.

    Exhibits without a complete run are left out.

    Args:
        store_root: Folder of the results store.
        out_dir: Folder to write to. Created if missing.
        protocol: As for ``stillrobust study``.
        studies: As for ``stillrobust study``.
        replicates: Number of bootstrap resamples.

    Returns:
        The files, the comparison with the printed values, and the verdicts on the claims.

    Raises:
        UserError: If the store has no run of the studies, or none is complete.
    """
    store, folder = Store(store_root), Path(out_dir)
    found = paper_exhibits(store, protocol, studies, replicates)
    shown = [
        exhibit for exhibit in found.exhibits if any(panel.complete for panel in exhibit.panels)
    ]
    if not shown:
        raise UserError(
            f"Expected a store with at least one complete run in {store_root}, but it has none;"
            " run a study first"
        )
    note = _note(found)
    files: dict[Path, bytes] = {}
    for exhibit in shown:
        files |= {
            folder / f"{exhibit.name}.{kind}": content
            for kind, content in draw_exhibit(exhibit, note).items()
        }
        if exhibit.layout != "bars":
            files[folder / f"{exhibit.name}.tex"] = exhibit_latex(exhibit, note).encode()
    comparison = side_by_side(found)
    verdicts = tuple(judge(claim, found.rows) for claim in found.claims)
    if comparison or verdicts:
        text = "\n\n".join(filter(None, [comparison, claims_text(verdicts)]))
        files[folder / "side_by_side.txt"] = f"{text}\n".encode()
        files[folder / "claims.json"] = claims_json(verdicts).encode()
    write_whole(files)
    return PaperReport(tuple(files), comparison, verdicts, found.missing)


def exhibit_latex(exhibit: Exhibit, note: str = "") -> str:
    """Render each panel of an exhibit as a ``table`` environment with a caption."""
    tables = []
    for panel in exhibit.panels:
        table = panel_table(panel, exhibit.layout)
        parts = [panel.title, exhibit.title, note, *(one.rstrip(".") for one in table.notes)]
        tables.append(to_latex(table, ". ".join(filter(None, parts)) + "."))
    return "\n".join(tables)


def _note(exhibits: PaperExhibits) -> str:
    levels = ", ".join(map(str, exhibits.severities))
    return "; ".join(
        filter(
            None, [f"Severity {levels}" if levels else "", MINIATURE if exhibits.miniature else ""]
        )
    )


def side_by_side(exhibits: PaperExhibits) -> str:
    """Render each of the paper's tables with its printed values and ours below them."""
    parts = []
    for table in printed_tables():
        ours = {run: exhibits.rows.get((run, table.metric)) for run in table.rows}
        if not any(ours.values()):
            continue
        is_grouped = table.name in ("Table 1", "Table 2")
        quantities = DROPS if is_grouped else ("clean", "corrupted", "drop")
        headings = [quantity.removeprefix("drop.") for quantity in quantities]
        if is_grouped:
            headings[-1] = "mean drop"
        lines: list[list[Cell]] = []
        for run, values in table.rows.items():
            printed = printed_values()[run]
            cells = [Percent(printed[quantity], digits=2) for quantity in quantities]
            lines.append([str(values["model"]), "printed", *cells])
            row = ours[run]
            if row is None:
                lines.append(["", "ours", *["not measured"] * len(quantities)])
                continue
            own = [score_cell(row, quantity) for quantity in quantities[:-1]]
            lines.append(["", "ours", *own, mean_drop_cell(row)])
        columns = [Column(heading="", is_text=True) for _ in range(2)]
        columns += [Column(heading=heading) for heading in headings]
        title = f"{table.name} ({table.source}): {table.about}, %"
        parts.append(to_text(Table.from_rows(title, columns, lines)))
    if parts and _note(exhibits):
        parts.append(
            f"Ours: {_note(exhibits).lower()}. [ ]: {LEVEL:.0%} interval over images. The means of"
            " Tables 1 and 2 follow from their groups."
        )
    return "\n\n".join(parts)

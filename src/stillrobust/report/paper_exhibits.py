"""The paper's tables and figures, filled with the rows of a store."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stillrobust.analysis.intervals import REPLICATES
from stillrobust.analysis.rounding import decimals
from stillrobust.errors import UserError
from stillrobust.paper import Claim, load_claims
from stillrobust.report.claims import Rows
from stillrobust.report.labels import metric_name
from stillrobust.report.results_table import ALIKE, DROPS, GROUP_ORDER
from stillrobust.report.rows import Row
from stillrobust.report.summary import summarize
from stillrobust.report.table import Cell, Column, Percent, Table
from stillrobust.storage.store import Store
from stillrobust.study import Selection, Study, select

PAPER = "paper"  # the study of all of the paper's runs, studies/paper.yaml
MISSING = "\N{EN DASH}"


@dataclass(frozen=True)
class ExhibitEntry:
    """One model of a panel."""

    label: str
    row: Row | None
    """``None`` if the run is incomplete."""
    run: str = ""
    """Id in the paper's studies."""


@dataclass(frozen=True)
class ExhibitPanel:
    """One table, or one part of a figure."""

    title: str
    metric: str
    entries: tuple[ExhibitEntry, ...]

    @property
    def complete(self) -> list[ExhibitEntry]:
        """The entries that have numbers."""
        return [entry for entry in self.entries if entry.row is not None]


@dataclass(frozen=True)
class Exhibit:
    """One of the tables or figures of a study, such as the paper's."""

    name: str
    title: str
    layout: str
    """``groups`` (Tables 1 and 2), ``before_after`` (Tables 4 and 5) or ``bars`` (the figures)."""
    bars: tuple[str, ...]
    panels: tuple[ExhibitPanel, ...]


@dataclass(frozen=True)
class PaperExhibits:
    """The exhibits of a store, and the rows behind them by (id of a run, metric)."""

    exhibits: tuple[Exhibit, ...]
    rows: Rows
    severities: tuple[int, ...]
    miniature: bool = False
    missing: tuple[str, ...] = field(default=())
    """Ids of incomplete runs in the exhibits."""
    claims: tuple[Claim, ...] = ()
    """Claims about the runs: the paper's, or those of the studies' own files."""


def paper_exhibits(
    store: Store,
    protocol: str | None = None,
    studies: Sequence[str] = (),
    replicates: int = REPLICATES,
) -> PaperExhibits:
    """Fill the paper's exhibits with the runs of a store.

    Args:
        store: The results store.
        protocol: As for ``stillrobust study``.
        studies: Names or files (default: the paper's).
        replicates: Number of bootstrap resamples.

    Returns:
        The exhibits. If the store has real and miniature results, only the real ones are used.

    Raises:
        UserError: If the store has no run of the studies.
    """
    names = {run.name for run in store.runs()}
    for miniature in (False, True):
        selection = select(studies, protocol, miniature)
        known = {run.name(selection.protocol): run.id for run in selection.runs}
        if names & known.keys():
            return _exhibits_of_selection(store, selection, replicates)
    raise UserError(
        f"Expected a run of the studies with tables and figures in {store.root}, but there is none;"
        " stillrobust report has tables and figures of all other runs without --paper"
    )


def _exhibits_of_selection(store: Store, selection: Selection, replicates: int) -> PaperExhibits:
    protocol = selection.protocol
    severities = tuple(protocol.severities)
    ids = {run.id: run.name(protocol) for runs in selection.runs_of for run in runs}
    models = {run.id: run.label for runs in selection.runs_of for run in runs}
    summary = summarize(store, replicates, set(ids.values()), severities)
    by_name = {(row.run.name, row.robustness.metric): row for row in summary.rows}
    rows = {
        (key, metric): row
        for key, name in ids.items()
        for (found, metric), row in by_name.items()
        if found == name
    }
    exhibits, missing = [], []
    for study in selection.studies:
        panels = []
        for panel in study.panels:
            entries = [
                ExhibitEntry(label or models[key], rows.get((key, panel.metric)), key)
                for key, label in panel.labels.items()
            ]
            missing += [entry.run for entry in entries if entry.row is None]
            panels.append(ExhibitPanel(panel.title, panel.metric, tuple(entries)))
        exhibits.append(
            Exhibit(study.name, study.title, study.layout, tuple(study.bars), tuple(panels))
        )
    return PaperExhibits(
        tuple(exhibits),
        rows,
        severities,
        selection.miniature,
        tuple(dict.fromkeys(missing)),
        tuple(_claims_of(selection.studies)),
    )


def _claims_of(studies: Iterable[Study]) -> Iterable[Claim]:
    """The claims of each study's file once; those of the paper, for the studies of its runs."""
    files = [
        Path(study.claims) if study.claims else None
        for study in studies
        if study.claims or PAPER in (study.name, Path(study.source or "").stem)
    ]
    for file in dict.fromkeys(files):
        yield from load_claims(file) if file else load_claims()


def panel_table(panel: ExhibitPanel, layout: str) -> Table:
    """Tabulate a panel; an incomplete run has dashes.

    Args:
        panel: Part of an exhibit.
        layout: ``groups`` (a model per row) or ``before_after`` (a model per column).
    """
    has_letters = any(entry.row and entry.row.alike for entry in panel.entries)
    notes = [ALIKE] if has_letters else []
    if layout == "before_after":
        return Table.from_rows(panel.title, *_before_after(panel, has_letters), notes)
    headings = [*(group.capitalize() for group in GROUP_ORDER), "Mean [95 %]"]
    headings += ["Alike"] if has_letters else []
    columns = [Column(heading="Method", is_text=True), *(Column(heading=one) for one in headings)]
    lines: list[list[Cell]] = []
    for entry in panel.entries:
        if entry.row is None:
            lines.append([entry.label, *[MISSING] * len(headings)])
            continue
        cells: list[Cell] = [score_cell(entry.row, drop) for drop in DROPS[:-1]]
        cells.append(mean_drop_cell(entry.row))
        lines.append([entry.label, *cells, *([entry.row.alike] if has_letters else [])])
    return Table.from_rows(panel.title, columns, lines, notes)


def _before_after(panel: ExhibitPanel, has_letters: bool) -> tuple[list[Column], list[list[Cell]]]:
    columns = [Column(heading="", is_text=True)]
    columns += [Column(heading=entry.label) for entry in panel.entries]
    lines: list[list[Cell]] = []
    for title, quantity in (("clean", "clean"), ("corrupted", "corrupted"), ("drop, %", "drop")):
        cells: list[Cell] = [
            MISSING
            if entry.row is None
            else mean_drop_cell(entry.row)
            if quantity == "drop"
            else score_cell(entry.row, quantity)
            for entry in panel.entries
        ]
        lines.append([f"{metric_name(panel.metric)} {title}", *cells])
    letters = [entry.row.alike if entry.row else "" for entry in panel.entries]
    return columns, [*lines, ["alike", *letters]] if has_letters else lines


def mean_drop_cell(row: Row) -> Percent:
    """The mean drop with its interval."""
    return Percent(row.value("drop"), row.interval)


def score_cell(row: Row, quantity: str) -> Percent:
    """A quantity as the paper prints it: without its interval, which gives the decimals."""
    return Percent(row.value(quantity), digits=decimals(row.interval_of(quantity)))

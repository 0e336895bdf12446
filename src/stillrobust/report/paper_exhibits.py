"""The paper's tables and figures, filled with the rows of a store.

A store of other runs gets exhibits of the same layouts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stillrobust.paper import Claim, load_claims
from stillrobust.report.claims import Rows
from stillrobust.report.labels import metric_name, model_name, task_name, transfer_name
from stillrobust.report.protocol_groups import protocol_difference, protocol_groups
from stillrobust.report.results_table import ALIKE, DROPS, GROUP_ORDER
from stillrobust.report.rows import Row, Summary
from stillrobust.report.seed_means import with_seed_means
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
    """One of the paper's tables or figures, or one like them."""

    name: str
    title: str
    layout: str
    """``groups`` (Tables 1 and 2), ``before_after`` (Tables 4 and 5) or ``bars`` (the figures)."""
    bars: tuple[str, ...]
    panels: tuple[ExhibitPanel, ...]


@dataclass(frozen=True)
class PaperExhibits:
    """The exhibits of a store, and the rows behind them."""

    exhibits: tuple[Exhibit, ...]
    rows: Rows
    summary: Summary
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
    replicates: int | None = None,
) -> PaperExhibits:
    """Fill the paper's exhibits with the runs of a store.

    Args:
        store: The results store.
        protocol: As for ``stillrobust study``.
        studies: Names or files (default: the paper's).
        replicates: Number of bootstrap resamples (default: that of :func:`summarize`).

    Returns:
        The exhibits. If the store has real and miniature results, only the real ones are used.
    """
    names = {run.name for run in store.runs()}
    for miniature in (False, True):
        selection = select(studies, protocol, miniature)
        known = {run.name(selection.protocol): run.id for run in selection.runs}
        if names & known.keys():
            return _exhibits_of_selection(store, selection, replicates)
    summary = _summarize(store, replicates)
    return PaperExhibits(tuple(_exhibits_of_rows(summary.rows)), {}, summary, ())


def _summarize(store: Store, replicates: int | None, **choice: object) -> Summary:
    return summarize(store, **choice, **({} if replicates is None else {"replicates": replicates}))  # type: ignore[arg-type]


def _exhibits_of_selection(
    store: Store, selection: Selection, replicates: int | None
) -> PaperExhibits:
    protocol = selection.protocol
    severities = tuple(protocol.severities)
    ids = {run.id: run.name(protocol) for runs in selection.runs_of for run in runs}
    models = {run.id: run.label for runs in selection.runs_of for run in runs}
    summary = _summarize(store, replicates, only=set(ids.values()), severities=severities)
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
        summary,
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


def _exhibits_of_rows(rows: Sequence[Row]) -> Iterable[Exhibit]:
    """A table by corruption group and a figure for each transfer in the store."""
    for transfer, name in {row.run.setting: transfer_name(row.run) for row in rows}.items():
        panels = tuple(
            _panel(group, rows)
            for group in protocol_groups([row for row in rows if row.run.setting == transfer])
        )
        yield Exhibit(
            f"table_{transfer}",
            f"Performance drop by corruption group, {name}",
            "groups",
            ("drop",),
            panels,
        )
        yield Exhibit(
            f"figure_{transfer}",
            f"Performance drop and clean score, {name}",
            "bars",
            ("drop", "clean"),
            panels,
        )


def _panel(group: Sequence[Row], rows: Sequence[Row]) -> ExhibitPanel:
    run, metric = group[0].run, group[0].robustness.metric
    difference = protocol_difference(group, rows)
    parts = [f"{task_name(run)} on {run.dataset}", metric_name(metric), difference]
    shown = with_seed_means(group)
    return ExhibitPanel(
        ", ".join(filter(None, parts)),
        metric,
        tuple(ExhibitEntry(model_name(row, shown), row) for row in shown),
    )


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
        cells: list[Cell] = [Percent(entry.row.value(drop), digits=2) for drop in DROPS[:-1]]
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
            else Percent(entry.row.value(quantity), digits=2)
            for entry in panel.entries
        ]
        lines.append([f"{metric_name(panel.metric)} {title}", *cells])
    letters = [entry.row.alike if entry.row else "" for entry in panel.entries]
    return columns, [*lines, ["alike", *letters]] if has_letters else lines


def mean_drop_cell(row: Row) -> Percent:
    """The mean drop as the paper prints drops, with its interval."""
    return Percent(row.value("drop"), row.interval, 2)

"""What the paper's tables and figures show, filled with the rows of a store: the studies' panels,
or any store's own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from stillrobust.report.blocks import apart, sections
from stillrobust.report.claims import Rows
from stillrobust.report.rows import Row, Summary
from stillrobust.report.seeds import with_seed_means
from stillrobust.report.summary import METRICS, MODES, TASKS, model_name, summarize
from stillrobust.storage.store import Store
from stillrobust.study import Selection, select


@dataclass(frozen=True)
class Entry:
    """One model of a panel."""

    label: str
    row: Row | None
    """None where the run is not complete."""
    run: str = ""
    """Its id in the paper's studies."""


@dataclass(frozen=True)
class Panel:
    """One table, or one part of a figure."""

    title: str
    metric: str
    entries: tuple[Entry, ...]

    @property
    def complete(self) -> list[Entry]:
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
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Found:
    """What a store has to say about the paper."""

    exhibits: tuple[Exhibit, ...]
    rows: Rows
    summary: Summary
    severities: tuple[int, ...]
    miniature: bool = False
    missing: tuple[str, ...] = field(default=())
    """Ids of runs that are shown but not complete."""


def exhibits_of(
    store: Store,
    protocol: str | None = None,
    studies: Sequence[str] = (),
    replicates: int | None = None,
) -> Found:
    """The paper's exhibits from the runs of ``store``; a store of other runs gets exhibits of the
    same layouts.

    ``studies`` are names or files; none means the paper's. A store holds real numbers or those of a
    miniature; real ones win.
    """
    names = {run.name for run in store.runs()}
    for miniature in (False, True):
        selection = select(studies, protocol, miniature)
        known = {run.name(selection.protocol): run.id for run in selection.runs}
        if names & known.keys():
            return _of_selection(store, selection, replicates)
    summary = _summarised(store, replicates)
    return Found(tuple(_of_any(summary.rows)), {}, summary, ())


def _summarised(store: Store, replicates: int | None, **choice: object) -> Summary:
    return summarize(store, **choice, **({} if replicates is None else {"replicates": replicates}))  # type: ignore[arg-type]


def _of_selection(store: Store, selection: Selection, replicates: int | None) -> Found:
    protocol = selection.protocol
    severities = tuple(protocol.severities)
    ids = {run.id: run.name(protocol) for runs in selection.runs_of for run in runs}
    models = {run.id: run.label for runs in selection.runs_of for run in runs}
    summary = _summarised(store, replicates, only=set(ids.values()), severities=severities)
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
                Entry(label or models[key], rows.get((key, panel.metric)), key)
                for key, label in panel.labels.items()
            ]
            missing += [entry.run for entry in entries if entry.row is None]
            panels.append(Panel(panel.title, panel.metric, tuple(entries)))
        exhibits.append(
            Exhibit(study.name, study.title, study.layout, tuple(study.bars), tuple(panels))
        )
    return Found(
        tuple(exhibits),
        rows,
        summary,
        severities,
        selection.miniature,
        tuple(dict.fromkeys(missing)),
    )


def _of_any(rows: Sequence[Row]) -> Iterable[Exhibit]:
    """A table by corruption group and a figure for each mode of transfer in the store."""
    for transfer in dict.fromkeys(row.run.setting for row in rows):
        mode = MODES.get(transfer, transfer)
        shown = tuple(
            _panel(some, rows)
            for some in sections([row for row in rows if row.run.setting == transfer])
        )
        yield Exhibit(
            f"table_{transfer}",
            f"Performance drop by corruption group, {mode}",
            "groups",
            ("drop",),
            shown,
        )
        yield Exhibit(
            f"figure_{transfer}",
            f"Performance drop and clean score, {mode}",
            "bars",
            ("drop", "clean"),
            shown,
        )


def _panel(some: Sequence[Row], rows: Sequence[Row]) -> Panel:
    run, metric = some[0].run, some[0].robustness.metric
    parts = [
        f"{TASKS.get(run.task, run.task)} on {run.dataset}",
        METRICS.get(metric, metric),
        apart(some, rows),
    ]
    shown = with_seed_means(some)
    return Panel(
        ", ".join(filter(None, parts)),
        metric,
        tuple(Entry(model_name(row, shown), row) for row in shown),
    )

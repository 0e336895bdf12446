"""What a selection of studies requires: trainings, evaluations and cells, finished and missing;
weights, data, GPU-hours, disk.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from stillrobust.data import parse_dataset_spec
from stillrobust.errors import UserError
from stillrobust.study import cost
from stillrobust.study.requirements import Requirement, required_data, required_weights
from stillrobust.study.runs import StudyRun
from stillrobust.study.schema import Study, StudyProtocol
from stillrobust.study.selection import Selection
from stillrobust.study.state import RunState, Site, run_states
from stillrobust.study.workload import evaluation_protocol, training_plan
from stillrobust.user_files import display_name


@dataclass(frozen=True)
class Counts:
    """Numbers of trainings, evaluations and cells, and how many are finished."""

    trainings: int
    trained: int
    evaluations: int
    """Upstream runs, which train nothing."""
    evaluated: int
    cells: int
    measured: int


@dataclass(frozen=True)
class StudyPart:
    """One study of a plan."""

    study: Study
    states: tuple[RunState, ...]
    counts: Counts


@dataclass(frozen=True)
class StudyPlan:
    """What a selection of studies requires. Shared runs count once in the totals."""

    selection: Selection
    site: Site
    studies: tuple[StudyPart, ...]
    states: tuple[RunState, ...]
    counts: Counts
    weights: tuple[Requirement, ...]
    data: tuple[Requirement, ...]
    faults: tuple[str, ...]
    """Runs that are wrong, each with the reason."""

    @property
    def missing(self) -> tuple[Requirement, ...]:
        """Weights and data that are not available."""
        return tuple(one for one in (*self.weights, *self.data) if not one.available)


def count_work(states: Iterable[RunState]) -> Counts:
    """Count trainings, evaluations and cells.

    Args:
        states: The states of runs.

    Returns:
        The counts. A training that two runs share counts once.
    """
    states = list(states)
    training = {state.run.folder: state.trained for state in states if state.trains}
    upstream = [state for state in states if not state.trains]
    return Counts(
        trainings=len(training),
        trained=sum(training.values()),
        evaluations=len(upstream),
        evaluated=sum(state.finished for state in upstream),
        cells=sum(state.cells for state in states),
        measured=sum(state.done for state in states),
    )


def plan_study(selection: Selection, site: Site) -> StudyPlan:
    """Look up what is finished and available. Nothing is loaded, downloaded or changed.

    Args:
        selection: The studies.
        site: Their folder and data.

    Returns:
        The plan.
    """
    parts = []
    for study, runs in zip(selection.studies, selection.runs_of, strict=True):
        found = tuple(run_states(runs, selection.protocol, site))
        parts.append(StudyPart(study, found, count_work(found)))
    every = tuple(run_states(selection.runs, selection.protocol, site))
    unfinished = [state.run for state in every if not state.finished]
    return StudyPlan(
        selection,
        site,
        tuple(parts),
        every,
        count_work(every),
        tuple(required_weights(unfinished)),
        tuple(required_data(unfinished, site)),
        tuple(_faults(selection.runs, selection.protocol, site)),
    )


def _faults(runs: Iterable[StudyRun], protocol: StudyProtocol, site: Site) -> Iterator[str]:
    for run in runs:
        try:
            training_plan(run, site)
            evaluation_protocol(run, protocol)
            for name in (run.data, run.test_data):
                parse_dataset_spec(site.data_of(run, name))
        except UserError as error:
            yield f"{run.id}: {error}"


def plan_text(plan: StudyPlan, runs: bool = False) -> str:
    """Format a plan for a terminal.

    Args:
        plan: The plan.
        runs: Whether to list every run.

    Returns:
        The text.
    """
    protocol, name = plan.selection.protocol, plan.selection.protocol_name
    severities = ", ".join(map(str, protocol.severities))
    cells = f"clean and {len(protocol.corruptions)} corruptions at severity {severities}"
    lines = [f"protocol {name}: {cells}" if name else f"protocol {cells}"]
    if plan.selection.miniature:
        lines.append(
            "in miniature: substitutes for data, weights and steps; its numbers are never mixed"
            " with real ones"
        )
    for part in plan.studies:
        lines.append(f"{part.study.name}: {_counts_text(part.counts)}  {part.study.title}")
        lines += [f"  {_run_text(state)}" for state in part.states] if runs else []
    if len(plan.studies) > 1:
        lines.append(f"all, shared runs once: {_counts_text(plan.counts)}")
    lines += ["", *_cost_lines(plan), "", *_requirement_lines("weights", plan.weights)]
    lines += _requirement_lines("data", plan.data)
    lines += (
        ["", f"wrong: {len(plan.faults)} runs", *(f"  {fault}" for fault in plan.faults)]
        if plan.faults
        else []
    )
    return "\n".join(lines)


def _counts_text(counts: Counts) -> str:
    parts = [f"{counts.trainings} trainings ({counts.trained} done)"]
    if counts.evaluations:
        parts.append(
            f"{counts.evaluations} evaluations of published weights ({counts.evaluated} done)"
        )
    parts.append(f"{counts.cells:,} cells ({counts.measured:,} done)")
    return ", ".join(parts)


def _run_text(state: RunState) -> str:
    run = state.run
    details = ", ".join(
        filter(
            None,
            [
                run.recipe,
                display_name(run.technique),
                run.method,
                *(f"{k} {v}" for k, v in run.changes.items() if k != "seed"),
            ],
        )
    )
    trained = (
        ""
        if not state.trains
        else "trained"
        if state.trained
        else f"step {state.step}"
        if state.step
        else "to train"
    )
    evaluated = f"{state.done} of {state.cells} cells"
    return (
        f"{run.id:<5} {run.backbone} on {run.data}, {run.setting} ({details}):"
        f" {', '.join(filter(None, [trained, evaluated]))}"
    )


def _cost_lines(plan: StudyPlan) -> list[str]:
    if plan.selection.miniature:
        return ["cost: about 25 s of one CPU core a run; disk: about 20 MB a run"]
    train = {
        state.run.folder: cost.training_hours(state.run)
        for state in plan.states
        if not state.trained
    }
    cells = [(state, cost.cell_hours(state.run)) for state in plan.states if not state.finished]
    known = [hours for hours in train.values() if hours is not None]
    evaluation = sum(
        (state.cells - state.done) * hours for state, hours in cells if hours is not None
    )
    unknown = len(train) - len(known) + sum(hours is None for _, hours in cells)
    training = sum(hours.value for hours in known)
    lines = [
        f"GPU-hours left, of one V100 (estimates): {training:,.0f} to train, {evaluation:,.0f} to"
        " evaluate" + (f"; {unknown} trainings or evaluations have no estimate" if unknown else "")
    ]
    lines += [
        f"  from {source}" for source in sorted({hours.source for hours in known if hours.value})
    ]
    return [*lines, _disk_line(plan)]


def _disk_line(plan: StudyPlan) -> str:
    weights = sum(
        filter(
            None, (cost.weights_gigabytes(state.run) for state in plan.states if not state.trained)
        )
    )
    store = (
        sum(
            (state.cells - state.done) * cost.CELL_MEGABYTES[state.run.task]
            for state in plan.states
        )
        / 1000
    )
    names = {one.name for one in plan.data if not one.available}
    data = sum(cost.DATA_GIGABYTES.get(name, 0) for name in names)
    return (
        f"disk left to fill: {weights:.1f} GB of models, {store:.1f} GB of results, {data:.1f} GB"
        " of data that is missing"
    )


def _requirement_lines(kind: str, requirements: Sequence[Requirement]) -> list[str]:
    if not requirements:
        return []
    problems = [one.problem for one in requirements if not one.available]
    available = len(requirements) - len(problems)
    return [
        f"{kind}: {available} of {len(requirements)} available",
        *(f"  {problem}" for problem in problems),
    ]

"""What a selection of studies needs: trainings, evaluations and passes, done and missing; weights,
data, GPU-hours, disk.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from stillrobust.data import parse_dataset_spec
from stillrobust.errors import UserError
from stillrobust.study import cost
from stillrobust.study.execute import plan_of, protocol_of
from stillrobust.study.needs import Need, data_needs, weight_needs
from stillrobust.study.schema import Circumstances, Study, StudyRun
from stillrobust.study.selection import Selection
from stillrobust.study.state import RunState, Site, states
from stillrobust.user_files import display_name


@dataclass(frozen=True)
class Counts:
    """How much there is of what, and how much of it is done."""

    trainings: int
    trained: int
    evaluations: int
    """Of published weights: runs that train nothing."""
    evaluated: int
    passes: int
    passed: int


@dataclass(frozen=True)
class StudyPlan:
    """What one study needs."""

    study: Study
    states: tuple[RunState, ...]
    counts: Counts


@dataclass(frozen=True)
class Plan:
    """What a selection needs; what studies share is there once in the sums."""

    selection: Selection
    site: Site
    studies: tuple[StudyPlan, ...]
    states: tuple[RunState, ...]
    counts: Counts
    weights: tuple[Need, ...]
    data: tuple[Need, ...]
    faults: tuple[str, ...]
    """What no weights and no data would mend: runs that cannot be, each with the reason."""

    @property
    def missing(self) -> tuple[Need, ...]:
        """Weights and data that are not there."""
        return tuple(need for need in (*self.weights, *self.data) if not need.there)


def counts_of(states: Iterable[RunState]) -> Counts:
    """Trainings, evaluations and passes of some runs; the same training for two evaluations counts
    once.
    """
    states = list(states)
    training = {state.run.folder: state.trained for state in states if state.trains}
    upstream = [state for state in states if not state.trains]
    return Counts(
        trainings=len(training),
        trained=sum(training.values()),
        evaluations=len(upstream),
        evaluated=sum(state.finished for state in upstream),
        passes=sum(state.cells for state in states),
        passed=sum(state.done for state in states),
    )


def plan(selection: Selection, site: Site) -> Plan:
    """Look at what is there; nothing is loaded, downloaded or changed."""
    parts = []
    for study, runs in zip(selection.studies, selection.runs_of, strict=True):
        found = tuple(states(runs, selection.asked, site))
        parts.append(StudyPlan(study, found, counts_of(found)))
    every = tuple(states(selection.runs, selection.asked, site))
    unfinished = [state.run for state in every if not state.finished]
    return Plan(
        selection,
        site,
        tuple(parts),
        every,
        counts_of(every),
        tuple(weight_needs(unfinished)),
        tuple(data_needs(unfinished, site)),
        tuple(_faults(selection.runs, selection.asked, site)),
    )


def _faults(runs: Iterable[StudyRun], asked: Circumstances, site: Site) -> Iterator[str]:
    for run in runs:
        try:
            plan_of(run, site)
            protocol_of(run, asked)
            for name in (run.data, run.test_data):
                parse_dataset_spec(site.data_of(run, name))
        except UserError as error:
            yield f"{run.id}: {error}"


# ---- as text
# --------------------------------------------------------------------------------------------------------------


def plan_text(plan: Plan, runs: bool = False) -> str:
    """The plan for a terminal; ``runs`` lists every run."""
    levels = ", ".join(map(str, plan.selection.asked.severities))
    name = f"{plan.selection.protocol}: " if plan.selection.protocol else ""
    lines = [
        f"protocol {name}clean and {len(plan.selection.asked.corruptions)} corruptions at severity"
        f" {levels}"
    ]
    if plan.selection.miniature:
        lines.append(
            "in miniature: stand-ins for data, weights and steps; its numbers are never mixed with"
            " real ones"
        )
    for part in plan.studies:
        lines.append(f"{part.study.name}: {_counted(part.counts)}  {part.study.title}")
        lines += [f"  {_run(state)}" for state in part.states] if runs else []
    if len(plan.studies) > 1:
        lines.append(f"all, what they share once: {_counted(plan.counts)}")
    lines += ["", *_costs(plan), "", *_needs("weights", plan.weights), *_needs("data", plan.data)]
    lines += (
        ["", f"wrong: {len(plan.faults)} runs", *(f"  {fault}" for fault in plan.faults)]
        if plan.faults
        else []
    )
    return "\n".join(lines)


def _counted(counts: Counts) -> str:
    parts = [f"{counts.trainings} trainings ({counts.trained} done)"]
    if counts.evaluations:
        parts.append(
            f"{counts.evaluations} evaluations of published weights ({counts.evaluated} done)"
        )
    parts.append(f"{counts.passes:,} passes ({counts.passed:,} done)")
    return ", ".join(parts)


def _run(state: RunState) -> str:
    run = state.run
    made = ", ".join(
        filter(
            None,
            [
                run.recipe,
                display_name(run.technique),
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
    evaluated = f"{state.done} of {state.cells} passes"
    return (
        f"{run.id:<5} {run.backbone} on {run.data}, {run.transfer} ({made}):"
        f" {', '.join(filter(None, [trained, evaluated]))}"
    )


def _costs(plan: Plan) -> list[str]:
    if plan.selection.miniature:
        return ["cost: about 25 s of one CPU core a run; disk: about 20 MB a run"]
    train = {
        state.run.folder: cost.training_hours(state.run)
        for state in plan.states
        if not state.trained
    }
    passes = [(state, cost.pass_hours(state.run)) for state in plan.states if not state.finished]
    known = [hours for hours in train.values() if hours is not None]
    evaluation = sum(
        (state.cells - state.done) * hours for state, hours in passes if hours is not None
    )
    unknown = len(train) - len(known) + sum(hours is None for _, hours in passes)
    training = sum(hours.value for hours in known)
    lines = [
        f"GPU-hours left, of one V100 (estimates): {training:,.0f} to train, {evaluation:,.0f} to"
        " evaluate" + (f"; {unknown} trainings or evaluations have no estimate" if unknown else "")
    ]
    lines += [
        f"  from {source}" for source in sorted({hours.source for hours in known if hours.value})
    ]
    return [*lines, _disk(plan)]


def _disk(plan: Plan) -> str:
    weights = sum(
        filter(
            None, (cost.weights_gigabytes(state.run) for state in plan.states if not state.trained)
        )
    )
    store = (
        sum(
            (state.cells - state.done) * cost.PASS_MEGABYTES[state.run.task]
            for state in plan.states
        )
        / 1000
    )
    names = {need.name for need in plan.data if not need.there}
    data = sum(cost.DATA_GIGABYTES.get(name, 0) for name in names)
    return (
        f"disk left to fill: {weights:.1f} GB of models, {store:.1f} GB of results, {data:.1f} GB"
        " of data that is missing"
    )


def _needs(kind: str, needs: Sequence[Need]) -> list[str]:
    if not needs:
        return []
    there = sum(need.there for need in needs)
    return [
        f"{kind}: {there} of {len(needs)} there",
        *(f"  {need.way}" for need in needs if not need.there),
    ]

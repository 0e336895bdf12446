"""A study done: its runs are checked, trained and evaluated as far as that is missing; what fails
stops nothing else.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stillrobust.backbones import resolve_backbone, weights_file
from stillrobust.corruptions import warm_up
from stillrobust.data import open_dataset
from stillrobust.data.generated.scene_files import SceneCounts, write_scenes
from stillrobust.data.generated.source_set import write_source_set
from stillrobust.data.shared import SharedImages
from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.evaluation import loop as evaluation
from stillrobust.execution import ENGINES, Failure, Job, run_jobs
from stillrobust.grid import CLEAN, Place
from stillrobust.names import lookup
from stillrobust.robustify import build_technique
from stillrobust.runtime import capacity
from stillrobust.runtime.forecast import NOT_BEGUN, Awaited
from stillrobust.runtime.run_log import failures_noted, note
from stillrobust.samples import Dataset
from stillrobust.storage.leases import sweep, write_alone
from stillrobust.study.cost import job_bytes
from stillrobust.study.needs import weight_needs
from stillrobust.study.schema import ROBUSTIFY, UPSTREAM, Circumstances, StudyRun
from stillrobust.study.selection import ASKED, Scenes, Selection, remember
from stillrobust.study.sharing import PROTOCOL, sharing
from stillrobust.study.state import FAILURES, RunState, Site, states
from stillrobust.study.upstream import standin_job
from stillrobust.tasks.recipes import recipe_of
from stillrobust.training import TRANSFERS, Plan, train
from stillrobust.training.launch import launched_processes
from stillrobust.training.run_files import read_description
from stillrobust.training.upstream_training import robustify
from stillrobust.user_files import shown

FIRST = ("make", "robustify", "evaluate", "train")
"""What is begun first where there is a choice: a model is evaluated before the next is trained, so
that numbers come early.
"""
BY_LENGTH = ("detection", "segmentation", "classification")

Listener = Callable[[str, int, int, str], None]
Expect = Callable[[Sequence[Awaited], int, int, int, int], None]
"""(jobs, runs, runs that are done, cells, cells that are done)."""
Progress = Callable[[int, int, str], None]


def plan_of(run: StudyRun, site: Site) -> Plan:
    """The training of a run.

    Raises ``UserError`` for a recipe, technique, transfer or setting that cannot be.
    """
    recipe = recipe_of(run.recipe or "small", **run.changes)
    lookup("transfer", run.transfer, TRANSFERS)
    if run.technique:
        build_technique(run.technique)
    plan = Plan(run.task, site.backbone_of(run), run.transfer, recipe, run.settings, run.technique)  # type: ignore[arg-type]
    plan.make_task()
    return plan


def protocol_of(run: StudyRun, asked: Circumstances) -> Protocol:
    """How a run is evaluated."""
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in asked
    }
    return Protocol(**values, images=run.images, scale=run.scale)


# ---- jobs: plain functions of plain values, so that any process can run them
# ---------------------------------------------


def train_job(
    plan: Plan, data: str, folder: Path, start: str, log: Path, progress: Progress
) -> None:
    """Train one run; an upstream one only takes down the classes of the data it is for.

    Of one that makes a backbone, the folder is then a checkpoint too. ``start``: what
    :func:`_start` said of its weights.
    """
    split = "val" if plan.transfer == UPSTREAM else "train"
    work = robustify if plan.transfer == ROBUSTIFY else train
    with failures_noted(log, "training"):
        _require_there(log)
        if start and resolve_backbone(plan.backbone).digest != start:
            raise UserError(
                f"The weights of {plan.backbone} changed while the study ran; put them back, "
                "or start the study again to begin from the new ones"
            )
        work(plan, open_dataset(data, split, training=split == "train"), folder, progress, log)


def evaluate_job(
    folder: Path,
    data: str,
    results: Path,
    protocol: Protocol,
    run: str,
    log: Path,
    progress: Progress,
) -> None:
    """Evaluate some cells of one run."""
    with failures_noted(
        log, f"evaluation on {' and '.join(map(shown, protocol.corruptions)) or 'clean images'}"
    ):
        _require_there(log)
        evaluate(folder, _test_data(data), results, protocol, run, progress, log)


def _require_there(log: Path) -> None:
    """The study's folder may be a network's and be gone: nothing is begun in its place."""
    if not (log.parent.parent / ASKED).is_file():
        raise UserError(
            f"Cannot reach {log.parent.parent} any more; what was finished is kept: start again"
            " when it is there"
        )


@lru_cache(maxsize=4)
def _test_data(data: str) -> Dataset:
    """A process evaluates many cells of one set; reading its annotations takes seconds at the size
    of COCO.
    """
    return open_dataset(data, "val")


# ---- what is to be done
# ---------------------------------------------------------------------------------------------------


def missing_cells(run: StudyRun, asked: Circumstances, site: Site) -> list[Place]:
    """The cells of a run that are not there, or were measured on other weights, data or
    circumstances.
    """
    protocol = protocol_of(run, asked)
    description = read_description(site.weights(run))
    if description is None:
        return protocol.cells()
    data = _test_data(site.data_of(run, run.test_data))
    return evaluation.missing_cells(
        data, site.results, protocol, run.name(asked), description["sha256"]
    )


def jobs_of(
    runs: Iterable[StudyRun], asked: Circumstances, site: Site
) -> tuple[list[Job], list[Failure]]:
    """The jobs that are missing, seed by seed, in the order of :data:`FIRST` and the longest tasks
    first; and what cannot begin.

    Raises ``UserError`` for what is wrong in the study itself. Weights or data that are not there
    keep only the runs back that need them.
    """
    plans = [
        (run, plan_of(run, site), site.data_of(run, run.data), site.data_of(run, run.test_data))
        for run in runs
    ]
    jobs: dict[str, Job] = {}
    turns: dict[str, int] = {}
    refused: list[Failure] = []
    for run, plan, data, test_data in sorted(
        plans, key=lambda one: (one[0].made_by != "", BY_LENGTH.index(one[0].task))
    ):
        try:
            start = _start(run, plan, site)
            places = (
                protocol_of(run, asked).cells()
                if _began_elsewhere(run, start, site)
                else missing_cells(run, asked, site)
            )
            if places or (
                run.transfer == ROBUSTIFY and not site.checkpoint_of(run.folder).is_file()
            ):
                _require(run, data, test_data)
                first = [*_standin(run, site), *_maker(run, jobs, site)]
                training = Job(
                    _training(run),
                    train_job,
                    (plan, data, site.weights(run), start, site.log(run.folder)),
                    tuple(job.name for job in first),
                    memory=job_bytes(plan),
                    devices=plan.recipe.devices if plan.transfer != UPSTREAM else 1,
                )
                found = [*first, training, *_evaluations(run, plan, test_data, places, asked, site)]
                jobs |= {job.name: job for job in found}
                for job in found:
                    turns[job.name] = min(
                        run.changes["seed"], turns.get(job.name, run.changes["seed"])
                    )
        except UserError as error:
            refused.append(Failure(f"{run.id}, {run.folder}", str(error)))
    return (
        sorted(jobs.values(), key=lambda job: (turns[job.name], FIRST.index(job.name.split()[0]))),
        refused,
    )


def _standin(run: StudyRun, site: Site) -> list[Job]:
    """The job that makes the weights of a run in miniature, where they are not there."""
    made = site.standin_of(run)
    if made is None or made.is_file():
        return []
    return [Job(f"make {made.stem}", standin_job, (made, site.scenes_of("classification")))]


def _maker(run: StudyRun, jobs: Mapping[str, Job], site: Site) -> list[Job]:
    """The job that makes a run's backbone, where that is still to do."""
    maker = jobs.get(f"{ROBUSTIFY} {run.made_by}")
    if run.made_by and maker is None and not site.checkpoint_of(run.made_by).is_file():
        raise UserError(
            f"The backbone of {run.id} cannot be made; see above why {run.made_by} does not begin"
        )
    return [maker] if maker else []


def _start(run: StudyRun, plan: Plan, site: Site) -> str:
    """The digest of a run's upstream weights, so that all runs of a study begin from the same;
    empty where it makes them.
    """
    file = None if run.made_by or site.standin_of(run) else weights_file(plan.backbone)
    return resolve_backbone(plan.backbone).digest if file and file.is_file() else ""


def _began_elsewhere(run: StudyRun, start: str, site: Site) -> bool:
    """Whether a finished run began from other weights than lie in their place now: its numbers are
    not this study's.
    """
    description = read_description(site.weights(run)) if start else None
    return description is not None and description["identity"]["upstream_weights"] != start


def _training(run: StudyRun) -> str:
    """The name of a run's training; one that is finished sees so by itself."""
    return f"{ROBUSTIFY if run.transfer == ROBUSTIFY else 'train'} {run.folder}"


def _evaluations(
    run: StudyRun, plan: Plan, data: str, places: list[Place], asked: Circumstances, site: Site
) -> list[Job]:
    """A job for each corruption: its images are decoded once for all severities, and the model
    stays where it is loaded.
    """
    name, every, jobs = run.name(asked), protocol_of(run, asked), []
    for corruption in dict.fromkeys(place[0] for place in places):
        clean = corruption == CLEAN[0]
        levels = tuple(severity for other, severity in places if other == corruption)
        part = replace(
            every,
            clean=clean,
            corruptions=() if clean else (corruption,),
            severities=() if clean else levels,
        )
        arguments = (site.weights(run), data, site.results, part, name, site.log(run.folder))
        about: dict[str, Any] = {"warm": run.folder, "memory": job_bytes(plan, part.batch_size)}
        jobs.append(
            Job(
                f"evaluate {name} {shown(corruption)}",
                evaluate_job,
                arguments,
                after=(_training(run),),
                **about,
            )
        )
    return jobs


def _require(run: StudyRun, data: str, test_data: str) -> None:
    """Look for what a run needs before anything is trained: weights, a wrong root or half a
    download are told at once.
    """
    lacking = [need.way for need in weight_needs([run]) if not need.there]
    if lacking:
        raise UserError(lacking[0])
    for spec, split in ((data, "train"), (test_data, "val")):
        if split == "train" and run.transfer == UPSTREAM:
            continue
        task, _ = _opened(spec, split)
        if task != run.task:
            raise UserError(
                f"Run {run.id} is {run.task}, but {spec} is data for {task}; name other data"
            )


@lru_cache(maxsize=32)
def _opened(spec: str, split: str) -> tuple[str, int]:
    """The task and the number of images of a data set; a study has few of them and asks often."""
    dataset = open_dataset(spec, split, training=split == "train")
    return dataset.info.task, len(dataset)


def run_study(
    selection: Selection,
    site: Site,
    workers: int,
    say: Callable[[str], None] = lambda text: None,
    listen: Listener = lambda name, done, total, text: None,
    expect: Expect = lambda jobs, runs, runs_done, cells, cells_done: None,
    share: int = 0,
    engine: str = "local",
    options: Mapping[str, Any] = MappingProxyType({}),
) -> list[Failure]:
    """Do what is missing of the selected runs; returns what failed, which is also kept for
    ``status``.

    A run that is done is left alone, and a failing one does not stop the others. ``expect`` hears
    once of all that is to do. With ``share``, corrupted images are kept for the next model, in at
    most so many bytes. ``workers``, ``engine`` and its ``options`` are :func:`run_jobs`'s.
    """
    own: dict[str, dict[str, Any]] = {
        "local": {"gpus": capacity.gpus()},
        "slurm": {"folder": site.out / "slurm"},
    }
    settings = {**own.get(engine, {}), **options}
    # what it lacks is said before anything is drawn
    lookup("engine", engine, ENGINES)(workers, 1, 0, **settings)
    if launched_processes() not in (None, (1, 1)):
        raise UserError(
            "A study starts its own processes: run it once, without torchrun or srun; --engine"
            " slurm asks Slurm for more"
        )
    runs, asked = selection.runs, selection.asked
    remember(selection, site.out)
    _draw(
        {data for run in runs for data in (run.data, run.test_data)},
        selection.scenes,
        site.out / "data",
        say,
        listen,
    )
    jobs, failures = jobs_of(runs, asked, site)
    if share:
        jobs = sharing(jobs, evaluate_job, SharedImages(site.out / "corrupted", share))
    expect(*_expected(jobs, states(runs, asked, site)))
    if jobs:
        say("corruption kernels: compiling them where this machine has not yet")
        warm_up()
        failures += run_jobs(jobs, workers, listen, keep_going=True, engine=engine, **settings)
    _keep(failures, jobs, site)
    folders = (
        site.out.glob(pattern) for pattern in ("*", "runs/*", "results/*", "results/cells/*")
    )
    for folder in chain([site.out], *folders):
        sweep(folder)  # of what processes held until they were killed, at work that is done by now
    return failures


def _expected(
    jobs: Iterable[Job], found: Sequence[RunState]
) -> tuple[list[Awaited], int, int, int, int]:
    """What :meth:`Work.expect` takes."""
    kinds = {state.name: state.run.task for state in found} | {
        state.run.folder: state.run.task for state in found
    }
    awaited, missing = [], dict[str, int]()
    for job in jobs:
        work, name = job.name.split()[:2]
        cells = len(job.arguments[PROTOCOL].cells()) if work == "evaluate" else 0
        missing[name] = missing.get(name, 0) + cells
        kind = f"{work} {kinds.get(name, '')}"
        awaited.append(
            Awaited(job.name, kind, name if work == "evaluate" else "", cells, _size(job, cells))
        )
    done = sum(
        state.cells - missing[state.name] if missing.get(state.name) else state.done
        for state in found
    )
    finished = sum(state.finished and not missing.get(state.name) for state in found)
    return awaited, len(found), finished, sum(state.cells for state in found), done


def _size(job: Job, cells: int) -> float:
    """Passes of an image through a model: one to evaluate it, three to train on it, since backwards
    is twice forwards.
    """
    if cells:
        _, data, _, protocol, *_ = job.arguments
        images = _opened(data, "val")[1]
        return cells * min(images, protocol.images or images)
    plan, data, *_ = job.arguments
    if not isinstance(plan, Plan) or plan.transfer == UPSTREAM:  # stand-ins, which are small
        return 1.0
    return 3.0 * plan.recipe.batch_size * plan.recipe.total_steps(_opened(data, "train")[1])


def _draw(
    data: Collection[str], scenes: Scenes, root: Path, say: Callable[[str], None], listen: Listener
) -> None:
    """Draw what of ``data`` is generated, where it is not there."""
    sizes: dict[str, Any] = dict(scenes.sizes)
    counts: dict[str, Any] = dict(scenes.source)
    if "scenes" in data:
        say("generated scenes: drawing them, or reading those that are there")
        told = partial(_drawn, listen, "scenes")
        write_scenes(
            root, seed=scenes.seed, counts=SceneCounts(**scenes.counts), progress=told, **sizes
        )
    if "source" in data:
        say("the source set: drawing it, or reading the one that is there")
        write_source_set(
            root / "source", seed=scenes.seed, progress=partial(_drawn, listen, "images"), **counts
        )


def _drawn(listen: Listener, what: str, done: int, total: int) -> None:
    listen("data", done, total, what)


def _keep(failures: list[Failure], jobs: Iterable[Job], site: Site) -> None:
    """Put down what failed: for ``status``, and in the logs of the runs, where a process that was
    ended could not.

    Stack traces are in the runs' logs already; those of jobs that are for no single run go to
    ``study.log``. Nothing failed, nothing is kept.
    """
    logs = {
        job.name: job.arguments[-1] for job in jobs if job.function in (train_job, evaluate_job)
    }
    for failure in failures:
        if failure.reason.startswith(NOT_BEGUN):
            continue
        own = logs.get(failure.job)
        note(
            own or site.log("study"),
            f"{failure.job} failed: {failure.reason}" + ("" if own else f"\n{failure.details}"),
        )
    if failures and (site.out / ASKED).is_file():
        listed = [{"job": failure.job, "reason": failure.reason} for failure in failures]
        write_alone(
            site.out / FAILURES, (json.dumps(listed, indent=1, ensure_ascii=False) + "\n").encode()
        )
    elif not failures:
        (site.out / FAILURES).unlink(missing_ok=True)

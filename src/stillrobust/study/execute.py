"""Run a study: finished work is skipped, and a failure does not stop the other runs."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stillrobust.corruptions.compilation import uncompiled, warm_up
from stillrobust.data.generated.scene_files import SceneCounts, write_scenes
from stillrobust.data.generated.source_set import write_source_set
from stillrobust.errors import UserError
from stillrobust.execution import (
    ENGINES,
    Failure,
    Job,
    JobEndCallback,
    JobProgressCallback,
    run_jobs,
)
from stillrobust.names import format_count, lookup
from stillrobust.runtime import capacity
from stillrobust.runtime.forecast import NOT_STARTED, PlannedJob
from stillrobust.runtime.run_log import note
from stillrobust.storage.files import output_folder
from stillrobust.storage.leases import remove_dead_leases, write_under_lease
from stillrobust.study.jobs import EvaluateJob, MakeBackboneJob, TrainJob
from stillrobust.study.schema import StudyProtocol
from stillrobust.study.selection import (
    SELECTION_FILE,
    GeneratedData,
    Selection,
    save_selection,
)
from stillrobust.study.state import FAILURES, RunState, Site, run_states
from stillrobust.study.workload import missing_jobs, task_and_size
from stillrobust.training.launch import launched_processes

WorkloadCallback = Callable[[Sequence[PlannedJob], int, int, int, int], None]
"""``on_workload(jobs, runs, finished_runs, cells, finished_cells)``."""


def run_study(
    selection: Selection,
    site: Site,
    workers: int,
    message: Callable[[str], None] = lambda text: None,
    progress: JobProgressCallback = lambda name, done, total, text: None,
    on_end: JobEndCallback = lambda name, reason: None,
    on_workload: WorkloadCallback = lambda jobs, runs, runs_done, cells, cells_done: None,
    shared_bytes: int = 0,
    engine: str = "local",
    options: Mapping[str, Any] = MappingProxyType({}),
) -> list[Failure]:
    """Run what is missing of a selection of studies.

    Args:
        selection: The studies.
        site: Their folder and data.
        workers: The highest number of workers; 0 for as many as there is room for.
        message: Called with a line for the user.
        progress: Called with the progress of each job.
        on_end: Called when a job has ended.
        on_workload: Called once with all jobs, before the first one starts.
        shared_bytes: Size of a folder in which corrupted images are kept for the next model; 0 for
            none.
        engine: A name of ``execution.ENGINES``.
        options: Options of the engine.

    Returns:
        The failures, which ``study status`` also shows.

    Raises:
        UserError: If the study or an option is wrong.
    """
    defaults: dict[str, dict[str, Any]] = {
        "local": {"gpus": capacity.gpus()},
        "slurm": {"folder": site.out / "slurm"},
    }
    settings = {**defaults.get(engine, {}), **options}
    # check the engine's requirements before data is generated
    lookup("engine", engine, ENGINES)(workers, 1, 0, **settings)
    if launched_processes() not in (None, (1, 1)):
        raise UserError(
            "A study starts its own processes: run it once, without torchrun or srun; --engine"
            " slurm asks Slurm for more"
        )
    with output_folder(site.out):
        runs, protocol = selection.runs, selection.protocol
        save_selection(selection, site.out)
        data = {name for run in runs for name in (run.data, run.test_data)}
        _generate_data(data, selection.generated, site.out / "data", message, progress)
        jobs, failures = missing_jobs(runs, protocol, site)
        if shared_bytes:
            jobs = share_corrupted_images(jobs, site.out / "corrupted", shared_bytes)
        on_workload(*_workload(jobs, run_states(runs, protocol, site)))
        if jobs:
            _compile_kernels(protocol, message, progress)
            failures += run_jobs(
                jobs, workers, progress, on_end, keep_going=True, engine=engine, **settings
            )
        _record_failures(failures, jobs, site)
        patterns = ("*", "runs/*", "results/*", "results/cells/*")
        for folder in chain([site.out], *(site.out.glob(pattern) for pattern in patterns)):
            remove_dead_leases(folder)  # leases of killed processes whose work is finished by now
        return failures


def _compile_kernels(
    protocol: StudyProtocol, message: Callable[[str], None], progress: JobProgressCallback
) -> None:
    """Compile what the study's corruptions need, so that no worker waits for it later."""
    if missing := uncompiled(protocol.corruptions, protocol.draws):
        message(
            f"compiling the kernels of {format_count(len(missing), 'corruption')}, once on this"
            " machine (about 20 s on one core)"
        )
        warm_up(protocol.corruptions, protocol.draws, partial(progress, "kernels"))


def share_corrupted_images(jobs: Sequence[Job], folder: Path, limit: int) -> list[Job]:
    """Let evaluations keep corrupted images for each other.

    Evaluations are sorted by dataset and corruption: models are then evaluated on the same images
    at about the same time, and a folder smaller than all corrupted images still helps.

    Args:
        jobs: Jobs of a study.
        folder: Where images are kept.
        limit: Largest size of the folder in bytes.

    Returns:
        The jobs. Only evaluations have changed places, with each other.
    """
    evaluations = iter(
        sorted(
            (
                replace(job, shared_images=folder, shared_bytes=limit)
                for job in jobs
                if isinstance(job, EvaluateJob)
            ),
            key=lambda job: (job.data, job.protocol.corruptions),
        )
    )
    return [next(evaluations) if isinstance(job, EvaluateJob) else job for job in jobs]


def _workload(
    jobs: Sequence[Job], states: Sequence[RunState]
) -> tuple[list[PlannedJob], int, int, int, int]:
    """The arguments of a :data:`WorkloadCallback`."""
    tasks = {state.name: state.run.task for state in states} | {
        state.run.folder: state.run.task for state in states
    }
    listed, missing = [], dict[str, int]()
    for job in jobs:
        cells, run, kind = 0, "", "make"
        if isinstance(job, EvaluateJob):
            cells, run = len(job.protocol.cells()), job.run_name
            missing[run] = missing.get(run, 0) + cells
            kind = f"evaluate {tasks[run]}"
        elif isinstance(job, TrainJob):
            work = "robustify" if isinstance(job, MakeBackboneJob) else "train"
            kind = f"{work} {job.plan.task}"
        listed.append(PlannedJob(job.name, kind, run, cells, _size(job)))
    done = sum(
        state.cells - missing[state.name] if missing.get(state.name) else state.done
        for state in states
    )
    finished = sum(state.finished and not missing.get(state.name) for state in states)
    return listed, len(states), finished, sum(state.cells for state in states), done


def _size(job: Job) -> float:
    """The work of a job in passes of an image through a model.

    An evaluation takes one for each image; training takes three, because the backward pass is
    twice as long as the forward pass.
    """
    if isinstance(job, EvaluateJob):
        _, images = task_and_size(job.data, "val")
        return len(job.protocol.cells()) * min(images, job.protocol.images or images)
    if isinstance(job, TrainJob) and job.plan.kind != "upstream":
        recipe, (_, images) = job.plan.recipe, task_and_size(job.data, "train")
        return 3.0 * recipe.batch_size * recipe.total_steps(images)
    return 1.0


def _generate_data(
    names: Collection[str],
    generated: GeneratedData,
    root: Path,
    message: Callable[[str], None],
    progress: JobProgressCallback,
) -> None:
    """Write the generated datasets among ``names``; existing ones are kept."""

    def report(unit: str, done: int, total: int) -> None:
        progress("data", done, total, unit)

    sizes: dict[str, Any] = dict(generated.sizes)
    counts: dict[str, Any] = dict(generated.source)
    if "scenes" in names:
        message("generating scenes, or reading existing ones")
        write_scenes(
            root,
            seed=generated.seed,
            counts=SceneCounts(**generated.counts),
            progress=partial(report, "scenes"),
            **sizes,
        )
    if "source" in names:
        message("generating the source set, or reading the existing one")
        write_source_set(
            root / "source", seed=generated.seed, progress=partial(report, "images"), **counts
        )


def _record_failures(failures: list[Failure], jobs: Sequence[Job], site: Site) -> None:
    """Write failures for ``study status``, and into the logs.

    The log of a run already has the stack trace, unless its process was ended. Jobs of no single
    run have their stack trace in ``study.log``.
    """
    logs = {job.name: job.log for job in jobs if isinstance(job, TrainJob | EvaluateJob)}
    for failure in failures:
        if failure.reason.startswith(NOT_STARTED):
            continue
        log = logs.get(failure.job)
        text = f"{failure.job} failed: {failure.reason}"
        note(log or site.log("study"), text if log else f"{text}\n{failure.details}")
    if failures and (site.out / SELECTION_FILE).is_file():
        content = [{"job": failure.job, "reason": failure.reason} for failure in failures]
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        write_under_lease(site.out / FAILURES, text.encode())
    elif not failures:
        (site.out / FAILURES).unlink(missing_ok=True)

"""What a study still has to do: the missing cells of its runs, and jobs for them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from stillrobust.backbones import resolve_backbone, weights_file
from stillrobust.data import open_dataset
from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, cells_to_evaluate
from stillrobust.execution import Failure, Job
from stillrobust.grid import CLEAN, Place
from stillrobust.names import lookup
from stillrobust.robustify import build_technique
from stillrobust.study.cost import job_bytes
from stillrobust.study.jobs import (
    EvaluateJob,
    MakeBackboneJob,
    MakeCheckpointJob,
    TrainJob,
    open_test_data,
)
from stillrobust.study.requirements import required_weights
from stillrobust.study.runs import StudyRun
from stillrobust.study.schema import StudyProtocol
from stillrobust.study.state import Site
from stillrobust.tasks.recipes import recipe_of
from stillrobust.training import TRANSFERS, Plan
from stillrobust.training.run_files import read_description
from stillrobust.user_files import display_name

PRIORITY = (MakeCheckpointJob, MakeBackboneJob, EvaluateJob, TrainJob)
"""A model is evaluated before the next one is trained, so that the first numbers come early."""


def training_plan(run: StudyRun, site: Site) -> Plan:
    """Return the training of a run.

    Args:
        run: The run.
        site: The folder of the study.

    Returns:
        The plan.

    Raises:
        UserError: If the recipe, technique, method, transfer or a setting is wrong.
    """
    recipe = recipe_of(run.recipe or "small", **run.changes)
    if run.transfer is not None:
        lookup("transfer", run.transfer, TRANSFERS)
    if run.technique:
        build_technique(run.technique)
    backbone = site.backbone_of(run)
    plan = Plan(
        run.task,
        backbone,
        run.transfer,
        recipe,
        run.settings,
        run.technique,
        run.method,
        run.kind,
    )
    plan.make_methods()
    plan.make_task()
    return plan


def evaluation_protocol(run: StudyRun, protocol: StudyProtocol) -> Protocol:
    """Return how a run is evaluated.

    Args:
        run: The run.
        protocol: The protocol of the study.

    Returns:
        The protocol with the run's number of images and scale.

    Raises:
        UserError: If a value is wrong.
    """
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in protocol
    }
    return Protocol(**values, images=run.images, scale=run.scale)


def missing_cells(run: StudyRun, protocol: StudyProtocol, site: Site) -> list[Place]:
    """Return the cells of a run that are not measured yet.

    Args:
        run: The run.
        protocol: The protocol of the study.
        site: The folder of the study.

    Returns:
        The cells, including those that were measured with other weights, data or settings.
    """
    full = evaluation_protocol(run, protocol)
    description = read_description(site.weights(run))
    if description is None:
        return full.cells()
    data = open_test_data(site.data_of(run, run.test_data))
    return cells_to_evaluate(data, site.results, full, run.name(protocol), description["sha256"])


def missing_jobs(
    runs: Iterable[StudyRun], protocol: StudyProtocol, site: Site
) -> tuple[list[Job], list[Failure]]:
    """Return the jobs that are missing.

    Args:
        runs: The runs of the study.
        protocol: The protocol of the study.
        site: The folder of the study.

    Returns:
        The jobs by seed, then by :data:`PRIORITY`, then in the order of the study; and a failure
        for each run whose weights or data are missing.

    Raises:
        UserError: If the study itself is wrong.
    """
    plans = [
        (
            run,
            training_plan(run, site),
            site.data_of(run, run.data),
            site.data_of(run, run.test_data),
        )
        for run in runs
    ]
    jobs: dict[str, Job] = {}
    seeds: dict[str, int] = {}
    refused: list[Failure] = []
    for run, plan, data, test_data in sorted(plans, key=lambda item: item[0].backbone_run != ""):
        try:
            digest = _upstream_digest(run, plan, site)
            cells = (
                evaluation_protocol(run, protocol).cells()
                if _began_from_other_weights(run, digest, site)
                else missing_cells(run, protocol, site)
            )
            makes_checkpoint = run.kind == "robustify"
            if cells or (makes_checkpoint and not site.checkpoint_of(run.folder).is_file()):
                _require(run, data, test_data)
                first = [*_checkpoint_job(run, site), *_backbone_job(run, jobs, site)]
                training = (MakeBackboneJob if makes_checkpoint else TrainJob)(
                    name=_training_name(run),
                    after=tuple(job.name for job in first),
                    memory=job_bytes(plan),
                    devices=plan.recipe.devices if run.kind != "upstream" else 1,
                    plan=plan,
                    data=data,
                    folder=site.weights(run),
                    upstream_digest=digest,
                    log=site.log(run.folder),
                )
                evaluations = _evaluation_jobs(run, plan, test_data, cells, protocol, site)
                seed = run.changes["seed"]
                for job in (*first, training, *evaluations):
                    jobs[job.name] = job
                    seeds[job.name] = min(seed, seeds.get(job.name, seed))
        except UserError as error:
            refused.append(Failure(f"{run.id}, {run.folder}", str(error)))
    ordered = sorted(
        jobs.values(),
        key=lambda job: (seeds[job.name], PRIORITY.index(type(job))),
    )
    return ordered, refused


def _checkpoint_job(run: StudyRun, site: Site) -> list[Job]:
    """The job that makes the miniature weights of a run, if they are missing."""
    target = site.miniature_checkpoint(run)
    if target is None or target.is_file():
        return []
    data = site.scenes_of("classification")
    return [MakeCheckpointJob(name=f"make {target.stem}", target=target, data=data)]


def _backbone_job(run: StudyRun, jobs: Mapping[str, Job], site: Site) -> list[Job]:
    """The job that makes the backbone of a run, if it is missing."""
    job = jobs.get(f"robustify {run.backbone_run}")
    if run.backbone_run and job is None and not site.checkpoint_of(run.backbone_run).is_file():
        raise UserError(
            f"The backbone of {run.id} cannot be made; see above why {run.backbone_run} does not"
            " begin"
        )
    return [job] if job else []


def _upstream_digest(run: StudyRun, plan: Plan, site: Site) -> str:
    """The digest of a run's upstream weights, so that all runs of a study begin from the same ones;
    empty if the study makes them.
    """
    makes_weights = run.backbone_run or site.miniature_checkpoint(run)
    file = None if makes_weights else weights_file(plan.backbone)
    return resolve_backbone(plan.backbone).digest if file and file.is_file() else ""


def _began_from_other_weights(run: StudyRun, digest: str, site: Site) -> bool:
    """Whether the upstream weights of a finished run have been replaced since."""
    description = read_description(site.weights(run)) if digest else None
    return description is not None and description["identity"]["upstream_weights"] != digest


def _training_name(run: StudyRun) -> str:
    return f"{'robustify' if run.kind == 'robustify' else 'train'} {run.folder}"


def _evaluation_jobs(
    run: StudyRun,
    plan: Plan,
    data: str,
    cells: list[Place],
    protocol: StudyProtocol,
    site: Site,
) -> list[Job]:
    """A job for each corruption: it decodes each image once for all severities."""
    name, full, jobs = run.name(protocol), evaluation_protocol(run, protocol), list[Job]()
    for corruption in dict.fromkeys(cell[0] for cell in cells):
        clean = corruption == CLEAN[0]
        severities = tuple(severity for other, severity in cells if other == corruption)
        part = replace(
            full,
            clean=clean,
            corruptions=() if clean else (corruption,),
            severities=() if clean else severities,
        )
        jobs.append(
            EvaluateJob(
                name=f"evaluate {name} {display_name(corruption)}",
                after=(_training_name(run),),
                affinity=run.folder,
                memory=job_bytes(plan, part.batch_size),
                folder=site.weights(run),
                data=data,
                results=site.results,
                protocol=part,
                run_name=name,
                log=site.log(run.folder),
            )
        )
    return jobs


def _require(run: StudyRun, data: str, test_data: str) -> None:
    """Raise ``UserError`` before any training if weights or data are missing or do not fit."""
    for requirement in required_weights([run]):
        if not requirement.available:
            raise UserError(requirement.problem)
    for spec, split in ((data, "train"), (test_data, "val")):
        if split == "train" and run.kind == "upstream":
            continue
        task, _ = task_and_size(spec, split)
        if task != run.task:
            raise UserError(
                f"Run {run.id} is {run.task}, but {spec} is data for {task}; name other data"
            )


@lru_cache(maxsize=32)
def task_and_size(spec: str, split: str) -> tuple[str, int]:
    """Look up a dataset, once in a process.

    Args:
        spec: ``FORMAT:PATH``.
        split: ``train`` or ``val``.

    Returns:
        Its task and its number of images.
    """
    dataset = open_dataset(spec, split, training=split == "train")
    return dataset.info.task, len(dataset)

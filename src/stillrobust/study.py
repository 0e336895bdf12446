"""A study: axes -> runs -> cells; what is missing is done, what is done is kept."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from stillrobust.corruptions import COMMON, SEVERITIES, warm_up
from stillrobust.data import open_dataset
from stillrobust.data.scene_files import SceneCounts, write_scenes
from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.execution import Job, run_jobs
from stillrobust.names import slug
from stillrobust.tasks.recipes import Recipe, recipe_of
from stillrobust.training import Plan, train

STUDIES = Path(__file__).parent / "studies"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskPlan(_Strict):
    """One task of a study."""

    data: str
    """``coco:PATH``, ``maps:PATH``, ``folders:PATH``, or ``scenes`` for the generated default."""
    settings: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    recipes: dict[Literal["fixed_feature", "full_network"], dict[str, Any]] = {}
    """What differs from ``recipe`` in one mode of transfer."""
    images: int | None = None
    """Evaluate on so many images, evenly spaced over the set."""


class Study(_Strict):
    """A study file: every task × backbone × transfer is a run, evaluated under every corruption × severity."""

    name: str
    tasks: dict[Literal["classification", "detection", "segmentation"], TaskPlan]
    backbones: list[str]
    transfers: list[Literal["fixed_feature", "full_network"]]
    corruptions: list[str] = list(COMMON)
    severities: list[int] = list(SEVERITIES)
    seed: int = 0
    scenes: dict[str, int] = {}
    """How many scenes and crops are drawn, where it differs from the defaults of ``SceneCounts``."""


def read_study(path: Path) -> Study:
    """Read a study file. Raises ``UserError`` naming the place of what is wrong."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Study.model_validate(content)
    except OSError as error:
        raise UserError(f"Cannot read the study {path} ({error.strerror}); check the path") from None
    except yaml.YAMLError as error:
        raise UserError(f"Expected YAML in the study {path}, but: {str(error).splitlines()[0]}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise UserError(f"The study {path} is wrong at {where}: {first['msg']}") from None


def _recipe(study: Study, task: TaskPlan, transfer: Literal["fixed_feature", "full_network"]) -> Recipe:
    values = {"seed": study.seed, **task.recipe, **task.recipes.get(transfer, {})}
    return recipe_of(**values)


# ---- jobs: plain functions of plain values, so that any process can run them ---------------------------------------------


def train_job(plan: Plan, data: str, folder: Path, progress: Callable[[int, int, str], None]) -> None:
    """Train one run."""
    train(plan, open_dataset(data, "train", training=True), folder, progress)


def evaluate_job(
    folder: Path, data: str, results: Path, protocol: Protocol, run: str, progress: Callable[[int, int, str], None]
) -> None:
    """Evaluate some cells of one run."""
    evaluate(folder, open_dataset(data, "val"), results, protocol, run, progress)


def jobs_of(study: Study, out: Path) -> list[Job]:
    """Training jobs first, the longest tasks first; then each run's corruptions, one job each."""
    trainings, evaluations = [], []
    by_length = sorted(study.tasks, key=["detection", "segmentation", "classification"].index)
    for name in by_length:
        task = study.tasks[name]
        data = scenes_spec(name, out / "data") if task.data == "scenes" else task.data
        for backbone in study.backbones:
            for transfer in study.transfers:
                run = slug(f"{name}-{backbone}-{transfer}")
                plan = Plan(name, backbone, transfer, _recipe(study, task, transfer), task.settings)
                folder = out / "runs" / run
                trainings.append(Job(f"train {run}", train_job, (plan, data, folder)))
                for corruption in ("clean", *study.corruptions):
                    names = () if corruption == "clean" else (corruption,)
                    protocol = Protocol(names, tuple(study.severities), clean=not names, seed=study.seed, images=task.images)
                    job = (folder, data, out / "results", protocol, run)
                    evaluations.append(Job(f"evaluate {run} {corruption}", evaluate_job, job, after=(f"train {run}",)))
    return trainings + evaluations


def scenes_spec(task: str, root: Path) -> str:
    """Where ``write_scenes`` puts the data of a task."""
    formats = {"classification": "folders", "detection": "coco", "segmentation": "maps"}
    return f"{formats[task]}:{root / task}"


def run_study(
    study: Study,
    out: Path,
    workers: int | None = None,
    say: Callable[[str], None] = lambda text: None,
    listen: Callable[[str, int, int, str], None] = lambda name, done, total, text: None,
) -> Path:
    """Do what is missing of a study in the folder ``out``; returns the store of its results."""
    out = out.resolve()
    if any(task.data == "scenes" for task in study.tasks.values()):
        say("generated scenes: drawing them, or reading those that are there")
        write_scenes(
            out / "data",
            seed=study.seed,
            counts=SceneCounts(**study.scenes),
            progress=lambda done, total: listen("data", done, total, "scenes"),
        )
    say("corruption kernels: compiling them where this machine has not yet")
    warm_up()
    run_jobs(jobs_of(study, out), workers or os.cpu_count() or 1, listen)
    return out / "results"


def cells_of(study: Study) -> int:
    """The number of cells in a study, clean ones included."""
    runs = len(study.tasks) * len(study.backbones) * len(study.transfers)
    return runs * (1 + len(study.corruptions) * len(study.severities))

"""A study in miniature: the same runs and code, with generated scenes and small substitutes for
backbones, weights and steps.

The protocol of such a run has ``scale: miniature``, and its name differs, so its numbers never mix
with real ones.
"""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field

from stillrobust.names import format_spec, lookup, parse_spec
from stillrobust.samples import TaskName
from stillrobust.storage.files import content_key
from stillrobust.storage.store import Transfer
from stillrobust.strict_yaml import load_yaml
from stillrobust.study.files import STUDIES
from stillrobust.study.runs import StudyRun
from stillrobust.study.schema import StrictModel

FILE = STUDIES / "miniature" / "miniature.yaml"
CHECKPOINT_FOLDER = "checkpoints"
"""In a study's folder; the ``weights`` of a spec that begin with it are relative to that folder."""


class TaskSubstitutes(StrictModel):
    """Small sizes and few steps of a task."""

    changes: dict[str, Any]
    settings: dict[str, Any]
    images: int


class RecipeSubstitutes(StrictModel):
    """Substitutes for the values of a recipe."""

    lr: float
    """The recipe's own; the learning rate of a run keeps its ratio to it."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the task."""


class MiniatureCheckpoint(StrictModel):
    """How the weights of a substitute backbone are trained."""

    backbone: str
    technique: str = ""
    seed: int = 0


class Miniature(StrictModel):
    """The file of substitutes."""

    scenes: dict[str, int]
    """Numbers of generated scenes and crops."""
    sizes: dict[str, int]
    """Of scenes and crops, in pixels."""
    checkpoints: dict[str, MiniatureCheckpoint]
    checkpoint_recipe: dict[str, Any]
    backbones: dict[str, str]
    """Spec of a backbone -> name of the substitute in ``checkpoints``."""
    other_backbones: str
    """The substitute for any other backbone."""
    upstream_transfer: Transfer
    """Replaces the kind ``upstream``."""
    changes: dict[str, Any]
    """Of every recipe."""
    recipes: dict[str, RecipeSubstitutes]
    tasks: dict[TaskName, TaskSubstitutes]


@lru_cache(maxsize=1)
def read_miniature(path: Path = FILE) -> Miniature:
    """Read a file of substitutes.

    Args:
        path: The file; the default is the one that comes with the package.

    Returns:
        The substitutes.
    """
    return Miniature.model_validate(load_yaml(path.read_text(encoding="utf-8")))


def miniature_of(run: StudyRun, small: Miniature) -> StudyRun:
    """Return a run with substitutes for its data, backbone, sizes and steps.

    Its technique, and the schedule and augmentation of its recipe, stay.

    Args:
        run: A run at its real scale.
        small: The substitutes.

    Returns:
        The run in miniature.
    """
    task, recipe = small.tasks[run.task], small.recipes.get(run.recipe)
    relative = run.changes["lr"] / recipe.lr if recipe and "lr" in run.changes else 1.0
    changes = {**run.changes, **small.changes, **task.changes, "lr": task.changes["lr"] * relative}
    return replace(
        run,
        data="scenes",
        test_data="scenes",
        backbone=miniature_spec(small.backbones.get(run.backbone, small.other_backbones), small),
        kind="transfer" if run.kind == "upstream" else run.kind,
        transfer=small.upstream_transfer if run.kind == "upstream" else run.transfer,
        changes=changes,
        settings={**run.settings, **task.settings, **(recipe.settings if recipe else {})},
        images=task.images,
        scale="miniature",
    )


def miniature_spec(name: str, small: Miniature) -> str:
    """Return the spec of a substitute backbone.

    Args:
        name: A name of ``small.checkpoints``.
        small: The substitutes.

    Returns:
        The spec. The name of its weight file includes a hash of how the weights are trained.
    """
    checkpoint = small.checkpoints[name]
    key = content_key(
        {**checkpoint.model_dump(), **small.checkpoint_recipe, **small.scenes, **small.sizes}
    )
    architecture, _ = parse_spec(checkpoint.backbone)
    return format_spec(
        architecture, {"weights": f"{CHECKPOINT_FOLDER}/{name}-{key[:6]}.safetensors"}
    )


def checkpoint_of_file(path: Path, small: Miniature) -> MiniatureCheckpoint:
    """Return how the weights in a file are trained.

    Args:
        path: The file, named as in :func:`miniature_spec`.
        small: The substitutes.

    Returns:
        The entry of ``small.checkpoints``.
    """
    return lookup("miniature checkpoint", path.name.rpartition("-")[0], small.checkpoints)

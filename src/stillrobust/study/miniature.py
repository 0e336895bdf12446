"""A study in miniature: the same runs through the same code, on generated scenes, with stand-ins
for what is large.

Such a run says ``scale: miniature`` in its protocol and has names of its own, so that its numbers
never mix with real ones.
"""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field

from stillrobust.names import format_spec, lookup, parse_spec
from stillrobust.samples import TaskName
from stillrobust.storage.files import content_key
from stillrobust.strict_yaml import load_yaml
from stillrobust.study.schema import STUDIES, Strict, StudyRun

FILE = STUDIES / "miniature" / "miniature.yaml"
FOLDER = "upstream"
"""In a study's folder: the weights of stand-ins.

A spec's ``weights`` that begin with it lie there.
"""


class Small(Strict):
    """What stands in for a task's sizes and steps."""

    changes: dict[str, Any]
    settings: dict[str, Any]
    images: int


class OfRecipe(Strict):
    """What stands in for a recipe's own."""

    lr: float
    """The recipe's, which a run's is relative to."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """For those that the recipe brings."""


class StandIn(Strict):
    """Weights that are made here."""

    backbone: str
    technique: str = ""
    seed: int = 0


class Miniature(Strict):
    """The file of stand-ins."""

    scenes: dict[str, int]
    """How many are drawn."""
    sizes: dict[str, int]
    """Of scenes and crops, in pixels."""
    standins: dict[str, StandIn]
    standin_recipe: dict[str, Any]
    backbones: dict[str, str]
    """The stand-in for a backbone's spec."""
    other_backbones: str
    """The stand-in for any other."""
    transfers: dict[str, str]
    changes: dict[str, Any]
    """Of every recipe."""
    recipes: dict[str, OfRecipe]
    tasks: dict[TaskName, Small]


@lru_cache(maxsize=1)
def read_miniature(path: Path = FILE) -> Miniature:
    """The stand-ins that come with the package."""
    return Miniature.model_validate(load_yaml(path.read_text(encoding="utf-8")))


def miniature_of(run: StudyRun, small: Miniature) -> StudyRun:
    """The run with stand-ins for its data, backbone, sizes and steps; its technique and the kind of
    its recipe stay.
    """
    task, recipe = small.tasks[run.task], small.recipes.get(run.recipe)
    relative = run.changes["lr"] / recipe.lr if recipe and "lr" in run.changes else 1.0
    changes = {**run.changes, **small.changes, **task.changes, "lr": task.changes["lr"] * relative}
    return replace(
        run,
        data="scenes",
        test_data="scenes",
        backbone=standin_spec(small.backbones.get(run.backbone, small.other_backbones), small),
        transfer=small.transfers.get(run.transfer, run.transfer),
        changes=changes,
        settings={**run.settings, **task.settings, **(recipe.settings if recipe else {})},
        images=task.images,
        scale="miniature",
    )


def standin_spec(name: str, small: Miniature) -> str:
    """The spec of a stand-in; the name of its file says what it is made of."""
    standin = small.standins[name]
    key = content_key(
        {**standin.model_dump(), **small.standin_recipe, **small.scenes, **small.sizes}
    )
    architecture, _ = parse_spec(standin.backbone)
    return format_spec(architecture, {"weights": f"{FOLDER}/{name}-{key[:6]}.safetensors"})


def standin_of(weights: str, small: Miniature) -> StandIn:
    """The stand-in whose file ``weights`` is."""
    return lookup("stand-in", Path(weights).name.rpartition("-")[0], small.standins)

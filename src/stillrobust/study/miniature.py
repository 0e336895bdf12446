"""A study in miniature: the same runs through the same code, on generated scenes, with stand-ins for what is large.

Such a run says ``scale: miniature`` in its protocol and has names of its own, so that its numbers never mix with real ones.
"""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from stillrobust.names import parse_spec
from stillrobust.samples import TaskName
from stillrobust.study.schema import STUDIES, Strict, StudyRun

FILE = STUDIES / "miniature" / "miniature.yaml"


class Small(Strict):
    """What stands in for a task's sizes and steps."""

    changes: dict[str, Any]
    settings: dict[str, Any]
    images: int


class Miniature(Strict):
    """The file of stand-ins."""

    scenes: dict[str, int]
    """How many are drawn."""
    sizes: dict[str, int]
    """Of scenes and crops, in pixels."""
    tasks: dict[TaskName, Small]
    backbones: dict[str, str]
    """A stand-in for a spec, or for every spec of an architecture."""


@lru_cache(maxsize=1)
def read_miniature(path: Path = FILE) -> Miniature:
    """The stand-ins that come with the package."""
    return Miniature.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def miniature_of(run: StudyRun, small: Miniature) -> StudyRun:
    """The run with stand-ins for its data, backbone, sizes and steps; transfer, technique and recipe stay."""
    task = small.tasks[run.task]
    architecture, _ = parse_spec(run.backbone)
    backbones = small.backbones
    return replace(
        run,
        data="scenes",
        test_data="scenes",
        backbone=backbones.get(run.backbone) or backbones.get(architecture, run.backbone),
        changes={**run.changes, **task.changes},
        settings={**run.settings, **task.settings},
        images=task.images,
        scale="miniature",
    )

"""Tasks: a frozen dataclass of settings with ``build_model``, ``augment``, ``loss`` and
``predict``.

The same classes serve the paper's scale (their defaults) and the demo (other settings).
"""

from stillrobust.extras import require_extra

require_extra("torch")

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from stillrobust.backbones import Backbone
from stillrobust.errors import UserError
from stillrobust.names import lookup, unknown
from stillrobust.samples import DatasetInfo, Image, Prediction, Sample
from stillrobust.tasks.classification import Classification
from stillrobust.tasks.detection import Detection
from stillrobust.tasks.heads import Photometric
from stillrobust.tasks.segmentation import Segmentation
from stillrobust.tasks.values import fault_of

__all__ = [
    "TASKS",
    "Classification",
    "Detection",
    "Photometric",
    "Segmentation",
    "Task",
    "make_task",
]


class Task(Protocol):
    """What training and evaluation need to know of a task."""

    @property
    def name(self) -> str:
        """The task's word."""
        ...

    def build_model(self, backbone: Backbone, info: DatasetInfo) -> nn.Module:
        """Backbone, neck and head; the head not yet initialised."""
        ...

    def augment(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """One sample as training sees it."""
        ...

    def loss(
        self, model: nn.Module, batch: Sequence[Sample], photometric: Photometric | None = None
    ) -> dict[str, Tensor]:
        """The parts of the loss, by name; training minimises their sum.

        ``photometric`` changes the images before that.
        """
        ...

    def predict(self, model: nn.Module, images: Sequence[Image]) -> list[Prediction]:
        """One prediction an image, in the order of the images and in their own pixels."""
        ...


TASKS: dict[str, Any] = {
    "classification": Classification,
    "detection": Detection,
    "segmentation": Segmentation,
}


def make_task(name: str, settings: Mapping[str, Any] | None = None) -> Task:
    """The task ``name`` with some of its settings changed; an unknown setting is an error with
    did-you-mean.
    """
    kind = lookup("task", name, TASKS)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in (settings or {}).items():
        if key not in fields:
            raise unknown(f"setting of the task {name}", key, fields)
        values[key] = tuple(value) if isinstance(value, list) else value
        if fault := fault_of(values[key], fields[key].type):
            raise UserError(
                f"The setting {key} of the task {name} expects {fault}, but got {value!r}; give"
                " such a value"
            )
    return kind(**values)  # type: ignore[no-any-return]

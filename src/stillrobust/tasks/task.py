"""The interface of a task, and the tasks by name."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from stillrobust.backbones import Backbone
from stillrobust.errors import UserError
from stillrobust.names import lookup, unknown_name_error
from stillrobust.samples import DatasetInfo, Image, Prediction, Sample
from stillrobust.tasks.classification import Classification
from stillrobust.tasks.detection import Detection
from stillrobust.tasks.field_types import type_mismatch
from stillrobust.tasks.heads import Photometric
from stillrobust.tasks.segmentation import Segmentation


class Task(Protocol):
    """The interface of a task."""

    @property
    def name(self) -> str:
        """Name of the task, a key of ``TASKS``."""
        ...

    def build_model(self, backbone: Backbone, info: DatasetInfo) -> nn.Module:
        """Build the model of a backbone, neck and head; the head is not yet initialized.

        Args:
            backbone: Becomes a part of the model. Modules that the task does not use are dropped.
            info: Description of the training data, with its classes.

        Raises:
            UserError: If backbone or data do not fit the task.
        """
        ...

    def augment(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Augment a sample for training.

        Args:
            sample: uint8 image (H, W, 3) with its target.
            rng: Source of all draws.

        Returns:
            A new sample.
        """
        ...

    def loss(
        self, model: nn.Module, batch: Sequence[Sample], photometric: Photometric | None = None
    ) -> dict[str, Tensor]:
        """Compute the parts of the loss; training minimizes their sum.

        Args:
            model: A model of ``build_model`` in training mode.
            batch: Augmented samples.
            photometric: Changes the images before they are normalized.

        Returns:
            Scalars by name.
        """
        ...

    def predict(self, model: nn.Module, images: Sequence[Image]) -> list[Prediction]:
        """Predict images.

        Args:
            model: A model of ``build_model`` in evaluation mode.
            images: uint8 (H, W, 3) of any sizes.

        Returns:
            A prediction for each image, in its own pixels.
        """
        ...


TASKS: dict[str, Any] = {
    "classification": Classification,
    "detection": Detection,
    "segmentation": Segmentation,
}


def make_task(name: str, settings: Mapping[str, Any] | None = None) -> Task:
    """Make a task.

    Args:
        name: A key of ``TASKS``.
        settings: Settings that differ from the defaults.

    Raises:
        UserError: If a name is unknown, or a value has the wrong type.
    """
    kind = lookup("task", name, TASKS)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in (settings or {}).items():
        if key not in fields:
            raise unknown_name_error(f"setting of the task {name}", key, fields)
        values[key] = tuple(value) if isinstance(value, list) else value
        if expected := type_mismatch(values[key], fields[key].type):
            raise UserError(
                f"The setting {key} of the task {name} expects {expected}, but got {value!r};"
                " change the value"
            )
    return kind(**values)  # type: ignore[no-any-return]

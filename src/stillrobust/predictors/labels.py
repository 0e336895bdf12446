"""Mapping of a model's class indices to those of the dataset, by name."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from stillrobust.data.official.imagenet import wordnet_ids
from stillrobust.errors import UserError
from stillrobust.names import format_count
from stillrobust.samples import Array, DatasetInfo

WORDNET_ID = re.compile(r"n\d{8}")
IMAGENET_CLASSES = 1000


def class_columns(
    info: DatasetInfo,
    model_classes: Sequence[str] | None,
    outputs: int,
    labels: Mapping[str, str],
    model: str,
) -> Array:
    """Return the model's index of every class of the dataset.

    ImageNet folders are named by WordNet ids. They are found in any model with the 1000 classes,
    even if the dataset has only some of them.

    Args:
        info: Description of the dataset.
        model_classes: Names of the model's classes by index. ``None`` if the model has no names; it
            then must have the classes of the dataset in their order.
        outputs: Number of outputs of the model.
        labels: The dataset's name by the model's name, for classes whose names differ.
        model: Name of the model, for errors.

    Returns:
        int64 (number of classes of the dataset,).

    Raises:
        UserError: If the model lacks classes of the dataset.
    """
    if model_classes is None:
        if outputs != len(info.classes):
            raise UserError(
                f"{model} has {format_count(outputs, 'class')} without names, but {info.name} has"
                f" {len(info.classes)}; give a model trained on these classes, in their order"
            )
        return np.arange(outputs)
    if outputs == IMAGENET_CLASSES and all(WORDNET_ID.fullmatch(name) for name in info.classes):
        model_classes = wordnet_ids()
    numbers: dict[str, int] = {}
    for number, name in enumerate(model_classes):
        numbers.setdefault(_normalise(labels.get(name, name)), number)
    missing = [name for name in info.classes if _normalise(name) not in numbers]
    if missing:
        raise UserError(
            f"{model} has no class for {len(missing)} of"
            f" {format_count(len(info.classes), 'class')} of"
            f" {info.name}: {', '.join(missing[:6])}{', ...' if len(missing) > 6 else ''}; if"
            " only the names differ, give labels={'its name': 'the data\\'s name'}"
        )
    return np.array([numbers[_normalise(name)] for name in info.classes])


def dataset_labels(columns: Array, outputs: int) -> Array:
    """Invert :func:`class_columns`.

    Args:
        columns: The model's index of every class of the dataset.
        outputs: Number of outputs of the model.

    Returns:
        int64 (outputs,): the dataset's label of every output, -1 for none.
    """
    table = np.full(outputs, -1, np.int64)
    table[columns] = np.arange(len(columns))
    return table


def _normalise(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()

"""Somebody else's class numbers against the data's: matched by name, never guessed."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from stillrobust.data.official.imagenet import wnids
from stillrobust.errors import UserError
from stillrobust.samples import Array, DatasetInfo

WORDNET_ID = re.compile(r"n\d{8}")
IMAGENET_CLASSES = 1000


def class_columns(
    info: DatasetInfo,
    theirs: Sequence[str] | None,
    outputs: int,
    renamed: Mapping[str, str],
    model: str,
) -> Array:
    """For every class of the data, in its order, the number that the model has for it: int64
    (len(info.classes),).

    ``theirs``: the model's names by number; ``None`` where it has none, then it must have as many
    classes as the data, in the data's order. ``renamed``: the model's name -> the data's, where
    they differ. ImageNet's folders are named by WordNet ids: they are found by these in any model
    of the thousand classes, also where the data has some of them only. Raises ``UserError`` naming
    the classes that the model does not have.
    """
    if theirs is None:
        if outputs != len(info.classes):
            raise UserError(
                f"{model} has {outputs} classes without names, but {info.name} has"
                f" {len(info.classes)}; give a model trained on these classes, in their order"
            )
        return np.arange(outputs)
    if outputs == IMAGENET_CLASSES and all(WORDNET_ID.fullmatch(name) for name in info.classes):
        theirs = wnids()
    numbers: dict[str, int] = {}
    for number, name in enumerate(theirs):
        numbers.setdefault(_plain(renamed.get(name, name)), number)
    missing = [name for name in info.classes if _plain(name) not in numbers]
    if missing:
        raise UserError(
            f"{model} has no class for {len(missing)} of {len(info.classes)} classes of"
            f" {info.name}: {', '.join(missing[:6])}{', ...' if len(missing) > 6 else ''}; where it"
            " only calls them differently say so: labels={'its name': 'the data\\'s name'}"
        )
    return np.array([numbers[_plain(name)] for name in info.classes])


def dataset_labels(columns: Array, outputs: int) -> Array:
    """The other way round: for every number of the model the data's, -1 where the data has no such
    class.
    """
    table = np.full(outputs, -1, np.int64)
    table[columns] = np.arange(len(columns))
    return table


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()

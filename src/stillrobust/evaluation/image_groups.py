"""The groups of a dataset's images, stored with the run that is evaluated on them."""

from collections.abc import Callable, Mapping

from stillrobust.analysis.groups import FIELD, group_images, require_groups
from stillrobust.errors import UserError
from stillrobust.samples import Dataset
from stillrobust.storage.image_groups import ImageGroups
from stillrobust.storage.store import Store

ReadField = Callable[[str], Mapping[str, str]]


def dataset_groups(dataset: Dataset, by: str) -> ImageGroups | None:
    """Group the images of a dataset.

    Args:
        dataset: The images. For ``field:NAME``, it or the dataset that it is a part of has a
            method ``image_field(name)`` that returns a text for each image id.
        by: A rule of ``group_images``, or ``field:NAME``.

    Returns:
        The groups, or ``None`` if every image stands for itself.

    Raises:
        UserError: If the rule is invalid, or an image has no group.
    """
    ids = [dataset.image_id(index) for index in range(len(dataset))]
    if not by.startswith(FIELD):
        return group_images(ids, by)
    name = by.removeprefix(FIELD)
    values = _field_reader(dataset)(name)
    without = [one for one in ids if not values.get(one)]
    if without:
        raise UserError(
            f"Expected a {name!r} for every image, but {len(without)} of {len(ids)} have none, such"
            f" as {without[0]!r}; add it, or group by another field"
        )
    return require_groups(ImageGroups(by, {one: values[one] for one in ids}))


def _field_reader(dataset: Dataset) -> ReadField:
    source: object = dataset
    while source is not None:
        read: ReadField | None = getattr(source, "image_field", None)
        if read is not None:
            return read
        source = getattr(source, "dataset", None)  # of a subset
    raise UserError(
        f"Expected data with fields of images, which COCO and CSV files have, but"
        f" {dataset.info.name} has none; group by folder or by a regular expression on file names"
    )


def store_groups(store: Store, run: str, dataset: Dataset, by: str | None) -> None:
    """Store the groups of the images that a run is evaluated on.

    Args:
        store: The results store.
        run: Name of the run.
        dataset: The selected images.
        by: The rule; ``None`` for the one that is stored, if any, which may lack new images.

    Raises:
        UserError: If the rule is invalid, or an image has no group.
    """
    stored = store.groups(run) if by is None else None
    rule = stored.by if stored else by
    if rule is not None:
        store.write_groups(run, dataset_groups(dataset, rule))

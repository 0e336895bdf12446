"""Groups of images that are not independent, such as the frames of one video or one drive.

Intervals resample whole groups where a run has them. ``docs/how_to/gate.md`` describes the rules,
and ``docs/explanation/statistics.md`` the measured coverage.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from stillrobust.errors import UserError
from stillrobust.names import format_count
from stillrobust.storage.files import content_key
from stillrobust.storage.image_groups import ImageGroups
from stillrobust.storage.store import Store

FIELD = "field:"
"""Prefix of a rule that reads a field of the dataset."""
SINGLE_IMAGES = "image"
"""The rule for images that are independent of each other."""
EXAMPLES = "folder, a regular expression such as '^(.*)_', or field:NAME"


@dataclass(frozen=True)
class Grouping:
    """The groups of the images of a run, in the order of its statistics."""

    by: str
    """The rule, as in ``ImageGroups.by``."""
    labels: tuple[str, ...]
    """The group of each image."""

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of images in each group."""
        return tuple(Counter(self.labels).values())

    @cached_property
    def effective(self) -> float:
        """Number of groups of equal size that are as good: (sum m)² / sum m² (Kish 1965)."""
        return sum(self.sizes) ** 2 / sum(size**2 for size in self.sizes)

    @cached_property
    def freedom(self) -> float:
        """Degrees of freedom, at least 1: G - 1 for groups of equal size, fewer otherwise.

        A variance over groups that count as their squared sizes has (sum m²)² / sum m⁴ of them
        (Satterthwaite 1946), less the share that the mean takes.
        """
        degrees = sum(m**2 for m in self.sizes) ** 2 / sum(m**4 for m in self.sizes)
        return max(1.0, degrees * (1 - 1 / self.effective))

    @cached_property
    def protocol(self) -> str:
        """The entry of the protocol: the number of groups, the rule, and a hash of the groups."""
        return f"{len(self.sizes)} by {self.by} ({content_key({'': list(self.labels)})[:12]})"


def effective_groups(grouping: Grouping | None) -> float:
    """Return the effective number of groups; infinite if images are independent."""
    return float("inf") if grouping is None else grouping.effective


def groups_entry(grouping: Grouping | None) -> dict[str, str]:
    """Return the entry of a protocol about the groups; empty if images were resampled."""
    return {} if grouping is None else {"groups": grouping.protocol}


def group_images(image_ids: Sequence[str], by: str) -> ImageGroups | None:
    """Group images by their ids, which are file names in most formats.

    Args:
        image_ids: Ids of the images.
        by: ``folder``, or a regular expression that is searched in every id. Images with equal
            capture groups, or with an equal match if it captures nothing, belong together.
            ``image`` makes every image its own group.

    Returns:
        The groups, or ``None`` for ``image``.

    Raises:
        UserError: If the rule is invalid, does not match every image, or makes a single group.
    """
    if by == SINGLE_IMAGES:
        return None
    if by == "folder":
        found = {one: str(PurePosixPath(one).parent) for one in image_ids}
    elif by.startswith(FIELD):
        raise UserError(
            f"Expected a rule on image ids, but {by} is read from the dataset; give it to"
            " `stillrobust evaluate` or `predictions score`, which store the groups with the run"
        )
    else:
        found = _matches(image_ids, by)
    return require_groups(ImageGroups(by, found))


def _matches(image_ids: Sequence[str], by: str) -> dict[str, str]:
    try:
        pattern = re.compile(by)
    except re.error as error:
        raise UserError(
            f"Expected {EXAMPLES} for --group-by, but {by!r} is not valid: {error}; correct it"
        ) from None
    found = {}
    for one in image_ids:
        match = pattern.search(one)
        if match is None:
            raise UserError(
                f"Expected --group-by {by!r} to match every image, but it does not match {one!r};"
                f" give {EXAMPLES}"
            )
        parts = match.groups(default="")
        found[one] = "\0".join(parts) if parts else match[0]
    return found


def require_groups(groups: ImageGroups) -> ImageGroups:
    """Require at least two groups.

    Args:
        groups: Groups of all images of a run.

    Returns:
        The same groups.

    Raises:
        UserError: If all images are of one group, so that nothing can be resampled.
    """
    if len(set(groups.of.values())) < 2:
        raise UserError(
            f"Expected at least two groups of images, but --group-by {groups.by!r} puts all"
            f" {format_count(len(groups.of), 'image')} into one; give {EXAMPLES}"
        )
    return groups


def grouping_of(store: Store, run: str, image_ids: Sequence[str]) -> Grouping | None:
    """Return the groups of a run's images.

    Args:
        store: The results store.
        run: Name of the run.
        image_ids: Ids of the images in the order of their statistics.

    Returns:
        The groups, or ``None`` if every image stands for itself.

    Raises:
        UserError: If an image has no group.
    """
    by = store.by if isinstance(store, GroupedStore) else None
    groups = store.groups(run) if by is None else group_images(image_ids, by)
    if groups is None:
        return None
    without = [one for one in image_ids if one not in groups.of]
    if without:
        raise UserError(
            f"Expected a group for every image of {run}, but {without[0]!r} has none; evaluate the"
            " run again with --group-by, which only writes the groups"
        )
    return Grouping(groups.by, tuple(groups.of[one] for one in image_ids))


class GroupedStore(Store):
    """A store whose images are grouped by a rule on their ids, whatever groups are stored.

    Args:
        store: The results store.
        by: A rule of :func:`group_images`.
    """

    def __init__(self, store: Store, by: str) -> None:
        super().__init__(store.root)
        self.by = by

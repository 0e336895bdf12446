"""Plausibility of ground truth: data that can be read but probably means something else.

A warning names what was found, its likely cause, and the option that mends it. Nothing is refused
here. To add a check, write a function of a ``TargetSummary`` and add it to ``DATA_CHECKS``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from stillrobust.data.views import read_target
from stillrobust.names import format_count
from stillrobust.samples import IGNORE, Array, Dataset, DatasetInfo, Target

MAX_IMAGES = 200
"""Images that are read, evenly spaced: about a second of decoding."""
MIN_OBJECTS = 20  # below, a class that does not occur says nothing
# Shares beyond which a warning is given. They are coarse on purpose: real sets stay far below.
MANY_IGNORED = 0.5
MANY_EMPTY = 0.9
MANY_OUTSIDE = 0.1
OUTSIDE = 1.0  # pixels by which a box may exceed its image, as in the validation of predictions


@dataclass
class TargetSummary:
    """Counts over the targets of some images of a dataset."""

    info: DatasetInfo
    images: int = 0
    empty: int = 0
    """Images without an object, or without a pixel that counts."""
    counts: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64 (C,), images, objects or pixels of each class."""
    ignored: int = 0
    """Pixels that do not count, or objects that are crowds."""
    boxes: int = 0
    outside: int = 0
    """Boxes that exceed their image."""
    farthest: float = 0.0
    """The largest coordinate of all boxes, in pixels."""
    without_mask: int = 0
    """Objects whose mask is empty."""

    def __post_init__(self) -> None:
        self.counts = np.zeros(len(self.info.classes), np.int64)

    def add(self, target: Target) -> None:
        """Count one image."""
        self.images += 1
        labels: Array
        if self.info.task == "classification":
            labels = np.array([] if target.label is None else [target.label], np.int64)
        elif self.info.task == "segmentation":
            assert target.label_map is not None
            counted = target.label_map[target.label_map != IGNORE]
            self.ignored += target.label_map.size - counted.size
            labels = counted
        else:
            labels = self._add_objects(target)
        self.empty += not labels.size
        self.counts += np.bincount(labels.ravel(), minlength=len(self.counts))[: len(self.counts)]

    def _add_objects(self, target: Target) -> Array:
        assert target.boxes is not None
        assert target.labels is not None
        crowd = np.zeros(len(target.boxes), bool) if target.crowd is None else target.crowd
        self.ignored += int(np.sum(crowd))
        self.boxes += len(target.boxes)
        if len(target.boxes):
            height, width = target.size
            self.farthest = max(self.farthest, float(np.max(target.boxes)))
            limits = np.array([width, height, width, height]) + OUTSIDE
            self.outside += int((target.boxes > limits).any(1).sum())
        if target.masks is not None:
            self.without_mask += int((~target.masks.any((1, 2))).sum())
        found: Array = np.asarray(target.labels)[~np.asarray(crowd, bool)]
        return found

    @property
    def covers_all(self) -> bool:
        """Whether every image of the dataset was counted."""
        return self.images == self.info.size


def summarize_targets(dataset: Dataset, images: int = MAX_IMAGES) -> TargetSummary:
    """Read the targets of evenly spaced images.

    Args:
        dataset: Any dataset.
        images: Images to read at most.

    Returns:
        The counts.
    """
    summary = TargetSummary(dataset.info)
    size = len(dataset)
    for index in range(min(size, images)):
        summary.add(read_target(dataset, index * size // min(size, images)))
    return summary


def data_warnings(summary: TargetSummary) -> tuple[str, ...]:
    """Return one sentence or two for every check of ``DATA_CHECKS`` that fails.

    Args:
        summary: Counts over the dataset, or over some of its images.
    """
    checks = DATA_CHECKS[summary.info.task]
    return tuple(text for check in checks.values() if (text := check(summary)))


def chance_score(summary: TargetSummary) -> float:
    """The score of the best model that returns the same answer for every image, 0..1.

    Classification: the share of the most frequent class. Segmentation: the mIoU of that class
    everywhere, which is its share of the pixels over the number of classes that occur. Detection:
    0.

    Args:
        summary: Counts over the dataset, or over some of its images.
    """
    total = int(summary.counts.sum())
    if summary.info.task == "detection" or not total:
        return 0.0
    share = float(summary.counts.max() / total)
    if summary.info.task == "classification":
        return share
    return share / int(np.count_nonzero(summary.counts))


def _name_classes(classes: Iterable[str], limit: int = 5) -> str:
    names = list(classes)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def _seen(summary: TargetSummary) -> str:
    if summary.covers_all:
        return f"the {format_count(summary.images, 'image')}"
    return f"{summary.images:,} of {format_count(summary.info.size, 'image')}"


def _absent_classes(summary: TargetSummary) -> str:
    """Classes that never occur. Said only if every image was counted."""
    classes = summary.info.classes
    absent = [name for name, count in zip(classes, summary.counts, strict=True) if not count]
    if not absent or not summary.covers_all or _labels_from_one(summary):
        return ""
    return (
        f"{len(absent)} of {len(classes)} classes never occur in {_seen(summary)}:"
        f" {_name_classes(absent)}. They have no score of their own; classes=[...] leaves them out."
    )


def _labels_from_one(summary: TargetSummary) -> str:
    """The first class never occurs and all others do."""
    counts, classes = summary.counts, summary.info.classes
    enough = len(classes) > 2 and counts.sum() >= MIN_OBJECTS
    if not enough or counts[0] or not counts[1:].all():
        return ""
    return (
        f"The first class, {classes[0]}, never occurs in {_seen(summary)}, and all others do."
        " Labels may count from 1: correct the class names, or use reduce_zero_label=True for label"
        " maps."
    )


def _no_truth(summary: TargetSummary) -> str:
    if summary.empty <= MANY_EMPTY * summary.images:
        return ""
    what = "an object" if summary.info.task == "detection" else "a pixel that counts"
    return (
        f"{summary.empty:,} of {format_count(summary.images, 'image')} without {what}. Check"
        f" that the"
        " annotations belong to these images."
    )


def _ignored_pixels(summary: TargetSummary) -> str:
    pixels = summary.ignored + int(summary.counts.sum())
    share = summary.ignored / max(pixels, 1)
    if share <= MANY_IGNORED:
        return ""
    return (
        f"{share:.0%} of the pixels are {IGNORE} and do not count. If {IGNORE} is the foreground,"
        f" use maps(foreground={IGNORE}):PATH."
    )


def _one_class(summary: TargetSummary) -> str:
    present = np.flatnonzero(summary.counts)
    if len(present) != 1:
        return ""
    name = summary.info.classes[int(present[0])]
    return (
        f"Every pixel that counts is of class {name} in {_seen(summary)}, so a model that always"
        " returns it scores 100. Check the values of the label maps."
    )


def _normalized_boxes(summary: TargetSummary) -> str:
    if summary.boxes < MIN_OBJECTS or summary.farthest > 1.5:
        return ""
    return (
        f"All boxes ({summary.boxes:,}) lie within 0 to 1 pixels. They may be normalised: multiply"
        " them by width and height."
    )


def _boxes_outside(summary: TargetSummary) -> str:
    if summary.outside <= MANY_OUTSIDE * max(summary.boxes, 1):
        return ""
    return (
        f"{summary.outside:,} of {format_count(summary.boxes, 'box')} outside their image. Boxes"
        f" stored as x1,"
        " y1, x2, y2 may have been read as x, y, width, height."
    )


def _all_crowds(summary: TargetSummary) -> str:
    if not summary.boxes or summary.ignored < summary.boxes:
        return ""
    return (
        f"All objects ({summary.boxes:,}) are crowds (iscrowd: 1), which are not scored. Some tools"
        " write it for every mask: set iscrowd to 0."
    )


def _objects_without_mask(summary: TargetSummary) -> str:
    if not summary.without_mask:
        return ""
    return (
        f"{summary.without_mask:,} of {format_count(summary.boxes, 'object')} with an empty"
        f" mask. No prediction"
        " can match them in mask AP: add their outlines."
    )


Check = Callable[[TargetSummary], str]
"""Returns a warning, or an empty string."""
_CLASSES: Mapping[str, Check] = {
    "absent classes": _absent_classes,
    "labels from 1": _labels_from_one,
}
DATA_CHECKS: Mapping[str, Mapping[str, Check]] = {
    "classification": _CLASSES,
    "detection": {
        **_CLASSES,
        "images without objects": _no_truth,
        "normalised boxes": _normalized_boxes,
        "boxes outside": _boxes_outside,
        "only crowds": _all_crowds,
        "objects without mask": _objects_without_mask,
    },
    "segmentation": {
        **_CLASSES,
        "images without labels": _no_truth,
        "ignored pixels": _ignored_pixels,
        "one class": _one_class,
    },
}
"""Task -> name of a check -> check."""

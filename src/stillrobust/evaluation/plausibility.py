"""Plausibility of a model's first predictions, before a number is believed.

The first batch is predicted twice, and its first image once more by itself; predictions from files
are checked as they are. A warning names what was found, its likely cause, and what mends it. To add
a check, write a function of ``FirstPredictions`` and add it to ``PREDICTION_CHECKS``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stillrobust.data.plausibility import chance_score, data_warnings, summarize_targets
from stillrobust.metrics.matching import box_overlaps
from stillrobust.names import format_count
from stillrobust.samples import (
    IGNORE,
    Array,
    Dataset,
    DatasetInfo,
    Image,
    Prediction,
    Sample,
    Target,
)

BATCH = 8
"""Images of the first batch."""
# Differences beyond which two answers are not the same: rounding of another batch size stays below.
DIFFERENT_PROBABILITY = 1e-2
DIFFERENT_PIXELS = 1e-2
DIFFERENT_BOXES = 0.1
SAME_BOX = 0.8  # IoU of two boxes that are the same
CONFIDENT = 0.3  # detections with lower scores come and go with rounding
MOST_OBJECTS = 1000  # of an image that are compared with each other
SHIFT_GAIN = 0.2  # share of answers that a shift of the labels by one must add

Predict = Callable[[Sequence[Image], Sequence[str]], list[Prediction]]
"""Validated predictions of images and their names; see ``predictors.validated_predictor``."""


@dataclass(frozen=True)
class FirstPredictions:
    """A model's answers for the first batch."""

    info: DatasetInfo
    samples: Sequence[Sample]
    predictions: Sequence[Prediction]
    again: Sequence[Prediction] | None = None
    """The same images in the same batch, once more; ``None`` for predictions from files."""
    alone: Prediction | None = None
    """The first image by itself; ``None`` for predictions from files."""


@dataclass(frozen=True)
class Plausibility:
    """What is stored with a run."""

    warnings: tuple[str, ...]
    chance: float
    """Score of a model that always returns the same; see ``chance_score``."""


def check_plausibility(dataset: Dataset, predict: Predict) -> Plausibility:
    """Check the data and a model's first predictions.

    Args:
        dataset: The clean dataset.
        predict: The model.

    Returns:
        Warnings, and the score of chance on this data.

    Raises:
        UserError: If a prediction is invalid.
    """
    samples = [dataset[index] for index in range(min(BATCH, len(dataset)))]
    images = [sample.image for sample in samples]
    names = [f"{sample.target.image_id} at severity 0" for sample in samples]
    predictions, again = predict(images, names), predict(images, names)
    alone = predict(images[:1], names[:1])[0]
    return _plausibility(
        dataset, FirstPredictions(dataset.info, samples, predictions, again, alone)
    )


def check_file_plausibility(dataset: Dataset, predictions: Sequence[Prediction]) -> Plausibility:
    """Check the data and predictions that were read from files.

    Args:
        dataset: The images that were predicted, clean or corrupted.
        predictions: Those of the first images; the first ``BATCH`` are checked.

    Returns:
        Warnings, and the score of chance on this data.
    """
    samples = [dataset[index] for index in range(min(BATCH, len(predictions)))]
    return _plausibility(dataset, FirstPredictions(dataset.info, samples, predictions[:BATCH]))


def _plausibility(dataset: Dataset, first: FirstPredictions) -> Plausibility:
    data = check_data(dataset)
    found = (check(first) for check in PREDICTION_CHECKS.values())
    return replace(data, warnings=(*data.warnings, *filter(None, found)))


def check_data(dataset: Dataset) -> Plausibility:
    """Check the data alone.

    Args:
        dataset: The clean dataset.

    Returns:
        Warnings, and the score of chance on this data.
    """
    summary = summarize_targets(dataset)
    return Plausibility(data_warnings(summary), chance_score(summary))


def predictions_differ(first: Prediction, second: Prediction) -> bool:
    """Whether two predictions of one image differ by more than rounding."""
    if first.probabilities is not None and second.probabilities is not None:
        gap = np.abs(first.probabilities - second.probabilities).max()
        return bool(gap > DIFFERENT_PROBABILITY)
    if first.label_map is not None and second.label_map is not None:
        return bool(np.mean(first.label_map != second.label_map) > DIFFERENT_PIXELS)
    one, other = _confident_objects(first), _confident_objects(second)
    count = max(len(one[0]), len(other[0]))
    if not count:
        return False
    same = _same_objects(*one, *other)
    return bool(1 - same.any(1).sum() / count > DIFFERENT_BOXES)


def _boxes(found: Prediction | Target) -> Array:
    assert found.boxes is not None
    return found.boxes


def _confident_objects(prediction: Prediction) -> tuple[Array, Array]:
    """Boxes (N, 4) and labels (N,) of the best ``MOST_OBJECTS`` with at least ``CONFIDENT``."""
    assert prediction.labels is not None
    assert prediction.scores is not None
    kept = np.argsort(-prediction.scores, kind="stable")[:MOST_OBJECTS]
    kept = kept[prediction.scores[kept] >= CONFIDENT]
    return _boxes(prediction)[kept], prediction.labels[kept]


def _same_objects(boxes: Array, labels: Array, other_boxes: Array, other_labels: Array) -> Array:
    """bool (N, M): whether object n is object m, by IoU and label."""
    overlaps = box_overlaps(boxes, other_boxes, np.zeros(len(other_boxes), bool))
    found: Array = (overlaps >= SAME_BOX) & (labels[:, None] == other_labels[None])
    return found


def _not_deterministic(first: FirstPredictions) -> str:
    if first.again is None:
        return ""
    pairs = zip(first.predictions, first.again, strict=True)
    differing = sum(predictions_differ(one, two) for one, two in pairs)
    if not differing:
        return ""
    return (
        f"The model answers differently the second time ({differing} of {len(first.predictions)}"
        " images). Its scores cannot be reproduced: switch off dropout and random augmentation, or"
        " fix the seed."
    )


def _depends_on_batch(first: FirstPredictions) -> str:
    if first.again is None or first.alone is None:
        return ""
    unsteady = predictions_differ(first.predictions[0], first.again[0])
    if unsteady or not predictions_differ(first.predictions[0], first.alone):
        return ""
    return (
        "An image gets another answer by itself than in a batch. Scores then depend on the batch"
        " size: put BatchNorm into evaluation mode, and do not normalise over the batch."
    )


def _found_nothing(first: FirstPredictions) -> str:
    if first.info.task != "detection":
        return ""
    objects = sum(len(_boxes(sample.target)) for sample in first.samples)
    if not objects or any(len(_boxes(one)) for one in first.predictions):
        return ""
    return (
        f"The model finds nothing in the first {format_count(len(first.samples), 'image')}, with"
        f" {format_count(objects, 'object')}. Check the range and normalisation of its input,"
        f" and its threshold of"
        " scores."
    )


def _normalized_boxes(first: FirstPredictions) -> str:
    if first.info.task != "detection":
        return ""
    boxes = np.concatenate([_boxes(one) for one in first.predictions])
    if not len(boxes) or boxes.max() > 1.5:
        return ""
    return (
        f"All boxes of the first {format_count(len(first.samples), 'image')} ({len(boxes)}) lie"
        f" within 0 to 1 pixels."
        " They are probably normalised: multiply them by width and height (normalized=True)."
    )


def _same_answer(first: FirstPredictions) -> str:
    """One class for every image or pixel, although several occur."""
    if first.info.task == "detection" or len(first.samples) < BATCH:
        return ""
    truth, found = _paired_labels(first, 0)
    if len(np.unique(truth)) < 2 or len(np.unique(found)) > 1:
        return ""
    name = first.info.classes[int(found[0])]
    where = "images" if first.info.task == "classification" else "images, in every pixel"
    return (
        f"The model answers {name} for all of the first {len(first.samples)} {where}. Check the"
        " range and normalisation of its input."
    )


def _shifted_labels(first: FirstPredictions) -> str:
    agreement = {shift: _agreement(first, shift) for shift in (-1, 0, 1)}
    best = max(agreement, key=lambda shift: agreement[shift])
    if not best or agreement[best] < agreement[0] + SHIFT_GAIN:
        return ""
    direction = "one too high" if best < 0 else "one too low"
    return (
        f"The model's labels look {direction}: shifted by one, {agreement[best]:.0%} instead of"
        f" {agreement[0]:.0%} of its answers agree with the ground truth. Correct first_label or"
        " the order of the classes."
    )


def _agreement(first: FirstPredictions, shift: int) -> float:
    """Share of answers whose label plus ``shift`` is the true label, 0..1."""
    if first.info.task != "detection":
        truth, found = _paired_labels(first, shift)
        return float(np.mean(truth == found)) if truth.size else 0.0
    agreed = total = 0
    for sample, prediction in zip(first.samples, first.predictions, strict=True):
        boxes, labels = _confident_objects(prediction)
        objects, expected = _boxes(sample.target), sample.target.labels
        assert expected is not None
        total += len(objects)
        if len(objects) and len(boxes):
            overlaps = box_overlaps(boxes, objects, np.zeros(len(objects), bool))
            hits = (overlaps >= 0.5) & ((labels + shift)[:, None] == expected[None])
            agreed += int(hits.any(0).sum())
    return agreed / total if total else 0.0


def _paired_labels(first: FirstPredictions, shift: int) -> tuple[Array, Array]:
    """True labels and predicted labels plus ``shift``, of images or of pixels that count."""
    truth, found = [], []
    for sample, prediction in zip(first.samples, first.predictions, strict=True):
        if first.info.task == "classification":
            assert prediction.probabilities is not None
            truth.append(np.array([sample.target.label]))
            found.append(np.array([np.argmax(prediction.probabilities)]))
            continue
        assert sample.target.label_map is not None
        assert prediction.label_map is not None
        counts = sample.target.label_map != IGNORE
        truth.append(sample.target.label_map[counts].astype(np.int64))
        found.append(prediction.label_map[counts].astype(np.int64))
    return np.concatenate(truth), np.concatenate(found) + shift


PREDICTION_CHECKS: Mapping[str, Callable[[FirstPredictions], str]] = {
    "determinism": _not_deterministic,
    "batch": _depends_on_batch,
    "nothing found": _found_nothing,
    "normalised boxes": _normalized_boxes,
    "same answer": _same_answer,
    "shifted labels": _shifted_labels,
}
"""Name of a check -> function that returns a warning, or an empty string."""

"""A clean score of 0 or of chance ends an evaluation, with its likely cause and a picture."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from stillrobust.analysis.plausibility import PLAUSIBILITY, no_better_than_chance
from stillrobust.errors import UserError
from stillrobust.evaluation.prediction_picture import draw_predictions
from stillrobust.grid import CLEAN
from stillrobust.metrics import METRIC_NAMES
from stillrobust.metrics.matching import box_overlaps
from stillrobust.names import format_count
from stillrobust.samples import IGNORE, Array, Dataset, DatasetInfo, Prediction, Sample
from stillrobust.storage.files import replace_file
from stillrobust.storage.store import Store

IMAGES = 32
"""Images whose predictions are compared with the ground truth to find the cause."""
SHOWN = 3  # images in the picture
GAIN = 0.2  # mean IoU, or share of images or pixels, that a cause must add
OVERLAP = 0.5  # IoU of a box that fits an object
BOXES_PER_OBJECT = 3  # detections that are compared with the objects, the best first
ANSWERS_PER_CLASS = 3  # below, a permutation of the classes explains anything
# sides of detectors' inputs; 1 stands for normalised boxes
INPUT_SIDES = (1, 224, 256, 320, 384, 416, 512, 640, 800, 1024, 1280)

Pair = tuple[Sample, Prediction]
OTHER_CAUSES = {
    "classification": (
        "the order of the classes, a background at index 0, the range and normalisation of the"
        " input, or the weights"
    ),
    "detection": (
        "the order of the classes, a background at index 0, boxes that are not x1, y1, x2, y2 in"
        " pixels of the image, the range and normalisation of the input, or the weights"
    ),
    "segmentation": (
        "the order of the classes, a background at index 0, the range and normalisation of the"
        " input, or the weights"
    ),
    "masks": "that masks are bool (N, H, W) in the size of the image and in the order of the boxes",
}
"""Task -> what to check if the predictions do not show the cause."""


def stored_chance_error(
    store: Store,
    run: str,
    dataset: Dataset,
    read_first: Callable[[Sequence[int]], Sequence[Pair]],
    picture: Path,
) -> UserError | None:
    """Return the error that ends an evaluation if the stored clean score is one of chance.

    Args:
        store: The results.
        run: Name of the run, whose clean cell is stored.
        dataset: The clean dataset.
        read_first: Returns the samples of these indices with their predictions.
        picture: PNG file that is then written: three predictions over the ground truth.

    Returns:
        The error, or ``None`` if all clean scores are better than chance.
    """
    record = next(one for one in store.runs() if one.name == run)
    chance = float(record.protocol.get(PLAUSIBILITY, {}).get("chance", 0.0))
    scores = {
        one.metric: one.value
        for one in store.measurements(run)
        if (one.corruption, one.severity) == CLEAN
    }
    metrics = (name for name in METRIC_NAMES if name in scores)
    metric = next((name for name in metrics if no_better_than_chance(scores[name], chance)), None)
    if metric is None:
        return None
    info = dataset.info
    size, shown = info.size, min(info.size, IMAGES)
    pairs = read_first([index * size // shown for index in range(shown)])
    cause = likely_cause(info, pairs)
    other = OTHER_CAUSES["masks" if metric == "mask_ap" else info.task]
    reason = f"The likely cause: {cause}" if cause else f"Check {other}"
    replace_file(picture, draw_predictions(info, pairs, SHOWN))
    than = f"{100 * chance:.1f}, the score of one answer for every image" if chance else "0"
    return UserError(
        f"Expected a clean {METRIC_NAMES[metric]} above {than}, but {run} has"
        f" {100 * scores[metric]:.1f} on {format_count(size, 'image')}, so no corrupted image is"
        f" scored. {reason}. {picture} shows {format_count(min(SHOWN, shown), 'prediction')} and"
        " the ground truth. Correct the cause and add --replace, or add --accept-chance if the"
        " score is right"
    )


def likely_cause(info: DatasetInfo, pairs: Sequence[Pair]) -> str:
    """Find the mistake that explains predictions that do not agree with the ground truth.

    Args:
        info: Facts about the dataset.
        pairs: Clean samples with their predictions.

    Returns:
        The cause and what mends it; empty if none explains the predictions.
    """
    if info.task == "detection":
        return _cause_in_detections(info, pairs)
    return _cause_in_labels(info, pairs)


def _cause_in_detections(info: DatasetInfo, pairs: Sequence[Pair]) -> str:
    if not any(len(_boxes(prediction)) for _, prediction in pairs):
        return (
            "the model finds nothing; check the range and normalisation of its input, and its"
            " threshold of scores"
        )
    plain = _agreement(pairs, _unchanged)
    # at equal agreement the first cause stands: a shift also is another order
    found = {
        "labels are one too high: give first_label=1, or correct the classes": _agreement(
            pairs, _unchanged, shift=-1
        ),
        "labels are one too low: give first_label=0, or correct the classes": _agreement(
            pairs, _unchanged, shift=1
        ),
        **{cause: _agreement(pairs, convert) for cause, convert in _box_readings().items()},
        "boxes fit the objects, but not their classes: give the names of the classes in the model's"
        " order, as classes=[...], or as CLASSES in a Python file": _agreement(
            pairs, _unchanged, any_class=True
        ),
    }
    best = max(found, key=lambda cause: found[cause])
    return best if found[best] >= plain + GAIN else ""


def _unchanged(boxes: Array, size: tuple[int, int]) -> Array:
    return boxes


def _box_readings() -> dict[str, Callable[[Array, tuple[int, int]], Array]]:
    """Cause -> function of boxes (N, 4) and (H, W) that returns what they were meant to be."""

    def scale(side: int) -> Callable[[Array, tuple[int, int]], Array]:
        return lambda boxes, size: boxes * (np.array([size[1], size[0]] * 2) / side)

    readings: dict[str, Callable[[Array, tuple[int, int]], Array]] = {
        "boxes are x, y, width, height: convert them, or give boxes='xywh'": lambda boxes, size: (
            np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        ),
        "boxes are y1, x1, y2, x2: convert them, or give boxes='yxyx'": lambda boxes, size: boxes[
            :, [1, 0, 3, 2]
        ],
    }
    for side in INPUT_SIDES:
        cause = (
            "boxes are normalised: multiply them by width and height, or give normalized=True"
            if side == 1
            else f"boxes are in pixels of an input of about {side} x {side}: scale them back"
        )
        readings[cause] = scale(side)
    return readings


def _boxes(prediction: Prediction) -> Array:
    assert prediction.boxes is not None
    return prediction.boxes


def _agreement(
    pairs: Sequence[Pair],
    convert: Callable[[Array, tuple[int, int]], Array],
    shift: int = 0,
    any_class: bool = False,
) -> float:
    """Mean IoU of the objects with the converted box of a shifted label that fits best, 0..1."""
    agreed, total = 0.0, 0
    for sample, prediction in pairs:
        target = sample.target
        assert target.boxes is not None
        assert target.labels is not None
        assert prediction.scores is not None
        assert prediction.labels is not None
        total += len(target.boxes)
        best = np.argsort(-prediction.scores, kind="stable")
        best = best[: BOXES_PER_OBJECT * len(target.boxes)]
        if not len(best):
            continue
        boxes = convert(np.asarray(_boxes(prediction)[best], np.float64), target.size)
        overlaps = box_overlaps(boxes, target.boxes, np.zeros(len(target.boxes), bool))
        hits = overlaps >= OVERLAP
        if not any_class:
            hits &= (prediction.labels[best] + shift)[:, None] == target.labels[None]
        agreed += float((overlaps * hits).max(0).sum())
    return agreed / total if total else 0.0


def _cause_in_labels(info: DatasetInfo, pairs: Sequence[Pair]) -> str:
    """The cause from the confusion of true (rows) and predicted (columns) labels."""
    counts = _confusion(info, pairs)
    total = max(int(counts.sum()), 1)
    answered = np.flatnonzero(counts.any(0))
    if not len(answered):
        return ""
    if len(answered) == 1 and len(pairs) > 1:
        return (
            f"the model answers {info.classes[int(answered[0])]} for everything; check the range"
            " and normalisation of its input"
        )
    plain = np.trace(counts) / total
    meant = counts.argmax(0)
    enough = info.task == "segmentation" or len(pairs) >= ANSWERS_PER_CLASS * len(answered)
    column = max(answered, key=lambda one: counts[meant[one], one] * (meant[one] != one))
    truth, answer = info.classes[int(meant[column])], info.classes[int(column)]
    # at equal agreement the first cause stands: a shift also is another order
    found = {
        "labels are one too high: give first_label=1, or correct the classes": np.trace(
            counts, offset=1
        ),
        "labels are one too low: give first_label=0, or correct the classes": np.trace(
            counts, offset=-1
        ),
        f"classes are in another order ({truth} is answered as {answer}): give their names in the"
        " model's order, classes=[...]": counts.max(0).sum()
        if enough and len(set(meant[answered])) > 1
        else 0,
    }
    best = max(found, key=lambda cause: found[cause])
    return best if found[best] / total >= plain + GAIN else ""


def _confusion(info: DatasetInfo, pairs: Sequence[Pair]) -> Array:
    """int64 (C, C): images or pixels by true and predicted label."""
    counts = np.zeros((len(info.classes),) * 2, np.int64)
    for sample, prediction in pairs:
        if info.task == "classification":
            assert prediction.probabilities is not None
            counts[sample.target.label, int(np.argmax(prediction.probabilities))] += 1
            continue
        assert sample.target.label_map is not None
        assert prediction.label_map is not None
        counted = sample.target.label_map != IGNORE
        truth = sample.target.label_map[counted].astype(np.int64)
        found = prediction.label_map[counted].astype(np.int64)
        size = len(info.classes)
        counts += np.bincount(truth * size + found, minlength=size**2).reshape(size, size)
    return counts

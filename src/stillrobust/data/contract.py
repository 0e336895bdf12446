"""Datasets of your own in Python: checks of the contract ``samples.Dataset``, and a fingerprint."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields

import numpy as np

from stillrobust.data.reading import is_text
from stillrobust.errors import UserError
from stillrobust.names import format_count
from stillrobust.samples import IGNORE, Array, Dataset, DatasetInfo, Sample, Target
from stillrobust.user_files import error_summary

ADVICE = "see docs/how_to/your_data.md, which wraps other libraries' datasets in a few lines"


def require_dataset(dataset: object) -> Dataset:
    """Require that an object follows ``samples.Dataset``. No sample is read.

    Args:
        dataset: Any object.

    Returns:
        The same object.

    Raises:
        UserError: If it lacks a part of the contract.
    """
    kind = f"{type(dataset).__module__}.{type(dataset).__name__}"
    info = getattr(dataset, "info", None)
    if not isinstance(info, DatasetInfo):
        raise UserError(
            f"Expected a dataset whose info is a stillrobust.samples.DatasetInfo, but got {kind}"
            f" with info {type(info).__name__}; {ADVICE}"
        )
    missing = [
        name for name in ("__len__", "image_id", "__getitem__") if not hasattr(dataset, name)
    ]
    if missing:
        raise UserError(
            f"Expected a dataset with len(), image_id(i) and [i], but {kind} lacks"
            f" {', '.join(missing)}; {ADVICE}"
        )
    found: Dataset = dataset  # type: ignore[assignment]
    if len(found) != info.size:
        raise UserError(
            f"Expected {format_count(info.size, 'image')} in {info.name}, as its info says, but"
            f" len() is"
            f" {len(found)}; correct one of them"
        )
    if not info.classes or not info.fingerprint:
        raise UserError(
            f"Expected class names and a fingerprint in the info of {info.name}, but one is empty;"
            " compute it with stillrobust.data.fingerprint_samples"
        )
    broken = [name for name in found.info.classes if not is_text(name)]
    if broken:
        raise UserError(
            f"Expected class names that can be written as UTF-8 in {found.info.name}, but got"
            f" {broken[0]!r:.80}; rename the class"
        )
    return found


def read_checked(dataset: Dataset, index: int) -> Sample:
    """Read one sample and check it.

    Args:
        dataset: Any dataset.
        index: Index of the image.

    Returns:
        The sample.

    Raises:
        UserError: If it cannot be read, or does not follow ``Sample``; the sentence names it.
    """
    try:
        sample: object = dataset[index]
    except (UserError, IndexError):
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserError(
            f"{dataset.info.name} failed at index {index}: {error_summary(error)}; call"
            f" dataset[{index}]"
        ) from error
    fault = sample_fault(sample, dataset.info)
    if fault:
        where = f"index {index}"
        if isinstance(sample, Sample) and isinstance(sample.target, Target):
            where = f"{sample.target.image_id!r} ({where})"
        raise UserError(f"{dataset.info.name} cannot be used at {where}: expected {fault}")
    assert isinstance(sample, Sample)
    return sample


def sample_fault(sample: object, info: DatasetInfo) -> str:
    """Return what is wrong with a sample, as ``"X, but got Y; do Z"``; empty if it is valid.

    Args:
        sample: What a dataset returned for one image.
        info: Facts about the dataset.
    """
    if not isinstance(sample, Sample) or not isinstance(sample.target, Target):
        return f"a stillrobust.samples.Sample with a Target, but got {_kind(sample)}; {ADVICE}"
    image, target = sample.image, sample.target
    if not _is_array(image, np.uint8, (None, None, 3)) or not image.size:
        return (
            f"an image uint8 (H, W, 3) RGB, but got {_kind(image)}; convert it with"
            " np.asarray(image.convert('RGB'))"
        )
    if tuple(target.size) != image.shape[:2]:
        return (
            f"target.size {image.shape[:2]}, the (H, W) of the image, but got {target.size}; give"
            " (height, width)"
        )
    if not isinstance(target.image_id, str) or not target.image_id:
        return f"an image_id that is a text, but got {target.image_id!r}; use the file name"
    return TARGET_FAULTS[info.task](target, info)


def _label_fault(target: Target, info: DatasetInfo) -> str:
    label = target.label
    if isinstance(label, int | np.integer) and 0 <= label < len(info.classes):
        return ""
    return f"a label from 0 to {len(info.classes) - 1}, but got {label!r}; number the classes"


def _objects_fault(target: Target, info: DatasetInfo) -> str:
    boxes, labels, count = target.boxes, target.labels, len(info.classes)
    if not _is_array(boxes, None, (None, 4)) or not np.isfinite(boxes).all():  # type: ignore[arg-type]
        return f"boxes, finite (N, 4) xyxy in pixels, but got {_kind(boxes)}; give (0, 4) for none"
    assert boxes is not None
    if (boxes[:, 2:] < boxes[:, :2]).any():
        return (
            "boxes as x1, y1, x2, y2, but some end before they start; convert them from x, y,"
            " width, height"
        )
    if not _is_array(labels, np.integer, (len(boxes),)):
        return f"labels, integers ({len(boxes)},), but got {_kind(labels)}; give one for each box"
    assert labels is not None
    if len(labels) and not (labels.min() >= 0 and labels.max() < count):
        found = f"{labels.min()} to {labels.max()}"
        return f"labels from 0 to {count - 1}, but got {found}; number the classes from 0"
    height, width = target.size
    if info.has_masks and not _is_array(target.masks, np.bool_, (len(boxes), height, width)):
        return (
            f"masks, bool {(len(boxes), height, width)}, but got {_kind(target.masks)}; give them,"
            " or set has_masks=False in the info"
        )
    for name, kind in (("crowd", np.bool_), ("areas", np.number)):
        values = getattr(target, name)
        if values is not None and not _is_array(values, kind, (len(boxes),)):
            what = f"{kind.__name__.strip('_')} ({len(boxes)},)"
            return f"{name}, {what} or None, but got {_kind(values)}; leave it out if unknown"
    return ""


def _label_map_fault(target: Target, info: DatasetInfo) -> str:
    values = target.label_map
    if not _is_array(values, np.uint8, target.size):
        return f"a label_map, uint8 {target.size}, but got {_kind(values)}; convert and resize it"
    assert values is not None
    counted = values[values != IGNORE]
    if counted.size and counted.max() >= len(info.classes):
        return (
            f"labels from 0 to {len(info.classes) - 1} or {IGNORE}, but got {counted.max()}; number"
            " the classes from 0"
        )
    return ""


TARGET_FAULTS: dict[str, Callable[[Target, DatasetInfo], str]] = {
    "classification": _label_fault,
    "detection": _objects_fault,
    "segmentation": _label_map_fault,
}
"""Task -> function that returns what is wrong with a target, or an empty string."""


def _is_array(values: object, kind: type | None, shape: Sequence[int | None]) -> bool:
    """Whether ``values`` is an array of a dtype and shape; ``None`` stands for any number."""
    if not isinstance(values, np.ndarray) or values.ndim != len(shape):
        return False
    if values.dtype.kind not in "biuf" or (kind and not np.issubdtype(values.dtype, kind)):
        return False
    return all(want in (None, got) for want, got in zip(shape, values.shape, strict=True))


def _kind(values: object) -> str:
    if isinstance(values, np.ndarray):
        return f"{values.dtype} {values.shape}"
    return "None" if values is None else type(values).__name__


def fingerprint_samples(classes: Sequence[str], samples: Iterable[Sample]) -> str:
    """The fingerprint of a dataset in memory, or of one that is read from another library.

    Every image is read once.

    Args:
        classes: Class names.
        samples: All samples in order, such as ``(read(i) for i in range(size))``.

    Returns:
        SHA-256 (hex) over classes, ids, pixels and ground truth.
    """
    digest = hashlib.sha256("\0".join(["samples", *classes, ""]).encode())
    for sample in samples:
        _update(digest.update, "image", sample.image)
        for field in fields(Target):
            _update(digest.update, field.name, getattr(sample.target, field.name))
    return digest.hexdigest()


def _update(update: Callable[[bytes], None], name: str, value: object) -> None:
    """Hash a named value with its type and shape, so that no two differ in nothing but borders."""
    if not isinstance(value, np.ndarray):
        update(f"{name} {value!r}\0".encode("utf-8", "surrogateescape"))
        return
    plain: Array = np.ascontiguousarray(value)
    update(f"{name} {plain.dtype.str} {plain.shape}\0".encode())
    update(plain.tobytes())

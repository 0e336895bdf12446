"""The values that pass between packages: images, ground truth, predictions and dataset facts.

Conventions, for every task:

- Images are uint8 (H, W, 3) RGB. Normalisation is the model's job.
- Sizes are (H, W) in pixels.
- Boxes are float32 (N, 4) ``xyxy`` in pixels: left, top, right, bottom. ``x2`` and ``y2`` are
  exclusive, so the width is ``x2 - x1``.
- Labels count from 0 without gaps, in the order of ``DatasetInfo.classes``.
- Label maps hold such labels, and ``IGNORE`` for pixels that are not scored.
- Probabilities, scores and metrics are fractions from 0 to 1.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
"""uint8 (H, W, 3) RGB."""
Array = npt.NDArray[Any]
"""A numpy array; docstrings state its dtype and shape."""
TaskName = Literal["classification", "detection", "segmentation"]

# As in mmsegmentation, Cityscapes and Pascal VOC.
IGNORE = 255
"""Label of a pixel that is not scored."""


@dataclass(frozen=True)
class Target:
    """The ground truth of one image.

    A task sets its own fields; the fields of other tasks are ``None``. N is the number of objects.

    Attributes:
        image_id: Unique in the dataset and equal on every machine, such as the path of the image
            inside the dataset with ``/``. The random draws of corruptions are keyed by it.
        size: (H, W) of the image in pixels.
        label: Classification. Index of the class.
        boxes: Detection. float32 (N, 4), xyxy in pixels.
        labels: Detection. int64 (N,), indices of classes.
        masks: Detection. bool (N, H, W), or ``None`` if the dataset has no masks.
        crowd: Detection. bool (N,), True for regions that hold many objects. A crowd is not an
            object to find, and detections inside it are not counted as false positives.
        areas: Detection. float64 (N,), annotated areas in pixels, for the size ranges of COCO AP.
        label_map: Segmentation. uint8 (H, W) of class indices and ``IGNORE``.
    """

    image_id: str
    size: tuple[int, int]
    label: int | None = None
    boxes: Array | None = None
    labels: Array | None = None
    masks: Array | None = None
    crowd: Array | None = None
    areas: Array | None = None
    label_map: Array | None = None


@dataclass(frozen=True)
class Sample:
    """One image with its ground truth.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        target: Its ground truth. ``target.size`` is the size of ``image``.
    """

    image: Image
    target: Target


@dataclass(frozen=True)
class Prediction:
    """What a model returns for one image.

    A task sets its own fields; the fields of other tasks are ``None``. All arrays are on the CPU
    and in the coordinates of the image that the model received. D is the number of detections.

    Attributes:
        probabilities: Classification. float32 (C,), one per class, summing to 1.
        boxes: Detection. float32 (D, 4), xyxy in pixels.
        labels: Detection. int64 (D,), indices of classes.
        scores: Detection. float32 (D,), 0 to 1.
        masks: Detection. bool (D, H, W). Required if the dataset has masks.
        label_map: Segmentation. uint8 (H, W) of class indices.
        confidence: Segmentation. float (H, W), the probability of the predicted class, 0 to 1.
            Optional; needed for calibration only.
    """

    probabilities: Array | None = None
    boxes: Array | None = None
    labels: Array | None = None
    scores: Array | None = None
    masks: Array | None = None
    label_map: Array | None = None
    confidence: Array | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """Facts about a dataset. They become part of the protocol of every measurement.

    Attributes:
        name: Name for people, such as ``COCO/val``.
        task: Task that the ground truth is for.
        classes: Class names. The index of a name is its label.
        size: Number of images.
        fingerprint: SHA-256 (hex) over everything that affects a score: class names, image ids,
            annotations and image files. See ``stillrobust.data.reading.fingerprint``.
        has_masks: Detection: whether the ground truth has instance masks.
        stage: Where images are corrupted on their way to the model. ``stored`` means that
            corrupted images come from files.
        regime: Default severity table.
        left_out: (image id, fault) of every image that was left out because it cannot be used,
            sorted.
        notes: What was assumed and repaired when the data was read, as sentences with counts.
        reading: How image files are read, such as ``EXIF orientation ignored``; empty by default.
    """

    name: str
    task: TaskName
    classes: tuple[str, ...]
    size: int
    fingerprint: str
    has_masks: bool = False
    stage: str = "before resize"
    regime: str = "imagenet"
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    reading: str = ""


class Dataset(Protocol):
    """The contract of a dataset: a sequence of samples that are read when they are accessed.

    Indices run from 0 to ``len(dataset) - 1``. The order is the same on every machine.
    """

    @property
    def info(self) -> DatasetInfo:
        """Facts about the dataset."""
        ...

    def image_id(self, index: int) -> str:
        """The id of an image, ``self[index].target.image_id``, without reading the image."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...

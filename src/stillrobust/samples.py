"""What crosses rooms: an image with its ground truth, what a model says of it, and what a dataset
says of itself.

Images are uint8 (H, W, 3) RGB. Boxes are float32 (N, 4) ``xyxy`` in pixels, with ``x2``/``y2``
exclusive. Masks are bool (N, H, W). Labels count from 0 without gaps, in the order of
``DatasetInfo.classes``. Label maps hold those labels and ``IGNORE`` where a pixel does not count.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
TaskName = Literal["classification", "detection", "segmentation"]

# the label of a pixel that counts for nothing (mmsegmentation, Cityscapes and Pascal VOC all use
# it)
IGNORE = 255


@dataclass(frozen=True)
class Target:
    """The ground truth of one image; a task fills in its own fields and leaves the others ``None``."""

    image_id: str
    """Unique in its dataset and the same on every machine: the image's path inside the dataset,
    with ``/``.
    """
    size: tuple[int, int]
    """(H, W) of the image."""
    label: int | None = None
    """Classification: the class."""
    boxes: Array | None = None
    """Detection: float32 (N, 4) xyxy."""
    labels: Array | None = None
    """Detection: int64 (N,)."""
    masks: Array | None = None
    """Detection: bool (N, H, W), or ``None`` where the dataset has no masks."""
    crowd: Array | None = None
    """Detection: bool (N,).

    A crowd region is neither found nor missed: detections in it are left out.
    """
    areas: Array | None = None
    """Detection: float64 (N,) in pixels, as annotated; the size bins of COCO AP use it."""
    label_map: Array | None = None
    """Segmentation: uint8 (H, W)."""


@dataclass(frozen=True)
class Sample:
    """One image with its ground truth."""

    image: Image
    target: Target


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image. Fields that the model cannot fill stay ``None``."""

    probabilities: Array | None = None
    """Classification: float32 (C,)."""
    boxes: Array | None = None
    """Detection: float32 (N, 4) xyxy."""
    labels: Array | None = None
    """Detection: int64 (N,)."""
    scores: Array | None = None
    """Detection: float32 (N,), 0..1."""
    masks: Array | None = None
    """Detection: bool (N, H, W)."""
    label_map: Array | None = None
    """Segmentation: uint8 (H, W)."""
    confidence: Array | None = None
    """Segmentation: float (H, W), 0..1, the probability of the label given; for calibration, may be
    ``None``.
    """


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset says of itself."""

    name: str
    task: TaskName
    classes: tuple[str, ...]
    size: int
    """The number of images."""
    fingerprint: str
    """SHA-256 (hex) over what decides a score: image ids, image bytes' sizes and digests or the
    annotations; see data/.
    """
    has_masks: bool = False
    """Detection: whether the ground truth has instance masks."""
    stage: str = "before resize"
    """Where on the way to the model images are corrupted; ``stored`` where corruptions come from
    files.
    """
    regime: str = "imagenet"
    """The severity table for this data, unless a protocol names another."""
    left_out: tuple[tuple[str, str], ...] = ()
    """What cannot be used and was left out on purpose: (image id, fault), sorted."""


class Dataset(Protocol):
    """A map-style dataset: ``dataset[i]`` reads and decodes image ``i``, 0 <= i < len(dataset)."""

    @property
    def info(self) -> DatasetInfo:
        """What the set says of itself."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...

"""Conversion of a library's tensors to predictions in image pixels and dataset labels."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stillrobust.errors import UserError
from stillrobust.predictors.labels import dataset_labels
from stillrobust.samples import Array, Image, Prediction

ROUNDING = 1e-3  # by which float16 scores may exceed 1
CORNER_ROUNDING = 0.5  # pixels by which float16 corners of a thin box may be swapped


def default_device() -> torch.device:
    """Return the GPU if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def float_tensor(image: Image) -> Tensor:
    """Convert an image, uint8 (H, W, 3), to a tensor, float32 (3, H, W) 0..1."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255


def classification_predictions(logits: Tensor, columns: Array) -> list[Prediction]:
    """Convert logits to probabilities. The softmax is over the dataset's classes only.

    Args:
        logits: (B, K).
        columns: The model's index of every class; see ``labels.class_columns``.
    """
    chosen = logits[:, torch.from_numpy(columns).to(logits.device)].float().softmax(1).cpu().numpy()
    return [Prediction(probabilities=row) for row in chosen]


def segmentation_prediction(logits: Tensor, size: tuple[int, int], columns: Array) -> Prediction:
    """Convert logits to a label map: select the dataset's classes, resize bilinearly, argmax.

    Args:
        logits: (K, h, w).
        size: (H, W) of the image.
        columns: The model's index of every class; see ``labels.class_columns``.
    """
    chosen = logits[torch.from_numpy(columns).to(logits.device)][None].float()
    resized = functional.interpolate(chosen, size=size, mode="bilinear", align_corners=False)
    best, label_map = resized[0].max(0)
    confidence = (best - resized[0].logsumexp(0)).exp()
    return Prediction(
        label_map=label_map.to(torch.uint8).cpu().numpy(), confidence=confidence.cpu().numpy()
    )


def detection_prediction(
    boxes: Array,
    labels: Array,
    scores: Array,
    masks: Array | None,
    size: tuple[int, int],
    columns: Array,
    outputs: int,
    model: str,
) -> Prediction:
    """Keep the detections of the dataset's classes, and clip boxes to the image.

    Labels, scores and the order of corners are checked first, because clipping and look-up would
    hide what is wrong.

    Args:
        boxes: (N, 4) xyxy in pixels of the image.
        labels: (N,), the model's class indices.
        scores: (N,).
        masks: Bool (N, H, W), or ``None``.
        size: (H, W) of the image.
        columns: The model's index of every class; see ``labels.class_columns``.
        outputs: Number of classes of the model.
        model: Name of the model, for errors.

    Raises:
        UserError: If labels, scores or boxes are not what they should be.
    """
    _check_detections(boxes, labels, scores, outputs, model)
    found = dataset_labels(columns, outputs)[labels.astype(np.int64)]
    kept = found >= 0
    limits = np.array([size[1], size[0], size[1], size[0]], np.float32)
    return Prediction(
        boxes=_in_order(np.clip(boxes[kept].astype(np.float32).reshape(-1, 4), 0, limits)),
        labels=found[kept],
        scores=np.clip(scores[kept].astype(np.float32), 0, 1),
        masks=None if masks is None else masks[kept].astype(bool).reshape(-1, *size),
    )


def _in_order(boxes: Array) -> Array:
    return np.concatenate([boxes[:, :2], np.maximum(boxes[:, :2], boxes[:, 2:])], 1)


def _check_detections(boxes: Array, labels: Array, scores: Array, outputs: int, model: str) -> None:
    if not len(labels):
        return
    # also refuses NaN
    if not (scores.min() >= 0 and scores.max() <= 1 + ROUNDING):
        raise UserError(
            f"Expected scores of 0..1 from {model}, but got {scores.min():.4g} to"
            f" {scores.max():.4g}; give scores='percent' or 'logits' to an ONNX file, or correct"
            " the model"
        )
    if not (labels.min() >= 0 and labels.max() < outputs and (labels == np.floor(labels)).all()):
        raise UserError(
            f"Expected labels of 0..{outputs - 1} from {model}, but got {labels.min():.4g} to"
            f" {labels.max():.4g}; give first_label=0 or 1, and classes=[the names in the model's"
            " order]"
        )
    if not np.isfinite(boxes).all() or (boxes[:, 2:] < boxes[:, :2] - CORNER_ROUNDING).any():
        raise UserError(
            f"Expected boxes as x1, y1, x2, y2 from {model}, but some end before they start or are"
            " not finite; give boxes='xywh', 'cxcywh' or 'yxyx' to an ONNX file, or correct the"
            " model"
        )


def mask_boxes(masks: Array) -> Array:
    """Return the boxes around masks, bool (N, H, W), as float32 (N, 4) xyxy; zeros if empty."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def class_names(numbered: dict[int, str] | dict[str, str] | Sequence[str]) -> list[str]:
    """Return class names by index, from a list or a mapping with numeric keys."""
    if isinstance(numbered, dict):
        by_number = {int(number): name for number, name in numbered.items()}
        return [
            by_number.get(number, f"class {number}")
            for number in range(max(by_number, default=-1) + 1)
        ]
    return list(numbered)

"""Masks of detections in the outputs of ONNX files: whole masks, or prototypes of YOLO."""

import cv2
import numpy as np

from stillrobust.errors import UserError
from stillrobust.predictors.onnx_input import Placement
from stillrobust.samples import Array

THRESHOLD = 0.5  # of soft masks, as torchvision exports them


def soft_masks(masks: Array, placement: Placement, file: str) -> Array:
    """Resize whole masks to the image.

    Args:
        masks: float (..., h, w), 0..1, which cover the input.
        placement: Where the image lies in the input.
        file: Name of the file, for errors.

    Returns:
        bool (N, H, W).

    Raises:
        UserError: If values are outside 0..1.
    """
    height, width = placement.image
    planes = masks.reshape(-1, *masks.shape[-2:]).astype(np.float32)
    if planes.size and not (planes.min() >= 0 and planes.max() <= 1):
        raise UserError(
            f"Expected masks of 0..1 from {file}, but got values from {planes.min():.4g} to"
            f" {planes.max():.4g}; export them after the sigmoid"
        )
    found = np.zeros((len(planes), height, width), bool)
    for mask, plane in zip(found, placement.crop(planes), strict=True):
        mask[:] = cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) > THRESHOLD
    return found


def prototype_masks(
    prototypes: Array, coefficients: Array, boxes: Array, placement: Placement
) -> Array:
    """Combine YOLO's prototypes to one mask for each detection, cut off at its box.

    As Ultralytics does in the size of the image (``ops.process_mask_native``): the sum is a logit,
    which is resized and then compared with 0.

    Args:
        prototypes: float (K, h, w), which cover the input.
        coefficients: float (N, K).
        boxes: float (N, 4), xyxy in pixels of the image.
        placement: Where the image lies in the input.

    Returns:
        bool (N, H, W).
    """
    (height, width), (count, *small) = placement.image, prototypes.shape
    top, left, inner_height, inner_width = placement.inner
    logits = coefficients.astype(np.float32) @ prototypes.reshape(count, -1).astype(np.float32)
    # prototype x = ((image x + 0.5) * scale + padding) * stride - 0.5, in floats, for any padding
    along_x = _line(inner_width / width, left, small[1] / placement.input[1])
    along_y = _line(inner_height / height, top, small[0] / placement.input[0])
    to_prototypes = np.array([[along_x[0], 0, along_x[1]], [0, along_y[0], along_y[1]]])
    columns, rows = np.arange(width), np.arange(height)[:, None]
    found = np.zeros((len(boxes), height, width), bool)
    for mask, plane, (x1, y1, x2, y2) in zip(found, logits, boxes, strict=True):
        large = cv2.warpAffine(
            plane.reshape(small),
            to_prototypes,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        inside = (columns >= x1) & (columns < x2) & (rows >= y1) & (rows < y2)
        mask[:] = (large > 0) & inside
    return found


def _line(scale: float, padding: float, stride: float) -> tuple[float, float]:
    """Slope and offset of ``((x + 0.5) * scale + padding) * stride - 0.5``."""
    return scale * stride, (0.5 * scale + padding) * stride - 0.5

"""Detections in the outputs of ONNX files, as the common exporting tools name and shape them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchvision.ops import batched_nms

from stillrobust.errors import UserError
from stillrobust.names import format_count
from stillrobust.predictors.onnx_input import SIZE_INPUT
from stillrobust.predictors.onnx_session import OnnxFile
from stillrobust.samples import Array

# of Ultralytics' validation (ultralytics/cfg/default.yaml, ops.py): overlap, confidence, number
# of detections before and after non-maximum suppression
OVERLAP, CONFIDENCE, CANDIDATES, DETECTIONS = 0.7, 0.001, 30_000, 300
BOX_FORMATS = ("xyxy", "xywh", "cxcywh", "yxyx")
SCORE_KINDS = ("probabilities", "percent", "logits")
BOX_NAMES = ("boxes", "bboxes", "pred_boxes", "det_boxes")
LABEL_NAMES = ("labels", "classes", "class_ids", "pred_labels", "pred_classes", "det_classes")
SCORE_NAMES = ("scores", "pred_scores", "det_scores")
NMS_ROW, NMS_ROW_WITH_BATCH = 6, 7  # x1 y1 x2 y2 score class; batch x1 y1 x2 y2 class score


@dataclass(frozen=True)
class Raw:
    """Rows of detections as a file gives them.

    ``labels`` is (N,) with ``scores`` (N,), or ``None`` with ``scores`` (N, classes).
    ``coefficients`` (N, K) belong to the prototypes of masks.
    """

    boxes: Array
    scores: Array
    labels: Array | None
    coefficients: Array | None = None


Read = Callable[[Mapping[str, Array], int, str], Raw]
"""(outputs, number of classes, name of the file) -> rows."""


@dataclass(frozen=True)
class Convention:
    """How a file writes detections. ``None`` stands for what only the user knows."""

    name: str
    read: Read
    boxes: str | None = None
    normalized: bool = False
    first_label: int | None = 0
    suppress: bool = False
    """Whether non-maximum suppression is left to us."""
    dense: bool = False
    """Whether the number of classes follows from the shape of the scores."""
    prototypes: str = ""
    """Output (1, K, h, w) of the prototypes of masks, if there is one."""


def find_convention(file: OnnxFile, nms: float | bool | None) -> Convention:
    """Recognise how a file writes detections, from the names and ranks of its outputs.

    Args:
        file: The open file.
        nms: The option: ``False`` if the file suppresses overlapping boxes itself, an overlap if it
            does not, ``None`` if it is not given.

    Raises:
        UserError: If the outputs are of no known detector.
    """
    names = file.outputs
    rank = {name: len(file.shape(name)) for name in names}
    if {"logits", "pred_boxes"} <= set(names):
        return Convention("DETR", _read_detr, "cxcywh", normalized=True, dense=True)
    if {"dets", "labels"} <= set(names):
        return Convention("mmdeploy", _read_mmdeploy, "xyxy")
    if {"detection_boxes", "detection_classes", "detection_scores"} <= set(names):
        return Convention("TensorFlow", _read_tensorflow, "yxyx", normalized=True, first_label=1)
    if {"num_dets", "det_boxes", "det_scores", "det_classes"} <= set(names):
        return Convention("TensorRT's NMS plugin", _read_nms_plugin, "xyxy")
    boxes, labels, scores = (
        _first(names, known) for known in (BOX_NAMES, LABEL_NAMES, SCORE_NAMES)
    )
    if boxes and labels and scores:
        sized = SIZE_INPUT in {one.name for one in file.session.get_inputs()}
        return Convention(
            "RT-DETR" if sized else "boxes, labels, scores",
            lambda outputs, classes, name: Raw(outputs[boxes], outputs[scores], outputs[labels]),
            "xyxy" if sized else None,
            first_label=0 if sized else None,
        )
    if boxes and scores:
        return Convention(
            "boxes and scores of all classes",
            lambda outputs, classes, name: Raw(outputs[boxes], outputs[scores], None),
            first_label=None,
            suppress=nms is not False,
            dense=True,
        )
    if rank[names[0]] in (2, 3) and all(rank[name] >= 3 for name in names[1:]):
        return _yolo(file, nms)
    raise UserError(
        f"Expected the outputs of a known detector in {file.path}, but it has"
        f" {file.description()}; export it with boxes, labels and scores, or write a Python file"
        " (docs/how_to/your_model.md)"
    )


def _first(names: list[str], known: tuple[str, ...]) -> str:
    return next((name for name in known if name in names), "")


def _yolo(file: OnnxFile, nms: float | bool | None) -> Convention:
    name = file.outputs[0]
    shape = file.shape(name)
    arguments = file.metadata.get("args")
    did = file.metadata.get("end2end") is True or (
        isinstance(arguments, dict) and arguments.get("nms") is True
    )
    if len(shape) == 2:
        if shape[-1] != NMS_ROW_WITH_BATCH:
            raise _unknown_shape(file.path.name, name, shape)
        return Convention("YOLOv7 with NMS", lambda o, classes, f: _rows_of_7(o[name]), "xyxy")
    classes = file.metadata.get("names")
    few = len(classes) if isinstance(classes, dict | list) else None
    prototypes = next((one for one in file.outputs[1:] if len(file.shape(one)) == 4), "")
    planes = file.shape(prototypes)[1] if prototypes else 0
    extra = planes if isinstance(planes, int) else 0
    row = NMS_ROW + extra
    # six columns are also a YOLOv5 of one class, or a YOLOv8 of two that was transposed
    if shape[-1] == row and (did or nms is False or few not in (None, 1, 2)):
        return Convention(
            "YOLO with NMS",
            lambda o, classes, f: _rows_of_6(o[name], row),
            "xyxy",
            prototypes=prototypes,
        )
    if shape[-1] == row and nms is None and shape[-2] != row:
        raise UserError(
            f"Expected nms= for {file.path}, because rows of {row} numbers have two meanings"
            f" ({file.description()}); give nms=False if the file suppresses overlapping boxes"
            f" itself, or nms={OVERLAP} if it does not"
        )
    return Convention(
        "YOLO without NMS",
        lambda outputs, classes, f: _read_yolo(outputs[name], classes, extra, name, f),
        "cxcywh",
        suppress=True,
        dense=True,
        prototypes=prototypes,
    )


def _read_yolo(values: Array, classes: int, extra: int, name: str, file: str) -> Raw:
    """Read (4 + classes + extra, N) of YOLOv8 and later, or (N, 5 + classes + extra) of YOLOv5."""
    table = without_batch(name, values, 2, file)
    if table.shape[0] == 4 + classes + extra and table.shape[1] != 5 + classes + extra:
        table = table.T
    if table.shape[1] == 4 + classes + extra:
        return Raw(table[:, :4], table[:, 4 : 4 + classes], None, table[:, 4 + classes :])
    if table.shape[1] == 5 + classes + extra:
        scores = table[:, 4:5] * table[:, 5 : 5 + classes]
        return Raw(table[:, :4], scores, None, table[:, 5 + classes :])
    raise UserError(
        f"Expected {name} of {file} as ({4 + classes + extra}, N) or (N, {5 + classes + extra}) for"
        f" {format_count(classes, 'class')}, but got {values.shape}; give classes=[the names in"
        f" the model's order]"
    )


def _rows_of_6(values: Array, columns: int) -> Raw:
    table = values.reshape(-1, columns)
    return Raw(table[:, :4], table[:, 4], table[:, 5], table[:, NMS_ROW:])


def _rows_of_7(values: Array) -> Raw:
    table = values.reshape(-1, NMS_ROW_WITH_BATCH)
    return Raw(table[:, 1:5], table[:, 6], table[:, 5])


def _read_detr(outputs: Mapping[str, Array], classes: int, file: str) -> Raw:
    """Read softmax logits whose last class is no object, or sigmoid logits without it."""
    logits = torch.from_numpy(without_batch("logits", outputs["logits"], 2, file).copy()).float()
    if logits.shape[1] == classes + 1:
        best, labels = logits.softmax(1)[:, :-1].max(1)
        return Raw(outputs["pred_boxes"], best.numpy(), labels.numpy())
    if logits.shape[1] == classes:
        return Raw(outputs["pred_boxes"], logits.sigmoid().numpy(), None)
    raise UserError(
        f"Expected logits of {file} with {format_count(classes, 'class')}, and one more for no"
        f" object, but got"
        f" shape {outputs['logits'].shape}; give classes=[the names in the model's order]"
    )


def _read_mmdeploy(outputs: Mapping[str, Array], classes: int, file: str) -> Raw:
    dets = without_batch("dets", outputs["dets"], 2, file)
    if dets.shape[1] != 5:
        raise _unknown_shape(file, "dets", outputs["dets"].shape)
    return Raw(dets[:, :4], dets[:, 4], outputs["labels"])


def _read_tensorflow(outputs: Mapping[str, Array], classes: int, file: str) -> Raw:
    boxes = without_batch("detection_boxes", outputs["detection_boxes"], 2, file)
    labels = without_batch("detection_classes", outputs["detection_classes"], 1, file)
    scores = without_batch("detection_scores", outputs["detection_scores"], 1, file)
    number = int(np.ravel(outputs.get("num_detections", len(boxes)))[0])
    return Raw(boxes[:number], scores[:number], labels[:number])


def _read_nms_plugin(outputs: Mapping[str, Array], classes: int, file: str) -> Raw:
    number = int(np.ravel(outputs["num_dets"])[0])
    boxes = without_batch("det_boxes", outputs["det_boxes"], 2, file)
    scores = without_batch("det_scores", outputs["det_scores"], 1, file)
    labels = without_batch("det_classes", outputs["det_classes"], 1, file)
    return Raw(boxes[:number], scores[:number], labels[:number])


def _unknown_shape(file: str, name: str, shape: Any) -> UserError:
    return UserError(
        f"Expected the output of a known detector in {file}, but {name} has the shape"
        f" {tuple(shape)}; export it with boxes, labels and scores, or write a Python file"
        " (docs/how_to/your_model.md)"
    )


def without_batch(name: str, values: Array, ndim: int, file: str) -> Array:
    """Remove a batch axis of 1.

    Raises:
        UserError: If the array has another shape.
    """
    if values.ndim == ndim + 1 and values.shape[0] == 1:
        return values.reshape(values.shape[1:])
    if values.ndim != ndim:
        raise UserError(
            f"Expected {ndim} axes after a batch axis of 1 in {name} of {file}, but got the shape"
            f" {values.shape}; export the model for one image"
        )
    return values


def boxes_as_xyxy(boxes: Array, box_format: str) -> Array:
    """Convert boxes (N, 4) of one of ``BOX_FORMATS`` to xyxy."""
    first, second, third, fourth = boxes.T
    if box_format == "yxyx":
        return np.stack([second, first, fourth, third], 1)
    if box_format == "xywh":
        return np.stack([first, second, first + third, second + fourth], 1)
    if box_format == "cxcywh":
        half = boxes[:, 2:] / 2
        return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1)
    return boxes


def as_probabilities(scores: Array, kind: str) -> Array:
    """Convert scores of one of ``SCORE_KINDS`` to probabilities."""
    if kind == "logits":
        return np.asarray(1 / (1 + np.exp(-np.clip(scores, -80, 80))))
    return scores / 100 if kind == "percent" else scores


def candidates(scores: Array) -> tuple[Array, Array, Array]:
    """Turn scores of all classes into detections, the best ``CANDIDATES`` of them.

    Args:
        scores: (N, classes), 0..1.

    Returns:
        Rows (D,), labels (D,) and scores (D,), by descending score.
    """
    rows, labels = np.nonzero(scores > CONFIDENCE)
    found = scores[rows, labels]
    order = np.argsort(-found, kind="stable")[:CANDIDATES]
    return rows[order], labels[order], found[order]


def suppressed(boxes: Array, labels: Array, scores: Array, overlap: float) -> Array:
    """Return the indices that non-maximum suppression within each class keeps, best first."""
    kept: torch.Tensor = batched_nms(
        torch.from_numpy(np.ascontiguousarray(boxes, np.float32)),
        torch.from_numpy(np.ascontiguousarray(scores, np.float32)),
        torch.from_numpy(np.ascontiguousarray(labels, np.int64)),
        overlap,
    )
    indices: Array = kept[:DETECTIONS].numpy()
    return indices

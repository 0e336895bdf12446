"""ONNX files: classifiers, segmenters and detectors of the common exporting tools."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from stillrobust.errors import UserError
from stillrobust.names import format_count
from stillrobust.predictors import onnx_detections as detections
from stillrobust.predictors.labels import class_columns, dataset_labels
from stillrobust.predictors.onnx_input import OnnxInput, Placement, read_input
from stillrobust.predictors.onnx_masks import prototype_masks, soft_masks
from stillrobust.predictors.onnx_options import check_options, named_classes
from stillrobust.predictors.onnx_session import OnnxFile, open_onnx
from stillrobust.predictors.outputs import (
    classification_predictions,
    detection_prediction,
    segmentation_prediction,
)
from stillrobust.predictors.predictor import Predictor
from stillrobust.samples import Array, DatasetInfo, Image, Prediction

DETECTOR_OPTIONS = ("first_label", "boxes", "normalized", "scores", "nms")
SUM_ROUNDING = 1e-3  # of float16 probabilities; logits of this sum are not expected
NORMALIZED = 1.5  # largest coordinate of boxes relative to the image; they may stick out a little
MANY_PIXELS = 10  # no normalised coordinate is that large


def create_predictor(
    info: DatasetInfo,
    name: str,
    size: tuple[int, int] | None = None,
    layout: str | None = None,
    channels: str = "rgb",
    letterbox: bool | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    scale: float = 1,
    classes: str | Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    first_label: int | None = None,
    boxes: str | None = None,
    normalized: bool | None = None,
    scores: str | None = None,
    nms: float | bool | None = None,
) -> Predictor:
    """Load an ONNX file with ONNX Runtime.

    What the file does not tell has to be given: no range of the input, no format of boxes and no
    order of classes is assumed. ``Predictor.about`` holds what was recognised.

    Args:
        info: Description of the dataset.
        name: Path of the file.
        size: (H, W) to which images are resized, if the file does not fix it (default: the size of
            the image).
        layout: Axes of the input, ``'nchw'`` or ``'nhwc'`` (default: from its shape).
        channels: Order of the input's channels, ``'rgb'`` or ``'bgr'``.
        letterbox: Whether images keep their aspect ratio and are padded with grey (default: of
            exports of Ultralytics only).
        mean: Mean of each channel, one number for all.
        std: Standard deviation of each channel, one number for all.
        scale: Largest value of a pixel before mean and standard deviation, 1 or 255.
        classes: The model's class names in its order; ``'data'`` for those of the dataset,
            ``'coco'`` for the 80 of COCO, ``'coco91'`` for COCO's ids 0 to 90.
        labels: The dataset's name of a class by the model's name.
        first_label: A detector's index of the first class, 1 if 0 is the background.
        boxes: Format of boxes, ``'xyxy'``, ``'xywh'`` (left, top), ``'cxcywh'`` (centre) or
            ``'yxyx'``.
        normalized: Whether boxes are relative to the input, 0..1.
        scores: ``'probabilities'`` (default), ``'percent'`` or ``'logits'``.
        nms: Overlap above which boxes of a class are suppressed, for files that do not do it;
            ``False`` if the file does it.

    Raises:
        UserError: If the file cannot be loaded, has unknown inputs or outputs, or needs an option.
    """
    import onnxruntime

    options = check_options(
        {
            "size": size,
            "layout": layout,
            "channels": channels,
            "letterbox": letterbox,
            "mean": mean,
            "std": std,
            "scale": scale,
            "classes": classes,
            "first_label": first_label,
            "boxes": boxes,
            "normalized": normalized,
            "scores": scores,
            "nms": nms,
        }
    )
    file = open_onnx(Path(name).expanduser())
    missing: dict[str, str] = {}
    entrance = read_input(file, options, missing)
    names = named_classes(file, options["classes"], info)
    facts = entrance.facts()
    masks = "masks" in file.outputs
    if info.task == "detection":
        reader = _detector(file, entrance, options, names, info, labels or {}, missing)
        make: Callable[[dict[str, Array], Placement], Prediction] = reader.predict
        facts |= reader.facts()
        masks = masks or bool(reader.convention.prototypes)
    else:
        kind = _classify if info.task == "classification" else _segment
        make = kind(file, entrance, names, info, labels or {})
        given = [option for option in DETECTOR_OPTIONS if options[option] is not None]
        if given:
            raise UserError(
                f"Expected no options of detectors for {info.task}, but got {', '.join(given)};"
                " leave them out"
            )
    if missing:
        raise UserError(
            f"Expected options for what {file.path} does not tell: {'; '.join(missing.values())};"
            f" give {', '.join(missing)}, see docs/reference/models.md ({file.description()})"
        )

    def predict(images: list[Image]) -> list[Prediction]:
        found = []
        for image in images:
            feeds, placement = entrance.prepare(image)
            found.append(make(file.run(feeds), placement))
        return found

    return Predictor(
        task=info.task,
        model=f"onnx:{file.path.stem}",
        predict=predict,
        weights=file.sha256,
        classes=info.classes,
        masks=info.task != "detection" or masks,
        about={
            "read_as": facts,
            "model_classes": None if names is None else list(names),
            "file": file.sha256,
            "onnxruntime": onnxruntime.__version__,
        },
    )


def _classify(
    file: OnnxFile,
    entrance: OnnxInput,
    names: Sequence[str] | None,
    info: DatasetInfo,
    labels: Mapping[str, str],
) -> Callable[[dict[str, Array], Placement], Prediction]:
    def predict(outputs: dict[str, Array], placement: Placement) -> Prediction:
        values = outputs[file.outputs[0]]
        flat = values.reshape(-1)
        if values.size != max(values.shape, default=0) or values.dtype.kind != "f":
            raise UserError(
                f"Expected logits or probabilities (1, K) from {file.path.name}, but"
                f" {file.outputs[0]} is {values.dtype} {values.shape}; export it so"
            )
        columns = class_columns(info, names, flat.size, labels, _described(file, values))
        if (flat >= 0).all() and abs(flat.sum() - 1) < SUM_ROUNDING:  # probabilities already
            with np.errstate(divide="ignore"):
                flat = np.log(flat)
        return classification_predictions(torch.from_numpy(flat[None].copy()), columns)[0]

    return predict


def _segment(
    file: OnnxFile,
    entrance: OnnxInput,
    names: Sequence[str] | None,
    info: DatasetInfo,
    labels: Mapping[str, str],
) -> Callable[[dict[str, Array], Placement], Prediction]:
    count = len(names or info.classes)

    def predict(outputs: dict[str, Array], placement: Placement) -> Prediction:
        values = outputs[file.outputs[0]]
        described = _described(file, values)
        if (
            values.ndim > 2
            and values.dtype.kind in "iu"
            and values.size == np.prod(sorted(values.shape)[-2:])
        ):
            return _from_label_map(values, placement, described)
        if values.ndim != 4 or values.shape[0] != 1:
            raise UserError(
                f"Expected logits (1, {count}, h, w) or (1, h, w, {count}), or an integer label map"
                f" (1, h, w), but got {described}; export it so"
            )
        first, last = values.shape[1] == count, values.shape[3] == count
        if not first and not last:
            raise UserError(
                f"Expected {format_count(count, 'class')} on the axis 1 or 3 of the logits, but"
                f" got {described};"
                " give classes=[the names in the model's order], or export all classes' logits"
            )
        channels_last = last and (not first or entrance.layout == "nhwc")
        planes = values[0].transpose(2, 0, 1) if channels_last else values[0]
        columns = class_columns(info, names, count, labels, described)
        cropped = np.ascontiguousarray(placement.crop(planes))
        return segmentation_prediction(torch.from_numpy(cropped), placement.image, columns)

    def _from_label_map(values: Array, placement: Placement, described: str) -> Prediction:
        columns = class_columns(info, names, count, labels, described)
        height, width = (one for one in values.shape if one != 1)
        found = values.reshape(height, width)
        inside = (found >= 0) & (found < count)
        table = dataset_labels(columns, count)[np.where(inside, found, 0)]
        if not inside.all() or (table < 0).any():
            raise UserError(
                f"Expected labels of the {format_count(len(info.classes), 'class')} of"
                f" {info.name}, but got"
                f" {described} with labels from {found.min()} to {found.max()}; give classes=[the"
                " names in the model's order], or export logits in place of argmax"
            )
        small = placement.crop(table.astype(np.uint8))
        return Prediction(
            label_map=cv2.resize(small, placement.image[::-1], interpolation=cv2.INTER_NEAREST)
        )

    return predict


def _described(file: OnnxFile, values: Array) -> str:
    return f"{file.path.name} with {file.outputs[0]} {values.dtype} {values.shape}"


@dataclass
class _Detector:
    """Reads detections of one file, after its convention and options are settled."""

    file: str
    convention: detections.Convention
    names: Sequence[str]
    columns: Array
    boxes: str
    normalized: bool
    first_label: int
    scores: str
    overlap: float | None
    in_pixels: bool = False
    """Whether a box larger than a normalised one was seen."""

    def facts(self) -> dict[str, Any]:
        """Return what is stored with the run."""
        return {
            "outputs": self.convention.name,
            "boxes": self.boxes,
            "normalized": self.normalized,
            "first_label": self.first_label,
            "scores": self.scores,
            "nms": self.overlap,
            **({"masks": "prototypes"} if self.convention.prototypes else {}),
        }

    def predict(self, outputs: dict[str, Array], placement: Placement) -> Prediction:
        """Convert the outputs of one image."""
        background = self.first_label if self.convention.dense else 0
        raw = self.convention.read(outputs, len(self.names) + background, self.file)
        boxes = detections.without_batch("boxes", raw.boxes, 2, self.file).astype(np.float64)
        dense = raw.labels is None
        scores = detections.without_batch("scores", raw.scores, 2 if dense else 1, self.file)
        scores = detections.as_probabilities(scores.astype(np.float64), self.scores)
        if raw.labels is None:
            self._require_rows(boxes, scores, scores)
            if scores.shape[1] != len(self.names) + background:
                raise UserError(
                    f"Expected scores of {format_count(len(self.names) + background, 'class')}"
                    f" from {self.file},"
                    f" but got the shape {scores.shape}; give classes=[the names in the model's"
                    " order], and first_label=1 if the first is the background"
                )
            rows, labels, scores = detections.candidates(scores[:, background:])
            boxes = boxes[rows]
        else:
            labels = detections.without_batch("labels", raw.labels, 1, self.file)
            labels = labels.astype(np.float64)
            self._require_rows(boxes, labels, scores)
            # exports pad with rows of no score, whose label is -1 or whose box is empty
            padding = (scores <= 0) & ((labels < 0) | (boxes == boxes[:, :1]).all(1))
            rows = np.flatnonzero(~padding)
            first = 0 if self.convention.dense else self.first_label
            boxes, labels, scores = boxes[rows], labels[rows] - first, scores[rows]
        boxes = self._in_input_pixels(boxes, placement)
        kept = np.arange(min(len(boxes), detections.DETECTIONS) if dense else len(boxes))
        if self.overlap is not None:
            kept = detections.suppressed(boxes, labels, scores, self.overlap)
        placed, rows = placement.boxes_to_image(boxes[kept]), rows[kept]
        masks = None
        if self.convention.prototypes and raw.coefficients is not None:
            planes = detections.without_batch(
                "prototypes", outputs[self.convention.prototypes], 3, self.file
            )
            masks = prototype_masks(planes, raw.coefficients[rows], placed, placement)
        elif "masks" in outputs:
            planes = outputs["masks"]
            masks = soft_masks(planes.reshape(-1, *planes.shape[-2:])[rows], placement, self.file)
        return detection_prediction(
            placed,
            labels[kept],
            scores[kept],
            masks,
            placement.image,
            self.columns,
            len(self.names),
            f"{self.file} (boxes='{self.boxes}', first_label={self.first_label},"
            f" {format_count(len(self.names), 'class')})",
        )

    def _require_rows(self, boxes: Array, labels: Array, scores: Array) -> None:
        if boxes.shape != (len(labels), 4) or len(scores) != len(labels):
            raise UserError(
                f"Expected boxes (N, 4), labels (N,) and scores (N,) from {self.file}, but got the"
                f" shapes {boxes.shape}, {labels.shape} and {scores.shape}; export it so"
            )

    def _in_input_pixels(self, boxes: Array, placement: Placement) -> Array:
        corners = detections.boxes_as_xyxy(boxes, self.boxes)
        largest = float(np.abs(boxes).max(initial=0))
        if self.normalized:
            if largest > MANY_PIXELS:
                raise UserError(
                    f"Expected normalised boxes of 0..1 from {self.file}, but got values to"
                    f" {largest:.4g}; give normalized=False"
                )
            scaled: Array = corners * np.array([*placement.input[::-1]] * 2)
            return scaled
        if len(boxes) and largest > 0 and not self.in_pixels:
            if largest <= NORMALIZED:
                raise UserError(
                    f"Expected boxes in pixels of the input {placement.input} from {self.file}, but"
                    f" all values are within 0..{largest:.4g}; give normalized=True"
                )
            self.in_pixels = True
        return corners


def _detector(
    file: OnnxFile,
    entrance: OnnxInput,
    options: Mapping[str, Any],
    names: Sequence[str] | None,
    info: DatasetInfo,
    labels: Mapping[str, str],
    missing: dict[str, str],
) -> _Detector:
    convention = detections.find_convention(file, options["nms"])
    box_format = options["boxes"] or convention.boxes
    first = options["first_label"]
    first = convention.first_label if first is None else first
    normalized = options["normalized"]
    overlap = options["nms"]
    if box_format is None:
        missing["boxes"] = f"boxes as one of {', '.join(map(repr, detections.BOX_FORMATS))}"
    if first is None:
        missing["first_label"] = "first_label=0, or 1 if 0 is the background"
    if names is None and not convention.dense:
        missing["classes"] = "classes as a list in the model's order, 'data', 'coco' or 'coco91'"
    yolo = convention.suppress and convention.boxes is not None
    if yolo and options["letterbox"] is None and not file.from_ultralytics:
        missing["letterbox"] = "letterbox=True, or False if images are stretched"
    names = names or info.classes
    default_overlap = detections.OVERLAP if convention.suppress else None
    return _Detector(
        file.path.name,
        convention,
        names,
        class_columns(info, names, len(names), labels, file.path.name),
        box_format or "xyxy",
        convention.normalized if normalized is None else normalized,
        first or 0,
        options["scores"] or detections.SCORE_KINDS[0],
        None if overlap is False else overlap or default_overlap,
    )

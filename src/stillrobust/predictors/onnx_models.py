"""ONNX files through ONNX Runtime: a classifier, a segmenter, or a detector with torchvision's
output names.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from stillrobust.errors import UserError
from stillrobust.predictors.labels import class_columns
from stillrobust.predictors.outputs import (
    classification_predictions,
    detection_prediction,
    segmentation_prediction,
)
from stillrobust.predictors.predictor import Predictor
from stillrobust.samples import Array, DatasetInfo, Image, Prediction
from stillrobust.storage.files import file_sha256

DETECTOR_OUTPUTS = ("boxes", "labels", "scores")
MASK_THRESHOLD = 0.5  # of soft masks, as torchvision exports them
# ImageNet's, which nearly every exported backbone expects
NORMALISE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def onnx_predictor(
    info: DatasetInfo,
    name: str,
    size: tuple[int, int] | None = None,
    mean: tuple[float, float, float] = NORMALISE[0],
    std: tuple[float, float, float] = NORMALISE[1],
    first_label: int = 0,
    classes: tuple[str, ...] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Predictor:
    """``name``: a file with one float32 input (1, 3, H, W) RGB, ``(x / 255 - mean) / std``.

    ``size``: (H, W) to which images are stretched, where the file does not fix it; ``None`` in a
    file of any size: as they are.
    Outputs: logits (1, K), or logits (1, K, h, w), or ``boxes`` xyxy in input pixels, ``labels``
    and ``scores`` (and ``masks`` (N, 1, H, W) 0..1). ``first_label``: the detector's number of the
    first class, 1 where 0 is a background. ``classes``: the model's names in its order; without
    them it has the data's. ``labels``: its name -> the data's.
    """
    import onnxruntime

    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"Expected an ONNX file at {path}, but there is none; check the path")
    try:
        session = onnxruntime.InferenceSession(
            str(path), providers=onnxruntime.get_available_providers()
        )
    except Exception as error:  # its errors share no base
        raise UserError(
            f"ONNX Runtime cannot load {path}: {str(error).splitlines()[0][:200]}"
        ) from None
    source, fixed = _input(session, path)
    shown = fixed or size
    given = [output.name for output in session.get_outputs()]
    if info.task == "detection" and not set(DETECTOR_OUTPUTS) <= set(given):
        raise UserError(
            f"Expected outputs named {', '.join(DETECTOR_OUTPUTS)} in {path}, but got"
            f" {', '.join(given)}; export it so"
        )

    def run(image: Image) -> dict[str, Array]:
        pixels = (
            image
            if shown is None
            else cv2.resize(image, (shown[1], shown[0]), interpolation=cv2.INTER_LINEAR)
        )
        values = (pixels.astype(np.float32) / 255 - np.array(mean, np.float32)) / np.array(
            std, np.float32
        )
        planes = np.ascontiguousarray(values.transpose(2, 0, 1)[None])
        return dict(zip(given, session.run(given, {source: planes}), strict=True))

    def predict(images: list[Image]) -> list[Prediction]:
        return [make(image, run(image)) for image in images]

    def classify(image: Image, outputs: dict[str, Array]) -> Prediction:
        logits = outputs[given[0]]
        return classification_predictions(
            torch.from_numpy(logits),
            class_columns(info, classes, logits.shape[1], labels or {}, path.name),
        )[0]

    def segment(image: Image, outputs: dict[str, Array]) -> Prediction:
        logits = outputs[given[0]][0]
        columns = class_columns(info, classes, logits.shape[0], labels or {}, path.name)
        return segmentation_prediction(
            torch.from_numpy(logits), (image.shape[0], image.shape[1]), columns
        )

    def detect(image: Image, outputs: dict[str, Array]) -> Prediction:
        number = len(classes or info.classes)
        columns = class_columns(info, classes, number, labels or {}, path.name)
        height, width = image.shape[:2]
        scale = (1.0, 1.0) if shown is None else (height / shown[0], width / shown[1])
        boxes = outputs["boxes"].reshape(-1, 4) * np.array(
            [scale[1], scale[0], scale[1], scale[0]], np.float32
        )
        masks = None
        if "masks" in outputs:
            soft = [
                cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
                for mask in outputs["masks"][:, 0]
            ]
            masks = np.stack(soft) > MASK_THRESHOLD if soft else np.zeros((0, height, width), bool)
        return detection_prediction(
            boxes,
            outputs["labels"] - first_label,
            outputs["scores"],
            masks,
            (height, width),
            columns,
            number,
        )

    make = {"classification": classify, "segmentation": segment, "detection": detect}[info.task]
    return Predictor(
        task=info.task,
        model=f"onnx:{path.stem}",
        predict=predict,
        weights=file_sha256(path),
        classes=info.classes,
        masks="masks" in given,
        about={"size": shown, "mean": mean, "std": std, "onnxruntime": onnxruntime.__version__},
    )


def _input(session: Any, path: Path) -> tuple[str, tuple[int, int] | None]:
    """The input's name, and (H, W) where the file fixes it."""
    inputs = session.get_inputs()
    shape = inputs[0].shape if inputs else []
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(shape) != 4 or shape[1] != 3:
        told = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
        raise UserError(
            f"Expected one float32 input (1, 3, H, W) in {path}, but got {told}; export the"
            " model so"
        )
    height, width = shape[-2:]
    return inputs[0].name, (
        (height, width) if isinstance(height, int) and isinstance(width, int) else None
    )

"""ONNX files: classifiers, segmenters, and detectors with torchvision's output names."""

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
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as most models expect


def create_predictor(
    info: DatasetInfo,
    name: str,
    size: tuple[int, int] | None = None,
    mean: tuple[float, float, float] = MEAN,
    std: tuple[float, float, float] = STD,
    first_label: int = 0,
    classes: tuple[str, ...] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Predictor:
    """Load an ONNX file with ONNX Runtime.

    The model has one input, float32 (1, 3, H, W) RGB, ``(x / 255 - mean) / std``. Its outputs are
    logits (1, K), logits (1, K, h, w), or ``boxes`` xyxy in input pixels, ``labels``, ``scores``
    and optionally ``masks`` (N, 1, H, W) 0..1.

    Args:
        info: Description of the dataset.
        name: Path of the file.
        size: (H, W) to which images are stretched, if the file does not fix it (default: as they
            are).
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        first_label: A detector's index of the first class, 1 if 0 is the background.
        classes: The model's class names in its order (default: the dataset's).
        labels: The dataset's name of a class by the model's name.

    Raises:
        UserError: If the file cannot be loaded or has other inputs or outputs.
    """
    import onnxruntime

    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"Expected an ONNX file at {path}, but there is none; check the path")
    try:
        session = onnxruntime.InferenceSession(
            str(path), providers=onnxruntime.get_available_providers()
        )
    except Exception as error:  # its errors have no common base class
        raise UserError(
            f"ONNX Runtime cannot load {path}: {str(error).splitlines()[0][:200]}"
        ) from None
    source, fixed = _input(session, path)
    input_size = fixed or size
    given = [output.name for output in session.get_outputs()]
    if info.task == "detection" and not set(DETECTOR_OUTPUTS) <= set(given):
        raise UserError(
            f"Expected outputs named {', '.join(DETECTOR_OUTPUTS)} in {path}, but got"
            f" {', '.join(given)}; export it so"
        )

    def run(image: Image) -> dict[str, Array]:
        pixels = (
            image
            if input_size is None
            else cv2.resize(image, (input_size[1], input_size[0]), interpolation=cv2.INTER_LINEAR)
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
        scale = (
            (1.0, 1.0) if input_size is None else (height / input_size[0], width / input_size[1])
        )
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
        about={
            "size": input_size,
            "mean": mean,
            "std": std,
            "onnxruntime": onnxruntime.__version__,
        },
    )


def _input(session: Any, path: Path) -> tuple[str, tuple[int, int] | None]:
    """Return the input's name, and (H, W) if the file fixes it."""
    inputs = session.get_inputs()
    shape = inputs[0].shape if inputs else []
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(shape) != 4 or shape[1] != 3:
        found = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
        raise UserError(
            f"Expected one float32 input (1, 3, H, W) in {path}, but got {found}; export the"
            " model so"
        )
    height, width = shape[-2:]
    return inputs[0].name, (
        (height, width) if isinstance(height, int) and isinstance(width, int) else None
    )

"""Detectors of Ultralytics (YOLO, RT-DETR), with or without masks, from ``.pt`` files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from stillrobust.backbones.reader import digest, kind_of_path
from stillrobust.backbones.strict_loading import require_possible_values
from stillrobust.errors import UserError
from stillrobust.predictors.labels import class_columns
from stillrobust.predictors.outputs import class_names, detection_prediction
from stillrobust.predictors.predictor import Predictor, prediction_identity
from stillrobust.samples import DatasetInfo, Image, Prediction

# as in Ultralytics' validation: ultralytics/cfg/default.yaml (conf 0.001 in val mode, iou 0.7,
# max_det 300)
CONFIDENCE, OVERLAP, DETECTIONS = 0.001, 0.7, 300


def create_predictor(
    info: DatasetInfo, name: str, size: int = 640, labels: Mapping[str, str] | None = None
) -> Predictor:
    """Load a detector of Ultralytics.

    A ``.pt`` file is a pickle. It may name known classes of Ultralytics and torch only, so that it
    runs no code (``ULTRALYTICS_SAFE_LOAD`` in ``stillrobust.extras``).

    Args:
        info: Description of the dataset.
        name: A ``.pt`` file, or the ``.yaml`` of an architecture for random weights.
        size: Longer side of the model's input, in pixels.
        labels: The dataset's name of a class by the model's name.

    Raises:
        UserError: If the model cannot be loaded or does not fit the dataset.
    """
    if info.task != "detection":
        raise UserError(
            f"Ultralytics has detectors, but {info.name} is data for {info.task}; give coco:PATH"
        )
    path = Path(name).expanduser()
    if path.suffix not in (".pt", ".yaml") or (
        path.suffix == ".pt" and kind_of_path(path) != "a file"
    ):
        raise UserError(
            f"Expected a .pt file that is there, or an architecture's .yaml, but got {name!r};"
            " check the path"
        )
    from ultralytics import YOLO, __version__, utils  # type: ignore[attr-defined]

    if not hasattr(utils, "SAFE_LOAD"):
        raise UserError(
            f"Ultralytics {__version__} runs the code in a .pt file; install a later version with"
            " pip install -U ultralytics-opencv-headless"
        )
    try:
        model: Any = YOLO(name)
    except Exception as error:  # their loader raises errors of any type
        raise UserError(
            f"Ultralytics cannot load {name}: {str(error).splitlines()[0][:200]}"
        ) from None
    require_possible_values(model.model, name)
    if model.task not in ("detect", "segment"):
        raise UserError(
            f"Expected a model that detects or segments instances, but {name} is for"
            f" {model.task!r}; give another"
        )
    names = class_names(model.names)
    columns = class_columns(info, names, len(names), labels or {}, name)
    masks = model.task == "segment"

    def predict(images: list[Image]) -> list[Prediction]:
        # arrays are BGR, as OpenCV reads them
        batch = [cv2.cvtColor(image, cv2.COLOR_RGB2BGR) for image in images]
        found = model.predict(
            batch,
            imgsz=size,
            conf=CONFIDENCE,
            iou=OVERLAP,
            max_det=DETECTIONS,
            retina_masks=True,
            verbose=False,
            save=False,
        )
        return [_prediction(one, image.shape[:2]) for one, image in zip(found, images, strict=True)]

    def _prediction(one: Any, shape: tuple[int, ...]) -> Prediction:
        boxes = one.boxes.cpu().numpy()
        own = one.masks
        drawn = None
        if masks:
            drawn = np.zeros((0, *shape), bool) if own is None else own.data.cpu().numpy() > 0.5
        return detection_prediction(
            boxes.xyxy,
            boxes.cls,
            boxes.conf,
            drawn,
            (shape[0], shape[1]),
            columns,
            len(names),
            name,
        )

    return Predictor(
        task="detection",
        model=f"ultralytics:{Path(name).stem}",
        predict=predict,
        weights=prediction_identity(
            digest(model.model.state_dict()), architecture=model.model.yaml, classes=names
        ),
        classes=info.classes,
        masks=masks,
        about={"size": size, "confidence": CONFIDENCE, "nms": OVERLAP, "ultralytics": __version__},
    )

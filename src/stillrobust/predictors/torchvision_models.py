"""Classifiers, detectors and segmenters of torchvision, with the preprocessing of their weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from stillrobust.backbones.hubs import torchvision_file
from stillrobust.backbones.reader import digest
from stillrobust.backbones.strict_loading import load_weight_file, require_key
from stillrobust.errors import UserError
from stillrobust.names import format_spec, unknown_name_error
from stillrobust.predictors.labels import class_columns
from stillrobust.predictors.outputs import (
    classification_predictions,
    default_device,
    detection_prediction,
    float_tensor,
    segmentation_prediction,
)
from stillrobust.predictors.predictor import Predict, Predictor, prediction_identity
from stillrobust.samples import DatasetInfo, Image, Prediction

MODULES = {
    "classification": torchvision.models,
    "detection": torchvision.models.detection,
    "segmentation": torchvision.models.segmentation,
}
MASK_THRESHOLD = 0.5  # torchvision's own convention for the soft masks of Mask R-CNN


def create_predictor(
    info: DatasetInfo,
    name: str,
    weights: str = "DEFAULT",
    key: str | None = None,
    classes: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> Predictor:
    """Load a model of torchvision.

    Args:
        info: Description of the dataset.
        name: torchvision's name of the model.
        weights: Name of published weights (fetched before), ``'random'``, or the path
            of a file.
        key: Path of the weights in the file, such as ``'model_ema'`` (default: they are found).
        classes: Number of classes, if it is not the published one. They are then the dataset's in
            their order. A detector's background is not counted; it has the index 0.
        labels: The dataset's name of a class by the model's name.

    Raises:
        UserError: If model or weights are unknown or do not fit the dataset.
    """
    known = torchvision.models.list_models(module=MODULES[info.task])
    if name not in known:
        raise unknown_name_error(f"torchvision model for {info.task}", name, known)
    enum = torchvision.models.get_model_weights(name)
    published = weights != "random" and not Path(weights).expanduser().exists()
    if published and weights not in enum.__members__:
        raise UserError(
            f"Expected weights of {name} as {', '.join(enum.__members__)}, 'random' or the path of"
            f" a file, but got {weights!r}; name one of these"
        )
    place = require_key(key, weights if published or weights == "random" else "")
    chosen = enum[weights] if published else enum.DEFAULT
    if published:
        torchvision_file(name, chosen)  # torchvision downloads what is missing
    published_names = chosen.meta["categories"]
    background = int(info.task == "detection")
    outputs = len(published_names) if classes is None else classes + background
    arguments: dict[str, Any] = (
        {"weights": chosen} if published else {"weights": None, "num_classes": outputs}
    )
    if info.task != "classification" and not published:
        arguments["weights_backbone"] = None
    model = torchvision.models.get_model(name, **arguments)
    if not published and weights != "random":
        load_weight_file(model, Path(weights), place)
    transform = chosen.transforms()
    head = (
        info,
        published_names if classes is None else None,
        outputs,
        labels or {},
    )
    model = model.eval().to(default_device())
    named = {"weights": weights} | ({"key": key} if key else {})
    preprocessing = " ".join(repr(transform).split())
    return Predictor(
        task=info.task,
        model=f"torchvision:{format_spec(name, named)}",
        predict=_PREDICTS[info.task](model, transform, *head),
        weights=prediction_identity(digest(model.state_dict()), preprocessing=preprocessing),
        classes=info.classes,
        masks=name.startswith("maskrcnn"),
        about={
            "preprocessing": preprocessing,
            "torchvision": torchvision.__version__,
        },
    )


def _classifier(
    model: nn.Module,
    transform: Any,
    info: DatasetInfo,
    names: list[str] | None,
    outputs: int,
    labels: Mapping[str, str],
) -> Predict:
    columns = class_columns(info, names, outputs, labels, "The classifier")

    def predict(images: list[Image]) -> list[Prediction]:
        batch = torch.stack([transform(_byte_tensor(image)) for image in images]).to(
            default_device()
        )
        return classification_predictions(model(batch), columns)

    return predict


def _segmenter(
    model: nn.Module,
    transform: Any,
    info: DatasetInfo,
    names: list[str] | None,
    outputs: int,
    labels: Mapping[str, str],
) -> Predict:
    columns = class_columns(info, names, outputs, labels, "The segmenter")

    def predict(images: list[Image]) -> list[Prediction]:
        found = []
        for image in images:
            logits = model(transform(_byte_tensor(image))[None].to(default_device()))["out"][0]
            found.append(segmentation_prediction(logits, (image.shape[0], image.shape[1]), columns))
        return found

    return predict


def _detector(
    model: nn.Module,
    transform: Any,
    info: DatasetInfo,
    names: list[str] | None,
    outputs: int,
    labels: Mapping[str, str],
) -> Predict:
    # index 0 is the background; without names the dataset's classes follow it
    columns = class_columns(
        info, names, outputs if names else outputs - 1, labels, "The detector"
    ) + (names is None)

    def predict(images: list[Image]) -> list[Prediction]:
        outputs_of: list[dict[str, Tensor]] = model(
            [float_tensor(image).to(default_device()) for image in images]
        )
        found = []
        for image, output in zip(images, outputs_of, strict=True):
            masks = (
                (output["masks"][:, 0] > MASK_THRESHOLD).cpu().numpy()
                if "masks" in output
                else None
            )
            boxes, numbers, scores = (
                output[key].cpu().numpy() for key in ("boxes", "labels", "scores")
            )
            found.append(
                detection_prediction(
                    boxes,
                    numbers,
                    scores,
                    masks,
                    (image.shape[0], image.shape[1]),
                    columns,
                    outputs,
                    "the detector",
                )
            )
        return found

    return predict


def _byte_tensor(image: Image) -> Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


_PREDICTS = {"classification": _classifier, "segmentation": _segmenter, "detection": _detector}

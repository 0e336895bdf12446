"""Classifiers, detectors and segmenters of torchvision, with the preprocessing of their weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torchvision
from torch import Tensor, nn

from stillrobust.backbones.hubs import torchvision_file
from stillrobust.backbones.reader import digest, kind_of_path, read_weights
from stillrobust.backbones.strict_loading import (
    load_weight_file,
    require_key,
    require_possible_values,
)
from stillrobust.errors import UserError
from stillrobust.names import format_spec, unknown_name_error
from stillrobust.predictors.folding import fold_batch_norm
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
    published = weights != "random" and kind_of_path(Path(weights).expanduser()) == "nothing"
    if published and weights not in enum.__members__:
        raise UserError(
            f"Expected weights of {name} as {', '.join(enum.__members__)}, 'random' or the path of"
            f" a file, but got {weights!r}; name one of these"
        )
    place = require_key(key, weights if published or weights == "random" else "")
    chosen = enum[weights] if published else enum.DEFAULT
    published_names = chosen.meta["categories"]
    background = int(info.task == "detection")
    outputs = len(published_names) if classes is None else classes + background
    arguments: dict[str, Any] = {"weights": None, "num_classes": outputs}
    if info.task != "classification":
        arguments["weights_backbone"] = None
    if published:
        model = _published_model(name, chosen)
    else:
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
    model = model.eval().to(default_device()).to(memory_format=torch.channels_last)
    weights_digest = digest(model.state_dict())
    predict = _PREDICTS[info.task](model, transform, *head)
    fold_batch_norm(model, predict)
    named = {"weights": weights} | ({"key": key} if key else {})
    preprocessing = " ".join(repr(transform).split())
    return Predictor(
        task=info.task,
        model=f"torchvision:{format_spec(name, named)}",
        predict=predict,
        weights=prediction_identity(weights_digest, preprocessing=preprocessing),
        classes=info.classes,
        masks=name.startswith("maskrcnn"),
        about={
            "preprocessing": preprocessing,
            "torchvision": torchvision.__version__,
        },
    )


def _published_model(name: str, weights: Any) -> nn.Module:
    """The model with published weights, which our reader reads from torch's cache.

    torchvision builds another architecture where there are weights, such as frozen BatchNorm, and
    renames old keys. So it builds the model, and receives the tensors of our reader.
    """
    path = torchvision_file(name, weights)
    content = read_weights(path)
    # torchvision's files are named with the first digits of their SHA-256
    if not content.sha256.startswith(path.stem.rpartition("-")[2]):
        raise UserError(
            f"Expected the weights that torchvision published in {path}, but the file has another"
            " SHA-256 than its name says; remove it and fetch it again"
        )
    with patch.object(type(weights), "get_state_dict", lambda *_, **__: dict(content.tensors)):
        try:
            model: nn.Module = torchvision.models.get_model(name, weights=weights)
        except RuntimeError as error:
            raise UserError(
                f"Expected the weights of {name} in {path}, but they do not fit:"
                f" {' '.join(str(error).split())[:200]}; remove the file and fetch it again"
            ) from None
    require_possible_values(model, str(path))
    return model


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

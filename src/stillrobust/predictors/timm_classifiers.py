"""Classifiers of timm, with the preprocessing of their pretrained configuration."""

from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from PIL import Image as PillowImage

from stillrobust.backbones.hubs import timm_file
from stillrobust.backbones.reader import digest, read_weights
from stillrobust.backbones.strict_loading import load_weight_file, require_key
from stillrobust.backbones.timm_models import create_timm_model
from stillrobust.data.official.imagenet import wordnet_ids
from stillrobust.errors import UserError
from stillrobust.names import format_spec
from stillrobust.predictors.folding import fold_batch_norm
from stillrobust.predictors.labels import class_columns
from stillrobust.predictors.outputs import classification_predictions, default_device
from stillrobust.predictors.predictor import Predictor, prediction_identity
from stillrobust.samples import DatasetInfo, Image, Prediction


def create_predictor(
    info: DatasetInfo,
    name: str,
    weights: str = "pretrained",
    key: str | None = None,
    classes: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> Predictor:
    """Load a classifier of timm.

    Args:
        info: Description of the dataset.
        name: timm's name of the model.
        weights: ``'pretrained'`` (timm's own, fetched before), ``'random'``, or the path of a file.
        key: Path of the weights in the file, such as ``'model_ema'`` (default: they are found).
        classes: Number of classes, if it is not the published one. They are then the dataset's in
            their order.
        labels: The dataset's name of a class by the model's name.

    Raises:
        UserError: If the model is unknown or does not fit the dataset.
    """
    if info.task != "classification":
        raise UserError(
            f"timm has classifiers, but {info.name} is data for {info.task}; transfer one as a"
            " backbone first"
        )
    from_file = weights not in ("pretrained", "random")
    place = require_key(key, "" if from_file else weights)
    own = read_weights(timm_file(name)).tensors if weights == "pretrained" else None
    model = create_timm_model(name, own, num_classes=classes)
    if from_file:
        load_weight_file(model, Path(weights), place)
    outputs = int(model.num_classes)  # type: ignore[arg-type]
    # timm has class names for ImageNet-1k only; other classes are taken as the dataset's
    names = wordnet_ids() if classes is None and outputs == 1000 else None
    columns = class_columns(info, names, outputs, labels or {}, f"timm's {name}")
    transform = timm.data.create_transform(
        **timm.data.resolve_model_data_config(model), is_training=False
    )
    model = model.eval().to(default_device()).to(memory_format=torch.channels_last)
    arguments = {"weights": weights} | ({"key": key} if key else {})
    preprocessing = " ".join(repr(transform).split())

    def predict(images: list[Image]) -> list[Prediction]:
        batch = torch.stack([transform(PillowImage.fromarray(image)) for image in images]).to(
            default_device()
        )
        return classification_predictions(model(batch), columns)

    weights_digest = digest(model.state_dict())
    fold_batch_norm(model, predict)
    return Predictor(
        task="classification",
        model=f"timm:{format_spec(name, arguments)}",
        predict=predict,
        weights=prediction_identity(weights_digest, preprocessing=preprocessing),
        classes=info.classes,
        about={"preprocessing": preprocessing, "timm": timm.__version__},
    )

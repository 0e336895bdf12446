"""Hugging Face models for classification, detection and segmentation, with their processors."""

import inspect
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import transformers
from torch import Tensor
from torch.nn import functional

from stillrobust.backbones.hubs import transformers_folder
from stillrobust.backbones.reader import digest
from stillrobust.backbones.strict_loading import require_possible_values, tensor_names
from stillrobust.errors import UserError
from stillrobust.predictors.folding import fold_batch_norm
from stillrobust.predictors.labels import class_columns
from stillrobust.predictors.outputs import (
    class_names,
    classification_predictions,
    default_device,
    detection_prediction,
    mask_boxes,
    segmentation_prediction,
)
from stillrobust.predictors.predictor import Predict, Predictor, prediction_identity
from stillrobust.samples import DatasetInfo, Image, Prediction
from stillrobust.user_files import error_summary

UNIVERSAL = "AutoModelForUniversalSegmentation"
# heads for each task, in the order in which they are tried
HEADS = {
    "classification": ("AutoModelForImageClassification",),
    "detection": ("AutoModelForObjectDetection", UNIVERSAL),
    "segmentation": ("AutoModelForSemanticSegmentation", UNIVERSAL),
}
# heads that are not evaluated: why, and what would be
UNSUITED = {
    "AutoModelForMaskGeneration": (
        "proposes masks without classes, for given points or boxes, so that no class is scored",
        "give a Mask2Former, or a Python file that prompts it and names classes",
    ),
    "AutoModelForZeroShotObjectDetection": (
        "finds what a text names, so that its classes depend on a prompt",
        "give a detector that was trained for classes, or a Python file that prompts it",
    ),
    "AutoModelForZeroShotImageClassification": (
        "compares an image with texts, so that its classes depend on prompts",
        "give a classifier that was fine-tuned, or a Python file that prompts it",
    ),
}


def create_predictor(
    info: DatasetInfo, name: str, labels: Mapping[str, str] | None = None
) -> Predictor:
    """Load a model of transformers. Weights are read from safetensors, and no remote code is run.

    Args:
        info: Description of the dataset.
        name: Folder that ``save_pretrained`` wrote, with model and image processor, or a name on
            the hub (fetched before).
        labels: The dataset's name of a class by the model's name.

    Raises:
        UserError: If the model cannot be loaded or does not fit the dataset.
    """
    local = Path(name).expanduser()
    config, head, model, processor = _load(
        str(local if local.is_dir() else transformers_folder(name)), name, info
    )
    names = class_names(config.id2label)
    columns = class_columns(info, names, len(names), labels or {}, name)
    instances = info.task == "detection" and head == UNIVERSAL
    if instances and not _has_binary_maps(processor.library):
        raise UserError(
            f"{type(model).__name__} has no overlapping instances in transformers; evaluate it on"
            " label maps, or give a MaskFormer or Mask2Former"
        )
    preprocessing = _without_versions(processor.library.to_dict())
    weights_digest = digest(model.state_dict())
    predict = MAKERS[info.task, head == UNIVERSAL](model, processor, columns, len(names))
    fold_batch_norm(model, predict)
    return Predictor(
        task=info.task,
        model=f"transformers:{local.name if local.is_dir() else name}",
        predict=predict,
        weights=prediction_identity(
            weights_digest,
            config=_without_versions(config.to_dict()),
            preprocessing=preprocessing,
        ),
        classes=info.classes,
        masks=instances,
        about={
            "architecture": type(model).__name__,
            "preprocessing": preprocessing,
            "transformers": transformers.__version__,
        },
    )


def _load(source: str, name: str, info: DatasetInfo) -> tuple[Any, str, Any, "_Processor"]:
    """Load the configuration, the head's name, the model in evaluation mode and its processor."""
    try:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
        head = _head_of(config, info)
        model, loaded = getattr(transformers, head).from_pretrained(
            source, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        processor = _load_processor(source, config, info)
    except UserError:
        raise
    except Exception as error:  # a damaged folder may raise errors of any type
        reason = error_summary(error)
        raise UserError(
            f"Expected a model with its image processor for {info.task} at {name}, but: {reason}"
        ) from None
    if missing := sorted(loaded["missing_keys"]):
        raise UserError(
            f"Expected all weights of {type(model).__name__} at {name}, but {len(missing)} are"
            f" missing ({tensor_names(missing)}); give a model that was trained for {info.task}"
        )
    require_possible_values(model, name)
    return config, head, model.eval().to(default_device()), processor


def _without_versions(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the library's version and the path that a model was loaded from."""
    return {
        key: value
        for key, value in settings.items()
        if key != "transformers_version" and not key.startswith("_")
    }


@dataclass(frozen=True)
class _Processor:
    """The image processor of a model."""

    library: Any
    task: str
    """Task that OneFormer receives as text; empty for other models."""
    grey: bool
    """Whether the model takes one channel."""

    def __call__(self, images: list[Image]) -> Any:
        """Return the inputs of the model."""
        if self.grey:
            images = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] for image in images]
        text = ([self.task] * len(images),) if self.task else ()
        return self.library(
            images, *text, return_tensors="pt", input_data_format="channels_last"
        ).to(default_device())


def _load_processor(source: str, config: Any, info: DatasetInfo) -> _Processor:
    one_former = config.model_type == "oneformer"
    load: Any = transformers.OneFormerProcessor if one_former else transformers.AutoImageProcessor
    task = "instance" if info.task == "detection" else "semantic"
    return _Processor(
        load.from_pretrained(source, trust_remote_code=False),
        task if one_former else "",
        getattr(config, "num_channels", 3) == 1,
    )


def _has_binary_maps(library: Any) -> bool:
    convert = getattr(library, "post_process_instance_segmentation", None)
    return convert is not None and "return_binary_maps" in inspect.signature(convert).parameters


def _head_of(config: Any, info: DatasetInfo) -> str:
    for head in HEADS[info.task]:
        if type(config) in getattr(transformers, head)._model_mapping:
            return head
    kind = type(config).__name__
    for head, (reason, advice) in UNSUITED.items():
        if type(config) in getattr(getattr(transformers, head, None), "_model_mapping", ()):
            raise UserError(f"Expected a model for {info.task}, but {kind} {reason}; {advice}")
    raise UserError(
        f"{kind} has no head for {info.task} in transformers; give a model that was trained for it"
    )


def _sizes(images: list[Image]) -> list[tuple[int, int]]:
    return [(image.shape[0], image.shape[1]) for image in images]


def _classifier(model: Any, processor: _Processor, columns: Any, outputs: int) -> Predict:
    def predict(images: list[Image]) -> list[Prediction]:
        return classification_predictions(model(**processor(images)).logits, columns)

    return predict


def _segmenter(model: Any, processor: _Processor, columns: Any, outputs: int) -> Predict:
    def predict(images: list[Image]) -> list[Prediction]:
        # one by one: images of different sizes would need padding, which would be segmented too
        logits = [model(**processor([image])).logits[0] for image in images]
        return [
            segmentation_prediction(one, size, columns)
            for one, size in zip(logits, _sizes(images), strict=True)
        ]

    return predict


def _resize(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """(B, C, h, w) -> (B, C, H, W)."""
    return functional.interpolate(values, size, mode="bilinear", align_corners=False)


def _universal_segmenter(model: Any, processor: _Processor, columns: Any, outputs: int) -> Predict:
    """Sum each query's mask, weighted by its class, as the library does."""

    def predict(images: list[Image]) -> list[Prediction]:
        found = []
        for image, size in zip(images, _sizes(images), strict=True):
            inputs = processor([image])
            answer = model(**inputs)
            if "class_queries_logits" not in answer:
                raise UserError(
                    f"{type(model).__name__} has no semantic segmentation in transformers; give a"
                    " MaskFormer, Mask2Former, OneFormer or EoMT"
                )
            classes = answer.class_queries_logits.softmax(-1)[..., torch.from_numpy(columns)]
            masks = answer.masks_queries_logits.float()
            offsets = inputs.get("patch_offsets")
            if offsets is not None:  # EoMT, whose masks are coarse
                masks = _resize(masks, tuple(inputs["pixel_values"].shape[-2:]))
            scores = torch.einsum("bqc,bqhw->bchw", classes.float(), masks.sigmoid())
            if offsets:  # it cuts a long image into squares, which overlap
                library = processor.library
                whole = library.merge_image_patches(scores, offsets, [size], library.size)[0]
            else:
                whole = _resize(scores, size)[0]
            found.append(Prediction(label_map=whole.argmax(0).cpu().numpy()))
        return found

    return predict


def _by_size(predict: Predict) -> Predict:
    """Predict images of different sizes apart: smaller ones would be padded to the largest.

    Some detectors see the padding, so that a prediction would depend on the rest of its batch.
    """

    def predict_by_size(images: list[Image]) -> list[Prediction]:
        return [
            one
            for _, alike in itertools.groupby(images, lambda image: image.shape)
            for one in predict(list(alike))
        ]

    return predict_by_size


def _detector(model: Any, processor: _Processor, columns: Any, outputs: int) -> Predict:
    def predict(images: list[Image]) -> list[Prediction]:
        answer = model(**processor(images))
        found = processor.library.post_process_object_detection(
            answer, threshold=0.0, target_sizes=torch.tensor(_sizes(images))
        )
        results = []
        for one, size in zip(found, _sizes(images), strict=True):
            boxes, numbers, scores = (
                one[key].float().cpu().numpy() for key in ("boxes", "labels", "scores")
            )
            results.append(
                detection_prediction(
                    boxes, numbers, scores, None, size, columns, outputs, "the detector"
                )
            )
        return results

    return _by_size(predict)


def _instances(model: Any, processor: _Processor, columns: Any, outputs: int) -> Predict:
    def predict(images: list[Image]) -> list[Prediction]:
        sizes = _sizes(images)
        answer = model(**processor(images))
        found = processor.library.post_process_instance_segmentation(
            answer, threshold=0.0, target_sizes=sizes, return_binary_maps=True
        )
        results = []
        for one, size in zip(found, sizes, strict=True):
            segments = one["segments_info"]
            masks = (
                np.zeros((0, *size), bool)
                if not segments
                else one["segmentation"].cpu().numpy().reshape(-1, *size) > 0.5
            )
            numbers = np.array([segment["label_id"] for segment in segments], np.int64)
            scores = np.array([segment["score"] for segment in segments], np.float32)
            results.append(
                detection_prediction(
                    mask_boxes(masks),
                    numbers,
                    scores,
                    masks,
                    size,
                    columns,
                    outputs,
                    "the segmenter",
                )
            )
        return results

    return _by_size(predict)


MAKERS = {
    ("classification", False): _classifier,
    ("segmentation", False): _segmenter,
    ("segmentation", True): _universal_segmenter,
    ("detection", False): _detector,
    ("detection", True): _instances,
}
"""By task, and whether the head is ``UNIVERSAL``."""
